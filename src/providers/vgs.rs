//! Very Good Security: Vault API, Account Updater and Network Tokens share one Keycloak.
//! <https://docs.verygoodsecurity.com/vault/developer-tools/apis/authentication>

use secrecy::SecretString;
use serde::Deserialize;

use super::description::Description;
use super::spec_error::SpecError;
use super::values::parse_url;
use token_endpoint::{ClientAuthentication, Grant, RequestDescription};
use tokensource_api::Vgs;

const TOKEN_URL: &str = "https://auth.verygoodsecurity.com/auth/realms/vgs/protocol/openid-connect/token";

/// A form with id and secret in the body. The scopes belong to the client; the spec may ask for fewer.
pub(super) fn describe(spec: &Vgs) -> Result<Description, SpecError> {
    let token_url = spec.token_url.as_deref().unwrap_or(TOKEN_URL);
    Ok(Description::new(
        "vgs",
        RequestDescription {
            scopes: spec.scopes.clone().unwrap_or_default(),
            ..RequestDescription::new(
                parse_url("spec.provider.vgs.tokenURL", token_url)?,
                Grant::ClientCredentials,
                ClientAuthentication::Post,
            )
        },
    ))
}

#[derive(Deserialize)]
struct VgsServiceAccount {
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    data: Option<ServiceAccountData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceAccountData {
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    client_secret: Option<SecretString>,
}

/// A problem of a service account's YAML. Contains no value of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ServiceAccountError {
    #[error("is not YAML (line {line}): store what `vgs apply service-account` printed, unchanged")]
    NotYaml { line: u64 },
    #[error("holds a {kind}, not a ServiceAccount: store what `vgs apply service-account` printed")]
    OtherKind { kind: String },
    #[error(
        "is the template of a service account, without {missing}: apply it with `vgs apply service-account -f FILE`, and store what that prints"
    )]
    Template { missing: &'static str },
}

/// Reads id and secret from the output of `vgs apply service-account`. Its scopes are never sent.
pub(super) fn read_service_account(text: &str) -> Result<(String, SecretString), ServiceAccountError> {
    let account = parse(text).or_else(|error| match dedented(text) {
        Some(dedented) => parse(&dedented).map_err(|_| error),
        None => Err(error),
    })?;
    if let Some(kind) = account.kind.filter(|kind| kind != "ServiceAccount") {
        let kind = kind.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
        return Err(ServiceAccountError::OtherKind { kind });
    }
    let data = account.data.unwrap_or(ServiceAccountData { client_id: None, client_secret: None });
    let client_id = data.client_id.filter(|id| !is_placeholder(id));
    let client_secret =
        data.client_secret.filter(|secret| !is_placeholder(secrecy::ExposeSecret::expose_secret(secret)));
    Ok((
        client_id.ok_or(ServiceAccountError::Template { missing: "clientId" })?,
        client_secret.ok_or(ServiceAccountError::Template { missing: "clientSecret" })?,
    ))
}

/// Whether a value is empty or a placeholder such as `<CLIENT_ID>`.
fn is_placeholder(value: &str) -> bool {
    let value = value.trim();
    value.is_empty() || (value.starts_with('<') && value.ends_with('>'))
}

fn parse(text: &str) -> Result<VgsServiceAccount, ServiceAccountError> {
    // The parser's message quotes the text around the error, which may be a secret: only the line is used.
    serde_saphyr::from_str(text).map_err(|error| ServiceAccountError::NotYaml {
        line: error.location().map_or(1, |location| location.line()),
    })
}

/// Removes the indentation that all lines except the first share: the documentation of VGS prints it like this.
fn dedented(text: &str) -> Option<String> {
    let (first, rest) = text.trim_start().split_once('\n')?;
    let indentation = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let shared =
        rest.lines().filter(|line| !line.trim().is_empty()).map(indentation).min().filter(|n| *n > 0)?;
    let lines = rest.lines().map(|line| line.get(shared..).unwrap_or_default());
    Some(std::iter::once(first).chain(lines).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const APPLIED: &str = "apiVersion: 1.0.0
kind: ServiceAccount
data:
  clientId: ACabc-vgs-cli-XYZ
  clientSecret: 7b8e-secret
  name: vgs-cli
  scopes:
  - cards:write
  - name: network-tokens:read
";

    #[test]
    fn read_service_account_accepts_the_output_of_vgs_apply() {
        for text in [
            APPLIED.to_owned(),
            format!("---\n{APPLIED}"),
            APPLIED.lines().map(|line| format!("    {line}\n")).collect(),
            // Copied from the documentation: the first line has no indentation.
            APPLIED.lines().map(|line| format!("    {line}\n")).collect::<String>().trim_start().to_owned(),
            APPLIED.replace('\n', "\r\n"),
        ] {
            let (id, secret) = read_service_account(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert_eq!(id, "ACabc-vgs-cli-XYZ");
            assert_eq!(secret.expose_secret(), "7b8e-secret");
        }
    }

    #[test]
    fn read_service_account_of_a_template_names_the_missing_member() {
        let generated = "apiVersion: 1.0.0\nkind: ServiceAccount\ndata:\n  # Maximum\n  accessTokenLifespan: 300\n  vaults:\n    - tntcs7thayd\n  name: vgs-cli\n";
        for text in [
            generated.to_owned(),
            APPLIED.replace("ACabc-vgs-cli-XYZ", "<CLIENT_ID>"),
            "kind: ServiceAccount".into(),
        ] {
            let message = read_service_account(&text).unwrap_err().to_string();
            assert_eq!(
                message,
                "is the template of a service account, without clientId: apply it with `vgs apply service-account -f FILE`, and store what that prints"
            );
        }
        let half = APPLIED.replace("7b8e-secret", "<CLIENT_SECRET>");
        assert_eq!(
            read_service_account(&half).unwrap_err(),
            ServiceAccountError::Template { missing: "clientSecret" }
        );
    }

    #[test]
    fn read_service_account_error_names_the_line_and_no_secret() {
        let broken = APPLIED.replace("  name: vgs-cli", " name: [vgs-cli");
        let error = read_service_account(&broken).unwrap_err();
        let message = format!("{error} {error:?}");
        assert!(message.contains("line "), "{message}");
        assert!(!message.contains("7b8e"), "{message}");
        assert_eq!(
            read_service_account(&APPLIED.replace("ServiceAccount", "Secret")).unwrap_err(),
            ServiceAccountError::OtherKind { kind: "Secret".into() }
        );
    }
}
