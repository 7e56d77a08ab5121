//! Which requests get the same answers.

use crate::credentials::Credentials;
use crate::digest::{Digest, DigestKey};
use crate::error::Error;
use crate::grant::{ClientAuthentication, Grant};
use crate::request::RequestDescription;
use crate::tls::Tls;

/// A client, a grant or a request, as a keyed digest: it tells them apart and says nothing about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Identity(Digest);

/// A client that several tenants are lent, as a keyed digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupClient(Identity);

/// Who asks (RFC 6749, 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientType {
    /// Neither a client id nor an assertion is sent: the rest of the grant alone says who asks.
    Absent,
    /// Nothing proves the client's id.
    Public,
    /// A credential proves it.
    Confidential,
}

/// What the answer to a request may depend on, from what most requests share to what fewest do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestIdentity {
    /// Tenant, token URL, client id, secret or key or certificate, and the method of authentication; with an assertion of others, and
    /// no other proof, of whom that speaks.
    pub(super) client: Identity,
    pub(super) client_type: ClientType,
    /// The client with its refresh token, subject token or the subject of its assertion, and with secret parameters and headers.
    pub(super) grant: Identity,
    /// The grant with its type, scopes, audience, resources and parameters.
    pub(super) request: Identity,
    /// The client, if it is lent to several tenants: the same for them all. Their requests have no grants of their own, so that
    /// secret parameters and headers belong to it.
    pub(super) group: Option<GroupClient>,
}

impl RequestIdentity {
    pub(super) fn of(
        key: &DigestKey,
        (group, tenant): (Option<&str>, &str),
        description: &RequestDescription,
        credentials: &Credentials,
        tls: &Tls,
    ) -> Self {
        let url = description.token_url.as_str().as_bytes();
        let method = format!("{:?}", description.client_authentication);
        // A renewed certificate is another credential.
        let certificate = tls.has_client_certificate().then(|| tls.digest());
        let by_nothing = matches!(description.client_authentication, ClientAuthentication::None);
        let by_assertion =
            matches!(description.client_authentication, ClientAuthentication::Assertion { .. });
        let client_of = |owner: &str, is_lent: bool| {
            let client = [
                Some(owner.as_bytes()),
                Some(url),
                Some(method.as_bytes()),
                certificate.as_ref().map(AsRef::as_ref),
            ];
            let asserted = [
                credentials.client_asserted().filter(|_| by_assertion),
                credentials.asserted().filter(|_| by_nothing || is_lent),
            ];
            let values = credentials.values().filter(|_| is_lent);
            let client = client.into_iter().chain(credentials.of_client()).chain(asserted);
            Identity(key.of(client.chain(values)))
        };
        let client = client_of(tenant, false);
        let client_type = if certificate.is_some() || description.signs() || !by_nothing {
            ClientType::Confidential
        } else if credentials.client_id.is_some() || credentials.asserted.is_some() {
            ClientType::Public
        } else {
            ClientType::Absent
        };
        // Apart from a tenant of the same name.
        let group = group.map(|group| GroupClient(client_of(&format!("{group} "), true)));

        // The subject of an assertion is what a server grants or not.
        let assertion = match &description.grant {
            Grant::JwtBearer(assertion) => format!("{assertion:?}"),
            _ => String::new(),
        };
        let grant = [Some(client.0.as_ref()), Some(assertion.as_bytes())];
        let grant = Identity(key.of(grant.into_iter().chain(credentials.of_grant())));

        let RequestDescription { scopes, audience, resources, parameters, headers, .. } = description;
        let asked = [
            format!("{:?}", description.grant),
            format!("{:?}", (&description.encoding, scopes, audience, resources)),
            format!("{:?}", (parameters, headers)),
            format!("{:?}", (&description.secret_parameters, &description.secret_headers)),
        ];
        let asked = asked.iter().map(|it| Some(it.as_bytes()));
        let request = Identity(key.of([Some(grant.0.as_ref())].into_iter().chain(asked)));
        Self { client, client_type, grant, request, group }
    }

    /// Whether a rejection of the client means its grant: nothing else says who asks.
    pub(super) fn is_grant_rejected(&self, error: &Error) -> bool {
        match self.client_type {
            ClientType::Absent => true,
            ClientType::Public => !error.names_client(),
            ClientType::Confidential => false,
        }
    }

    /// The client, if it is lent to several tenants.
    #[must_use]
    pub fn group_client(&self) -> Option<GroupClient> {
        self.group
    }

    pub(crate) fn all(&self) -> [Identity; 3] {
        [self.client, self.grant, self.request]
    }
}
