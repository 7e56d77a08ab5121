//! Keys made with openssl and ssh-keygen for these tests.

use crate::certificate::{CertificateFields, thumbprint};
use crate::key::PrivateKey;
use crate::{Algorithm, KeyError, KeyType};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

pub(super) const RSA: &str = include_str!("keys/rsa.pem");
pub(super) const RSA_CERTIFICATE: &str = include_str!("keys/rsa-certificate.pem");
pub(super) const P256: &str = include_str!("keys/p256.pem");
const PKCS1: &str = include_str!("keys/rsa-pkcs1.pem");
const SEC1: &str = include_str!("keys/p256-sec1.pem");
const P384: &str = include_str!("keys/p384.pem");
const ED: &str = include_str!("keys/ed25519.pem");

pub(super) fn google_key_file() -> String {
    serde_json::json!({
        "type": "service_account",
        "project_id": "project-123",
        "private_key_id": "0123456789abcdef",
        "private_key": RSA,
        "client_email": "robot@project-123.iam.gserviceaccount.com",
        "client_id": "1234567890",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token",
        "universe_domain": "googleapis.com"
    })
    .to_string()
}

fn read(text: &str) -> Result<PrivateKey, KeyError> {
    PrivateKey::read(&text.into())
}

fn refusal(text: &str) -> KeyError {
    read(text).unwrap_err()
}

