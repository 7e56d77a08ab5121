//! PEM (RFC 7468) as people store it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Bounds the label in a message, in characters.
const MAX_LABEL_LENGTH: usize = 32;

/// Restores PEM that was indented (YAML), whose line breaks are written as `\n` (environment variables), or whose files began
/// with a byte order mark before they were joined.
pub(super) fn unfold(text: &str) -> String {
    let around = |c: char| c.is_whitespace() || c == '\u{feff}';
    let lines = text.replace("\\r", "").replace("\\n", "\n");
    lines.lines().map(|line| line.trim_matches(around)).collect::<Vec<_>>().join("\n")
}

/// Why PEM holds no certificates that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PemProblem {
    /// No block of PEM at all.
    NoPem,
    /// The certificate at this position, from 1, cannot be decoded.
    Damaged(usize),
    /// OpenSSL's own form.
    Trusted,
    /// Only blocks of another kind, the first of which is this.
    Other(String),
}

/// All certificates, at least one. Text around and between them is skipped, as are blocks of other kinds.
pub(super) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PemProblem> {
    let pem = unfold(pem);
    let labels = || pem.split("-----BEGIN ").skip(1).filter_map(|rest| Some(rest.split_once("-----")?.0));
    if labels().any(|label| label == "TRUSTED CERTIFICATE") {
        return Err(PemProblem::Trusted);
    }
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        certificates.push(certificate.map_err(|_| PemProblem::Damaged(certificates.len() + 1))?);
    }
    if !certificates.is_empty() {
        return Ok(certificates);
    }
    Err(labels().next().map_or(PemProblem::NoPem, |label| {
        let plain = |c: &char| c.is_ascii_alphanumeric() || *c == ' ';
        PemProblem::Other(label.chars().filter(plain).take(MAX_LABEL_LENGTH).collect())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = include_str!("tests/keys/rsa-certificate.pem");
    const KEY: &str = include_str!("tests/keys/rsa.pem");

    #[test]
    fn certificates_are_read_with_marks_and_text_around_them() {
        let text = "# Issuer: CN=x\nsubject=/CN=x\n=========\n-----\nBag Attributes\n    friendlyName: x\n\n";
        for pem in [
            [CERTIFICATE, CERTIFICATE].concat(),
            format!("\u{feff}{CERTIFICATE}\u{feff}{CERTIFICATE}"),
            format!("{text}{CERTIFICATE}{text}{CERTIFICATE}{text}"),
            format!("{KEY}{CERTIFICATE}{KEY}{CERTIFICATE}"),
            [CERTIFICATE, CERTIFICATE].concat().replace('\n', "\r\n"),
            [CERTIFICATE, CERTIFICATE].concat().replace('\n', "\\n"),
            [CERTIFICATE, CERTIFICATE].concat().lines().map(|line| format!("    {line}\n")).collect(),
        ] {
            assert_eq!(certificates(&pem).map(|all| all.len()), Ok(2), "{pem}");
        }
    }

    #[test]
    fn certificates_that_are_none_are_told_by_name() {
        let trusted = CERTIFICATE.replace(" CERTIFICATE", " TRUSTED CERTIFICATE");
        for (pem, problem) in [
            ("", PemProblem::NoPem),
            ("hunter2", PemProblem::NoPem),
            (KEY, PemProblem::Other("PRIVATE KEY".into())),
            ("-----BEGIN \u{1b}[1mX-----\nAAAA\n-----END \u{1b}[1mX-----\n", PemProblem::Other("1mX".into())),
            ("-----BEGIN CERTIFICATE-----\n", PemProblem::Damaged(1)),
            (&trusted, PemProblem::Trusted),
            (&format!("{CERTIFICATE}{trusted}"), PemProblem::Trusted),
            (&CERTIFICATE.replace("-----END", "!\n-----END"), PemProblem::Damaged(1)),
        ] {
            assert_eq!(certificates(pem), Err(problem), "{pem}");
        }
    }
}
