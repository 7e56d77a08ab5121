//! Private keys: PKCS#8 (RFC 5958), PKCS#1 (RFC 8017, A.1.2) and SEC 1 (RFC 5915) in PEM, and Google service account key files.
//! The error for a key that cannot be used names the command that converts or replaces it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::der::{DerReader, INTEGER, OBJECT_IDENTIFIER, SEQUENCE};
use super::pem::unfold;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::fmt;

/// A signature algorithm of JWS (RFC 7518, 3.1 and RFC 8037, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
            Algorithm::Ps256 => "PS256",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::EdDsa => "EdDSA",
        })
    }
}

impl Algorithm {
    fn key_type(self) -> KeyType {
        match self {
            Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512 | Algorithm::Ps256 => KeyType::Rsa,
            Algorithm::Es256 => KeyType::P256,
            Algorithm::Es384 => KeyType::P384,
            Algorithm::EdDsa => KeyType::Ed25519,
        }
    }
}

/// A type of key that can sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// RSA of 2048 bits or more.
    Rsa,
    /// Elliptic curve P-256.
    P256,
    /// Elliptic curve P-384.
    P384,
    /// Ed25519.
    Ed25519,
}

impl KeyType {
    fn algorithms(self) -> &'static str {
        match self {
            KeyType::Rsa => "RS256, RS384, RS512 or PS256",
            KeyType::P256 => "ES256",
            KeyType::P384 => "ES384",
            KeyType::Ed25519 => "EdDSA",
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyType::Rsa => "an RSA key",
            KeyType::P256 => "an EC key on P-256",
            KeyType::P384 => "an EC key on P-384",
            KeyType::Ed25519 => "an Ed25519 key",
        })
    }
}

/// A private key cannot be used. The message has the remedy, and no part of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Neither PEM nor JSON.
    #[error(
        "the private key is not PEM: store the whole file, from -----BEGIN PRIVATE KEY----- to -----END PRIVATE \
         KEY-----, or a Google service account key file"
    )]
    NotPem,
    /// Encrypted with a passphrase.
    #[error(
        "the private key is encrypted, and a passphrase cannot be given: store what `openssl pkey -in \
         key.pem -out decrypted.pem` writes"
    )]
    Encrypted,
    /// The format of OpenSSH.
    #[error(
        "the private key is in the format of OpenSSH: `ssh-keygen -p -N '' -m PKCS8 -f FILE` rewrites a copy of it"
    )]
    OpenSsh,
    /// No JWS algorithm uses DSA.
    #[error(
        "the private key is a DSA key, which no token endpoint accepts: `openssl genpkey -algorithm RSA -pkeyopt \
         rsa_keygen_bits:2048 -out key.pem` makes one that can be used, to be registered at the issuer"
    )]
    Dsa,
    /// RSA of less than 2048 bits (RFC 7518, 3.3).
    #[error(
        "the private key is an RSA key of less than 2048 bits (RFC 7518, 3.3): `openssl genpkey -algorithm RSA \
         -pkeyopt rsa_keygen_bits:2048 -out key.pem` makes one that can be used, to be registered at the issuer"
    )]
    TooSmall,
    /// P-521, secp256k1, Ed448, RSA-PSS and other types, by name.
    #[error(
        "the private key is of a type that is not supported ({0}): use RSA, EC on P-256 or P-384, or Ed25519, as in \
         `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem`"
    )]
    Unsupported(&'static str),
    /// PEM of a certificate.
    #[error("this is a certificate, not a private key: store the key that it was made for")]
    Certificate,
    /// PEM of a public key.
    #[error("this is a public key: store the private key that it belongs to")]
    PublicKey,
    /// PEM of a private key that cannot be decoded.
    #[error(
        "the private key is damaged: `openssl pkey -in key.pem -noout` should print nothing; store the file unchanged"
    )]
    Damaged,
    /// The algorithm needs another type of key.
    #[error("{algorithm} needs {}, and this is {has}: set the algorithm to {}", .algorithm.key_type(), .has.algorithms())]
    WrongType {
        /// The configured algorithm.
        algorithm: Algorithm,
        /// The type of the key.
        has: KeyType,
    },
    /// JSON that is not a Google key file.
    #[error("this is JSON but no Google service account key file: {0}")]
    NotGoogle(&'static str),
}

/// A private key that can sign.
pub(super) struct PrivateKey {
    der: PrivateKeyDer<'static>,
    key_type: KeyType,
    google: Option<ServiceAccount>,
}

/// The other members of a Google key file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceAccount {
    pub(super) client_email: String,
    pub(super) private_key_id: Option<String>,
}

