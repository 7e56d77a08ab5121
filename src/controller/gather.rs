//! The reader: what a token request needs, from the credentials Secret and from the one with a rotated refresh
//! token.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::ByteString;
use secrecy::{ExposeSecret, SecretString};

use super::cache::secrets::Known;
use super::reconcile::Pass;
use super::stop::Stop;
use crate::key::Key;
use crate::providers::{CredentialsError, Resolved, needs_only_the_refresh_token, read_credentials};
use crate::secret::{CREDENTIALS_LABEL, Facts, Version};
use crate::token_request::tls::Named;
use kube::ResourceExt;
use token_endpoint::{Credentials, Digest, Tls};
use tokensource_api::Reason;

/// What a token is minted with.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) credentials: Credentials,
    /// The state of the credentials Secret that they are of.
    pub(super) version: Version,
    pub(super) remarks: Vec<String>,
    pub(super) seed: Option<Seed>,
    /// A digest of the user's values, where they were read. A kept refresh token is none of them.
    pub(super) values: Option<Digest>,
}

/// Where a refresh token comes from.
#[derive(Debug, Clone)]
pub(super) struct Seed {
    /// SHA-256, in hex, of the user's token that it descends from.
    pub(super) sha256: String,
    /// The Secret with the rotated one, as it was seen.
    pub(super) kept: Option<Version>,
}

/// A rotated refresh token that the operator keeps.
struct Kept {
    refresh_token: SecretString,
    seed_sha256: String,
    version: Version,
}

impl Pass<'_> {
    /// Reads what a token request needs.
    pub(super) async fn gather(&mut self) -> Result<Gathered, Stop> {
        let kept = if self.resolved.sends_refresh_token() { self.kept().await? } else { None };
        if let Some(kept) = self.kept_is_enough(kept.as_ref()) {
            return Ok(kept);
        }
        let (version, read) = self.read_credentials().await?;
        let values = self.context.gate.digest(&read.credentials);
        self.memory.seen_credentials = Some((version.clone(), Some(values)));
        let Resolved { mut credentials, remarks } = read;
        let seed = match self.remember_seed(&version, &credentials) {
            Some(seed_sha256) => {
                let descends = kept.as_ref().is_some_and(|kept| kept.seed_sha256 == seed_sha256);
                let kept_version = kept.as_ref().map(|kept| kept.version.clone());
                match kept {
                    // A person's token wins only if it is another one than what ours descends from: a label on
                    // their Secret must not bring a spent token back.
                    Some(kept) if descends => credentials.refresh_token = Some(kept.refresh_token),
                    _ => self.check_seed(&seed_sha256).await?,
                }
                Some(Seed { sha256: seed_sha256, kept: kept_version })
            }
            None => None,
        };
        Ok(Gathered { credentials, version, remarks, seed, values: Some(values) })
    }

    /// Reads the credentials Secret, and remembers which state of it was read.
    pub(super) async fn read_credentials(&mut self) -> Result<(Version, Resolved), Stop> {
        let key = &self.identity.credentials;
        let secret = self.context.kubernetes.secret(key).await?;
        let facts = secret.as_ref().and_then(|secret| Facts::of(&secret.metadata));
        let usable = facts.as_ref().filter(|facts| self.context.may_use(facts));
        let version = usable.map(|facts| facts.version.clone());
        self.context.secrets.observe(key, facts);
        let (Some(secret), Some(version)) = (secret, version) else { return Err(Stop::Again) };
        let spec = &self.source.spec.credentials;
        let data = secret.data.unwrap_or_default();
        let read = read_credentials(spec, &self.resolved.description, secret.type_.as_deref(), &data)
            .map_err(|error: CredentialsError| Stop::configuration(error.reason(), error.to_string()))?;
        Ok((version, read))
    }

    /// The credentials Secret moved: did its values?
    pub(super) async fn compare(&mut self) -> Result<(), Stop> {
        let (version, digest) = match self.read_credentials().await {
            Ok((version, read)) => (version, Some(self.context.gate.digest(&read.credentials))),
            // What is wrong with them is for the mint to say.
            Err(Stop::Failed(_)) => match self.context.secrets.known(&self.identity.credentials) {
                Known::Present(facts) => (facts.version.clone(), None),
                _ => return Ok(()),
            },
            Err(stop) => return Err(stop),
        };
        let before = self.memory.seen_credentials.replace((version.clone(), digest));
        if let Some(failed) = &mut self.memory.failed {
            failed.values_changed |= before.as_ref().is_some_and(|(_, before)| *before != digest);
        }
        let Some(digest) = digest else { return Ok(()) };
        // What failed with these values is no reason to try them again.
        if let Some((before, _)) = before.filter(|(_, before)| *before == Some(digest))
            && let Some(failed) = &mut self.memory.failed
            && failed.failure.tried.credentials == self.resolved.tried(Some(&before)).credentials
        {
            failed.failure.tried.credentials = self.resolved.tried(Some(&version)).credentials;
        }
        // What was minted with these values is as good as before.
        if let Some(pending) = self.memory.pending.as_mut().filter(|it| it.values == Some(digest))
            && let Some(token) = &mut pending.token
        {
            token.record.inputs.credentials = version;
        }
        Ok(())
    }

    /// The rotated refresh token that the operator keeps for this TokenSource, if it does.
    async fn kept(&mut self) -> Result<Option<Kept>, Stop> {
        let key = &self.identity.refresh_token;
        // Somebody else's Secret under this name has stopped the decision to mint.
        let Known::Present(_) = self.known(key).await? else { return Ok(None) };
        let Some(secret) = self.context.kubernetes.secret(key).await? else {
            self.context.secrets.observe(key, None);
            return Ok(None);
        };
        let Some(facts) = Facts::of(&secret.metadata) else { return Ok(None) };
        let version = facts.version.clone();
        let is_ours = self.keeps_refresh_token(&facts);
        self.context.secrets.observe(key, Some(facts));
        if !is_ours {
            return Err(Stop::Again);
        }
        let mut data = secret.data.unwrap_or_default();
        let mut text = |name| data.remove(name).and_then(|ByteString(bytes)| String::from_utf8(bytes).ok());
        Ok(text("refresh_token").zip(text("seed_sha256")).map(|(refresh_token, seed_sha256)| Kept {
            refresh_token: refresh_token.into(),
            seed_sha256,
            version,
        }))
    }

    /// Whether a Secret is the one in which the operator keeps this TokenSource's refresh token.
    pub(super) fn keeps_refresh_token(&self, secret: &Facts) -> bool {
        secret.refresh_token_of.as_deref() == Some(&self.identity.key.name)
    }

    /// While the credentials Secret is as it was when this process read it, the kept token descends from the one in
    /// it, and nothing else of it is needed, the kept one does without another read.
    fn kept_is_enough(&self, kept: Option<&Kept>) -> Option<Gathered> {
        let kept = kept?;
        let Known::Present(credentials) = self.context.secrets.known(&self.identity.credentials) else {
            return None;
        };
        let (read, seed_sha256) = self.memory.seed.as_deref()?;
        let spec = &self.source.spec.credentials;
        if *read != credentials.version
            || *seed_sha256 != kept.seed_sha256
            || !needs_only_the_refresh_token(spec, &self.resolved.description)
        {
            return None;
        }
        Some(Gathered {
            credentials: Credentials {
                client_id: spec.client_id.clone(),
                refresh_token: Some(kept.refresh_token.clone()),
                ..Credentials::default()
            },
            version: read.clone(),
            remarks: vec![],
            seed: Some(Seed { sha256: kept.seed_sha256.clone(), kept: Some(kept.version.clone()) }),
            values: None,
        })
    }

    /// The digest of the user's refresh token, where there is one.
    fn remember_seed(&mut self, version: &Version, read: &Credentials) -> Option<String> {
        let seed_sha256 = read.refresh_token.as_ref().map(sha256);
        self.memory.seed = seed_sha256.clone().map(|seed_sha256| Box::new((version.clone(), seed_sha256)));
        seed_sha256
    }

    /// A user's refresh token is about to be sent: not if another TokenSource of the namespace rotates it, because
    /// issuers end the whole grant when a spent token comes back.
    async fn check_seed(&mut self, seed_sha256: &str) -> Result<(), Stop> {
        if self.memory.seed_is_ours.as_deref() == Some(seed_sha256) {
            return Ok(());
        }
        if self.seed_turn.is_none() {
            // Whoever has it may be waiting for the endpoint.
            self.turn = None;
            self.seed_turn = Some(self.context.seeds.turn(seed_sha256).await);
            self.go_on().await;
        }
        let other = self.context.kubernetes.other_with_seed(&self.identity.key, seed_sha256).await?;
        if let Some(source) = other {
            return Err(Stop::configuration(
                Reason::GrantRejected,
                format!(
                    "TokenSource {source} uses the same refresh token, which changes with every use: create a refresh token for each of them, or mount the target of {source} (if {source} is gone for good, delete Secret {source}-refresh-token)"
                ),
            ));
        }
        self.memory.seed_is_ours = Some(seed_sha256.to_owned());
        Ok(())
    }
}