#[test]
fn key_of_every_format_signs_with_every_matching_algorithm() {
    let rsa: &[(Algorithm, &'static dyn VerificationAlgorithm)] = &[
        (Algorithm::Rs256, &RSA_PKCS1_2048_8192_SHA256),
        (Algorithm::Rs384, &RSA_PKCS1_2048_8192_SHA384),
        (Algorithm::Rs512, &RSA_PKCS1_2048_8192_SHA512),
        (Algorithm::Ps256, &RSA_PSS_2048_8192_SHA256),
    ];
    let p256: &[(Algorithm, &'static dyn VerificationAlgorithm)] =
        &[(Algorithm::Es256, &ECDSA_P256_SHA256_FIXED)];
    let google = google_key_file();
    for (text, algorithms) in [
        (RSA, rsa),
        (PKCS1, rsa),
        (google.as_str(), rsa),
        (P256, p256),
        (SEC1, p256),
        (P384, &[(Algorithm::Es384, &ECDSA_P384_SHA384_FIXED)]),
        (ED, &[(Algorithm::EdDsa, &ED25519)]),
    ] {
        let key = read(text).unwrap();
        let public = key.public().unwrap();
        for (algorithm, verification) in algorithms {
            let signature = key.sign(*algorithm, b"message").unwrap();
            let public = UnparsedPublicKey::new(*verification, &public);
            assert!(public.verify(b"message", &signature).is_ok(), "{algorithm}");
        }
    }
}

#[test]
fn key_ed25519_signature_equals_example_of_rfc_8037() {
    // RFC 8037, A.1: d of the JWK, in RFC 8410's envelope.
    let seed = BASE64_URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let der = [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20], &seed[..]].concat();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----",
        base64::prelude::BASE64_STANDARD.encode(der)
    );
    let input = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    assert_eq!(
        BASE64_URL_SAFE_NO_PAD.encode(read(&pem).unwrap().sign(Algorithm::EdDsa, input).unwrap()),
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg" // A.4
    );
}

#[test]
fn key_indented_or_escaped_pem_is_read() {
    let indented = RSA.lines().map(|line| format!("    {line}\r\n")).collect::<String>();
    let escaped = RSA.replace('\n', "\\n");
    let surrounded = format!("\u{feff}\nBag Attributes\n    friendlyName: x\n{RSA}\n{RSA_CERTIFICATE}");
    let certificate_first = format!("{RSA_CERTIFICATE}{RSA}");
    for text in [indented, escaped, surrounded, certificate_first] {
        assert!(read(&text).is_ok(), "{}", text.len());
    }
}

#[test]
fn key_unusable_is_refused_with_remedy() {
    let legacy_dsa = "-----BEGIN DSA PRIVATE KEY-----\nMIIB\n-----END DSA PRIVATE KEY-----";
    let cut: String = RSA.lines().take(9).chain(["-----END PRIVATE KEY-----"]).collect::<Vec<_>>().join("\n");
    for (text, error, remedy) in [
        (include_str!("keys/rsa-encrypted.pem"), KeyError::Encrypted, "openssl pkey -in key.pem -out"),
        (include_str!("keys/rsa-pkcs1-encrypted.pem"), KeyError::Encrypted, "openssl pkey"),
        (include_str!("keys/openssh.pem"), KeyError::OpenSsh, "ssh-keygen -p"),
        (include_str!("keys/dsa.pem"), KeyError::Dsa, "openssl genpkey"),
        (legacy_dsa, KeyError::Dsa, "openssl genpkey"),
        (include_str!("keys/rsa-1024.pem"), KeyError::TooSmall, "openssl genpkey"),
        (
            include_str!("keys/p521.pem"),
            KeyError::Unsupported("EC on P-521"),
            "not supported (EC on P-521): use RSA",
        ),
        (include_str!("keys/rsa-pss.pem"), KeyError::Unsupported("RSA-PSS"), "openssl genpkey"),
        (RSA_CERTIFICATE, KeyError::Certificate, "store the key"),
        (include_str!("keys/rsa-public.pem"), KeyError::PublicKey, "store the private key"),
        ("hunter2", KeyError::NotPem, "-----BEGIN"),
        (&cut, KeyError::Damaged, "openssl pkey"),
        ("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----", KeyError::Damaged, "openssl pkey"),
        ("-----BEGIN PRIVATE KEY-----\nMIIB", KeyError::Damaged, "openssl pkey"),
    ] {
        assert_eq!(refusal(text), error, "{text}");
        assert!(error.to_string().contains(remedy), "{error}");
    }
    for (text, message) in [
        ("{", "does not parse"),
        (r#"{"type":"authorized_user","refresh_token":"x"}"#, "not service_account"),
        (r#"{"boxAppSettings":{}}"#, "store the PEM alone"),
        (r#"{"type":"service_account","client_email":"x"}"#, "no private_key"),
        (r#"{"type":"service_account","private_key":"x"}"#, "no client_email"),
    ] {
        let error = refusal(text).to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn key_wrong_algorithm_error_names_matching_ones() {
    for (text, algorithm, has, message) in [
        (P256, Algorithm::Rs256, KeyType::P256, "set the algorithm to ES256"),
        (P256, Algorithm::Es384, KeyType::P256, "needs an EC key on P-384"),
        (RSA, Algorithm::EdDsa, KeyType::Rsa, "RS256, RS384, RS512 or PS256"),
        (ED, Algorithm::Es256, KeyType::Ed25519, "set the algorithm to EdDSA"),
    ] {
        let error = read(text).unwrap().sign(algorithm, b"").unwrap_err();
        assert_eq!(error, KeyError::WrongType { algorithm, has });
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn key_debug_prints_no_secret() {
    let key = read(RSA).unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey(an RSA key)");
    assert_eq!(
        format!("{:?}", read(&google_key_file()).unwrap().google().unwrap().private_key_id),
        "Some(\"0123456789abcdef\")"
    );
}

#[test]
fn certificate_fields_are_read_and_truncation_does_not_panic() {
    let certificate = CertificateDer::from_pem_slice(RSA_CERTIFICATE.as_bytes()).unwrap();
    let fields = CertificateFields::read(&certificate).unwrap();
    assert_eq!(fields.public_key, read(RSA).unwrap().public().unwrap());
    assert!(fields.is_self_issued() && !fields.has_names);
    assert!(fields.not_before < fields.not_after && fields.not_after.as_second() > 4_000_000_000);
    assert_eq!(thumbprint(&certificate).len(), 43);
    // openssl x509 -in rsa-certificate.pem -fingerprint -sha256 | xxd -r -p | basenc --base64url
    assert_eq!(thumbprint(&certificate), include_str!("keys/rsa-certificate.x5t-s256").trim());
    for cut in 0..certificate.len() {
        let _ = CertificateFields::read(&certificate[..cut]);
    }
}
