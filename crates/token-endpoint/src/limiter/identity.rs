//! Which requests are of one client.

use crate::credentials::Credentials;
use crate::digest::{Digest, DigestKey};
use crate::request::RequestDescription;
use crate::tls::Tls;

/// A client with a credential at a token URL, as a keyed digest: it tells clients apart and says nothing about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientIdentity(Digest);

impl ClientIdentity {
    pub(super) fn of(
        key: &DigestKey,
        description: &RequestDescription,
        credentials: &Credentials,
        tls: &Tls,
    ) -> Self {
        let how = [
            description.token_url.as_str().to_owned(),
            format!("{:?}", description.client_authentication),
            // An assertion's subject is a part of what is let in.
            format!("{:?}", description.grant),
        ];
        // A renewed certificate is another credential.
        let certificate = tls.has_client_certificate().then(|| tls.digest());
        let how = how.iter().map(|it| Some(it.as_bytes())).chain([certificate.as_ref().map(AsRef::as_ref)]);
        Self(key.of(how.chain(credentials.all())))
    }
}