#[derive(Deserialize)]
struct KeyFile {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    private_key: Option<SecretString>,
    #[serde(default)]
    private_key_id: Option<String>,
    #[serde(default)]
    client_email: Option<String>,
}

impl PrivateKey {
    /// Reads PEM, or a Google key file.
    pub(super) fn read(text: &SecretString) -> Result<Self, KeyError> {
        let text = text.expose_secret().trim_start_matches('\u{feff}').trim();
        if !text.starts_with('{') {
            return Self::from_pem(text);
        }
        let file: KeyFile = serde_json::from_str(text)
            .map_err(|_| KeyError::NotGoogle("it does not parse; store the file unchanged"))?;
        if file.kind.as_deref() != Some("service_account") {
            return Err(KeyError::NotGoogle(
                "its type is not service_account; for a key inside of other JSON, store the PEM alone",
            ));
        }
        let key = file.private_key.ok_or(KeyError::NotGoogle("it has no private_key"))?;
        let client_email = file.client_email.ok_or(KeyError::NotGoogle("it has no client_email"))?;
        let google = ServiceAccount { client_email, private_key_id: file.private_key_id };
        Ok(Self { google: Some(google), ..Self::from_pem(key.expose_secret())? })
    }

    fn from_pem(text: &str) -> Result<Self, KeyError> {
        match label(text)? {
            "ENCRYPTED PRIVATE KEY" => return Err(KeyError::Encrypted),
            "OPENSSH PRIVATE KEY" => return Err(KeyError::OpenSsh),
            "DSA PRIVATE KEY" => return Err(KeyError::Dsa),
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {}
            _ => return Err(KeyError::Unsupported("by the label of its PEM")),
        }
        if text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(KeyError::Encrypted); // RFC 1421, 4.6.1.1, as OpenSSL writes it
        }
        let clean = Zeroizing::new(unfold(text));
        let der = PrivateKeyDer::from_pem_slice(clean.as_bytes()).map_err(|_| KeyError::Damaged)?;
        Self::from_der(der)
    }

    fn from_der(der: PrivateKeyDer<'static>) -> Result<Self, KeyError> {
        let key_type = match &der {
            PrivateKeyDer::Pkcs1(_) => KeyType::Rsa,
            PrivateKeyDer::Sec1(key) => sec1_type(key)?,
            PrivateKeyDer::Pkcs8(key) => pkcs8_type(key)?,
            _ => return Err(KeyError::Unsupported("by the label of its PEM")),
        };
        let key = Self { der, key_type, google: None };
        key.public()?; // fails if the key cannot be loaded
        Ok(key)
    }

    pub(super) fn google(&self) -> Option<&ServiceAccount> {
        self.google.as_ref()
    }

    /// The key for rustls.
    pub(super) fn into_der(self) -> PrivateKeyDer<'static> {
        self.der
    }

    /// The public key as in the bit string of a certificate's SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).
    pub(super) fn public(&self) -> Result<Vec<u8>, KeyError> {
        Ok(match self.key_type {
            KeyType::Rsa => self.rsa()?.public_key().as_ref().to_vec(),
            KeyType::P256 => {
                self.ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING)?.public_key().as_ref().to_vec()
            }
            KeyType::P384 => {
                self.ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING)?.public_key().as_ref().to_vec()
            }
            KeyType::Ed25519 => self.ed25519()?.public_key().as_ref().to_vec(),
        })
    }

    /// The signature of a JWS (RFC 7515, 5.1). PSS and ECDSA signatures are randomized.
    pub(super) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        if algorithm.key_type() != self.key_type {
            return Err(KeyError::WrongType { algorithm, has: self.key_type });
        }
        let random = SystemRandom::new();
        let padding: &'static dyn signature::RsaEncoding = match algorithm {
            Algorithm::Rs256 => &signature::RSA_PKCS1_SHA256,
            Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
            Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
            Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
            Algorithm::Es256 | Algorithm::Es384 => {
                let suite = match algorithm {
                    Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                    _ => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
                };
                let signed = self.ecdsa(suite)?.sign(&random, message);
                return signed.map(|signed| signed.as_ref().to_vec()).map_err(|_| KeyError::Damaged);
            }
            Algorithm::EdDsa => return Ok(self.ed25519()?.sign(message).as_ref().to_vec()),
        };
        let key = self.rsa()?;
        let mut signed = vec![0; key.public_modulus_len()];
        key.sign(padding, &random, message, &mut signed).map_err(|_| KeyError::Damaged)?;
        Ok(signed)
    }

    fn rsa(&self) -> Result<RsaKeyPair, KeyError> {
        match &self.der {
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            der => RsaKeyPair::from_der(der.secret_der()),
        }
        .map_err(|rejected| match rejected.to_string().as_str() {
            "TooSmall" => KeyError::TooSmall,
            "TooLarge" => KeyError::Unsupported("RSA of more than 8192 bits"),
            _ => KeyError::Damaged,
        })
    }

    fn ecdsa(&self, suite: &'static signature::EcdsaSigningAlgorithm) -> Result<EcdsaKeyPair, KeyError> {
        EcdsaKeyPair::from_private_key_der(suite, self.der.secret_der()).map_err(|_| KeyError::Damaged)
    }

    fn ed25519(&self) -> Result<Ed25519KeyPair, KeyError> {
        // RFC 8410, 10.3: most tools leave the public key out.
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(self.der.secret_der()).map_err(|_| KeyError::Damaged)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.key_type)
    }
}

