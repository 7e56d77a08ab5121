//! What a token request needs, as it is read before the request is sent.

use token_endpoint::{Class, Error, RequestDescription};

use super::{Material, TokenRequest};
use crate::controller::context::Context;
use crate::controller::credentials;
use crate::controller::mint_queue::MintResult;
use crate::controller::outcome::Outcome;
use crate::controller::refresh_token::{KnownOriginal, StoredSecret, choose};
use crate::providers::add_token;

impl TokenRequest<'_> {
    /// Reads TLS material, credentials, and the stored refresh token.
    pub(super) async fn material(
        &self,
        known: Option<&KnownOriginal>,
        result: &mut MintResult,
    ) -> Result<Material, Outcome> {
        let _permit = self.api_permit().await;
        let tls = Box::pin(credentials::tls(self.context, self.source, self.identity, self.spec)).await?;
        let rotation = self.rotation();
        let rotates = self.spec.sends_refresh_token();
        let stored = if rotates { rotation.stored().await? } else { StoredSecret::default() };
        let spec = &self.source.spec.credentials;
        let alone = rotation.stored_alone(&stored, known, spec, &self.spec.description);
        if let Some((credentials, lineage, version)) = alone.filter(|_| rotates) {
            let original = known.cloned().map(Box::new);
            let lineage = Some(lineage);
            return Ok(Material {
                tls,
                credentials,
                version,
                remarks: vec![],
                doubts: vec![],
                values: None,
                lineage,
                original,
                subject: None,
            });
        }
        let read = credentials::read(self.context, self.source, self.identity, self.spec).await;
        let credentials::Read { version, mut credentials, remarks, doubts } =
            read.map_err(|(version, outcome)| {
                result.tried = version.as_ref().map(|version| self.spec.tried(Some(version)));
                outcome
            })?;
        let values = Some(self.context.mints.limiter().digest(&credentials));
        let chosen = if rotates { choose(&mut credentials, stored, &version, known) } else { None };
        let (lineage, original) = chosen.unzip();
        let original = original.map(Box::new);
        let subject = None;
        Ok(Material { tls, credentials, version, remarks, doubts, values, lineage, original, subject })
    }

    /// Before a refresh token is sent: no other TokenSource may rotate it, and its successor must find a place.
    pub(super) async fn prepare(
        &self,
        material: &mut Material,
        original: Option<&mut KnownOriginal>,
    ) -> Result<(), Outcome> {
        let (Some(lineage), Some(original)) = (&mut material.lineage, original) else { return Ok(()) };
        let Some(refresh_token) = &material.credentials.refresh_token else { return Ok(()) };
        self.context.saver.has_room(&self.identity.key.namespace)?;
        let _permit = self.api_permit().await;
        self.rotation().check_exclusive(lineage, original).await?;
        self.rotation().announce(lineage, refresh_token).await
    }

    /// Asks for the token of the ServiceAccount, where the request sends one: last, since it is for this one request.
    pub(super) async fn add_service_account_token(
        &self,
        description: &RequestDescription,
        material: &mut Material,
    ) -> Result<(), Outcome> {
        let Some(wanted) = &self.spec.description.service_account else { return Ok(()) };
        let _permit = self.api_permit().await;
        let Context { service_account_tokens, kubernetes, .. } = self.context;
        let namespace = &self.identity.key.namespace;
        let url = &description.token_url;
        let issued = service_account_tokens.issue(kubernetes, namespace, wanted, url).await?;
        add_token(description, &mut material.credentials, &issued.token);
        material.subject = Some((issued.expires_at, issued.account));
        Ok(())
    }

    /// A rejection that is not remembered as that of the client: the issuer may have asked an API server that did not know
    /// the ServiceAccount yet, or any more.
    pub(super) async fn uncounted(&self, error: &Error, material: &Material) -> Option<Outcome> {
        let (_, account) = material.subject.as_ref().filter(|_| error.class() == Class::Rejected)?;
        let _permit = self.api_permit().await;
        let Context { service_account_tokens, kubernetes, .. } = self.context;
        let doubt = service_account_tokens.doubt(kubernetes, account).await?;
        Some(Outcome::uncounted(error, &doubt))
    }
}