impl Pass<'_> {
    /// Reads what `spec.tls` names.
    pub(super) async fn tls(&self) -> Result<Tls, Stop> {
        let Some(spec) = &self.source.spec.tls else { return Ok(Tls::default()) };
        let named = Named::fetch(spec, &self.context.kubernetes, &self.identity.key.namespace).await?;
        self.check_lent(&named)?;
        // Nobody watches what is wrong here, and it may be put right without a word: it is looked at again and again.
        named.tls(spec).map_err(|message| Stop::target(Reason::SpecInvalid, message))
    }

    /// Whether their owners have released the Secrets for use.
    fn check_lent(&self, named: &Named) -> Result<(), Stop> {
        let secrets = [&named.bundle_secret, &named.client_certificate];
        for secret in secrets.into_iter().flatten() {
            let facts = Facts::of(&secret.metadata);
            if !facts.is_some_and(|facts| self.context.may_use(&facts)) {
                let key = Key::new(&self.identity.key.namespace, &secret.name_any());
                return Err(Stop::target(Reason::CredentialsInvalid, not_lent(&key)));
            }
        }
        Ok(())
    }
}

/// What to do about a Secret that its owner has not released for use as credentials.
pub(super) fn not_lent(secret: &Key) -> String {
    let Key { namespace, name } = secret;
    let (label, value) = CREDENTIALS_LABEL;
    format!(
        "Secret {name} is not labelled {label}={value}, and this operator uses no other Secrets (--require-credentials-label): kubectl label secret {name} -n {namespace} {label}={value}"
    )
}

/// SHA-256 in hex.
pub(super) fn sha256(secret: &SecretString) -> String {
    let digest = digest(&SHA256, secret.expose_secret().as_bytes());
    digest.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