/// The PEM label of the first private key.
///
/// # Errors
/// There is none; the error is about what the text holds instead.
fn label(text: &str) -> Result<&str, KeyError> {
    let labels = || text.split("-----BEGIN ").skip(1).filter_map(|rest| Some(rest.split_once("-----")?.0));
    if let Some(key) = labels().find(|label| label.ends_with("PRIVATE KEY")) {
        return Ok(key);
    }
    Err(match labels().next() {
        Some(label) if label.ends_with("CERTIFICATE") => KeyError::Certificate,
        Some(label) if label.ends_with("PUBLIC KEY") => KeyError::PublicKey,
        _ => KeyError::NotPem,
    })
}

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01]; // 1.2.840.113549.1.1.1
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]; // 1.2.840.10045.2.1
const DSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01]; // 1.2.840.10040.4.1
const ED25519: &[u8] = &[0x2b, 0x65, 0x70]; // 1.3.101.112
const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a]; // 1.2.840.113549.1.1.10
const ED448: &[u8] = &[0x2b, 0x65, 0x71]; // 1.3.101.113
const X25519: &[u8] = &[0x2b, 0x65, 0x6e]; // 1.3.101.110
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23]; // 1.3.132.0.35
const SECP256K1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x0a]; // 1.3.132.0.10
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]; // 1.2.840.10045.3.1.7
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22]; // 1.3.132.0.34

/// PrivateKeyInfo ::= SEQUENCE { version, AlgorithmIdentifier, .. } (RFC 5958, 2)
fn pkcs8_type(key: &PrivatePkcs8KeyDer<'_>) -> Result<KeyType, KeyError> {
    let mut algorithm = DerReader(key.secret_pkcs8_der())
        .enter(SEQUENCE)
        .and_then(|mut info| info.expect(INTEGER).and_then(|_| info.enter(SEQUENCE)))
        .ok_or(KeyError::Damaged)?;
    match algorithm.expect(OBJECT_IDENTIFIER).ok_or(KeyError::Damaged)? {
        RSA => Ok(KeyType::Rsa),
        ED25519 => Ok(KeyType::Ed25519),
        DSA => Err(KeyError::Dsa),
        EC => curve(algorithm.expect(OBJECT_IDENTIFIER)),
        RSA_PSS => Err(KeyError::Unsupported("RSA-PSS")),
        ED448 => Err(KeyError::Unsupported("Ed448")),
        X25519 => Err(KeyError::Unsupported("X25519, which signs nothing")),
        _ => Err(KeyError::Unsupported("an unknown algorithm")),
    }
}

/// ECPrivateKey ::= SEQUENCE `{ version, privateKey, [0] parameters, .. }` (RFC 5915, 3)
fn sec1_type(key: &PrivateSec1KeyDer<'_>) -> Result<KeyType, KeyError> {
    let parameters = DerReader(key.secret_sec1_der())
        .enter(SEQUENCE)
        .ok_or(KeyError::Damaged)?
        .find(|element| element.tag == 0xa0)
        .ok_or(KeyError::Unsupported("EC without the name of its curve"))?;
    curve(DerReader(parameters.content).expect(OBJECT_IDENTIFIER))
}

fn curve(named: Option<&[u8]>) -> Result<KeyType, KeyError> {
    match named {
        Some(P256) => Ok(KeyType::P256),
        Some(P384) => Ok(KeyType::P384),
        Some(P521) => Err(KeyError::Unsupported("EC on P-521")),
        Some(SECP256K1) => Err(KeyError::Unsupported("EC on secp256k1")),
        Some(_) => Err(KeyError::Unsupported("EC on another curve")),
        None => Err(KeyError::Unsupported("EC without the name of its curve")),
    }
}
