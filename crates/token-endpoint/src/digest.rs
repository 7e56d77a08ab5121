//! Keyed digests of secrets. The key never leaves the process, so that a digest reveals nothing about its secret elsewhere.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// A keyed digest, comparable within this process only.
pub type Digest = [u8; 16];

/// The key of this process's digests.
pub(super) struct DigestKey(hmac::Key);

impl DigestKey {
    /// A random key.
    pub(super) fn new() -> Self {
        let mut secret = [0; 32];
        // It fails only where the operating system has no randomness, and then TLS does not work either.
        let _ = SystemRandom::new().fill(&mut secret);
        Self(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }

    /// The digest of a list of values. Each is hashed with its length, so that different lists are different bytes.
    pub(super) fn of<'a>(&self, values: impl IntoIterator<Item = Option<&'a [u8]>>) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        for value in values {
            context.update(&value.map_or(u64::MAX, |value| value.len() as u64).to_le_bytes());
            context.update(value.unwrap_or_default());
        }
        let mut digest = Digest::default();
        digest.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::super::credential::Credential;
    use super::super::credentials::Credentials;
    use super::*;

    #[test]
    fn digest_any_credential_changed_differs() {
        let changes: [fn(&mut Credentials); 9] = [
            |credentials| credentials.client_id = Some("v".into()),
            |credentials| credentials.client_secret = Some("v".into()),
            |credentials| credentials.refresh_token = Some("v".into()),
            |credentials| credentials.private_key = Some("v".into()),
            |credentials| credentials.certificate = Some("v".into()),
            |credentials| credentials.subject_token = Some("v".into()),
            |credentials| credentials.actor_token = Some("v".into()),
            |credentials| drop(credentials.values.insert("k".into(), "v".into())),
            |credentials| {
                credentials.client_secret = Some("v".into());
                credentials.stored.insert(Credential::ClientSecret, "\u{feff}v".into());
            },
        ];
        let key = DigestKey::new();
        let digest = |change: fn(&mut Credentials)| {
            let mut credentials = Credentials::default();
            change(&mut credentials);
            key.of(credentials.all())
        };
        let mut digests: Vec<_> = changes.into_iter().chain([(|_| {}) as fn(&mut _)]).map(digest).collect();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 10);
    }

    #[test]
    fn digest_values_with_equal_concatenation_differ() {
        let key = DigestKey::new();
        let of = |values: &[Option<&'static str>]| key.of(values.iter().map(|it| it.map(str::as_bytes)));
        assert_eq!(of(&[Some("id"), Some("s3")]), of(&[Some("id"), Some("s3")]));
        assert_ne!(of(&[Some("id"), Some("s3")]), of(&[Some("ids"), Some("3")]));
        assert_ne!(of(&[Some("id"), Some("s3")]), of(&[Some("s3"), Some("id")]));
        assert_ne!(of(&[Some("")]), of(&[None]));
        assert_ne!(of(&[Some("id")]), DigestKey::new().of([Some("id".as_bytes())]), "another process");
    }
}
