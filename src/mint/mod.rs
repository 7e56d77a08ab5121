//! `mint`: what the operator does for one TokenSource, once and in the open, for whoever wants to know why an issuer
//! gives no token, or which. It writes to no cluster.

mod cluster;
mod keep;
mod manifests;
mod outline;
mod report;

use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use secrecy::ExposeSecret as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::{Reason, TokenSource, TokenSourceStatus};
use crate::cli::{MintArgs, OutputFormat};
use crate::controller::ASSUMED_LIFETIME;
use crate::controller::resolved::Resolved;
use crate::controller::status::{Situation, status};
use crate::controller::tls::Named;
use crate::oauth::{self, Answer, Credentials, Discovery, Lifetime, LifetimeSource, Tls};
use crate::operator;
use crate::providers::{CredentialsError, read_credentials};
use crate::refresh::{Failed, attempt_timeout, plus, wait};
use crate::target::{Inputs, Minted, Owner, Record, TargetSecret, Version};
use keep::Keeper;
use manifests::Manifests;
use outline::{Member, Shown};
use report::{Answered, Report, Schedule, Target, Told};

/// What stands below the flags in the help of `mint`.
pub const HELP: &str = "Exit codes:
  0  a token was minted
  1  nothing was asked: wrong flags, files or cluster; the TokenSource is invalid; the egress policy refuses the endpoint
  2  nothing was asked: the credentials are missing or cannot be used
  3  the endpoint refused, or answered with something that holds no usable token
  4  the endpoint cannot be reached, failed by itself, or asks to come back later
  5  a refresh token came back and could not be saved: it is printed, because it may be the only valid one

Values from the Secret and the token are shown as their length, unless --show-secrets is given. The egress policy is the
operator's: give mint the flags that the operator has.";

/// How long the endpoint may take. The operator gives it less where it is in a hurry, but a person can wait, and a refresh
/// token is easily lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// How `mint` ended. The numbers are a promise: see [`HELP`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A token was minted.
    Minted,
    /// Nothing was asked: the configuration.
    Configuration,
    /// Nothing was asked: the credentials.
    Credentials,
    /// The endpoint refused.
    Refused,
    /// The endpoint could not be reached, or not now.
    Unavailable,
    /// A refresh token could not be saved.
    NotSaved,
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Minted => 0,
            Exit::Configuration => 1,
            Exit::Credentials => 2,
            Exit::Refused => 3,
            Exit::Unavailable => 4,
            Exit::NotSaved => 5,
        }
    }

    fn of(reason: Reason) -> Self {
        match reason {
            Reason::CredentialsNotFound | Reason::CredentialsInvalid => Exit::Credentials,
            Reason::ClientRejected
            | Reason::GrantRejected
            | Reason::ScopeRejected
            | Reason::RequestRejected
            | Reason::ResponseMalformed => Exit::Refused,
            Reason::EndpointUnavailable | Reason::RateLimited => Exit::Unavailable,
            _ => Exit::Configuration,
        }
    }
}

/// Why there is no token.
#[derive(Debug)]
struct Fault {
    exit: Exit,
    reason: Option<Reason>,
    message: String,
    /// When the operator would try again.
    then: Option<String>,
}

impl Fault {
    fn usage(message: String) -> Self {
        Fault { exit: Exit::Configuration, reason: None, message, then: None }
    }

    fn credentials(message: String) -> Self {
        Fault { exit: Exit::Credentials, reason: None, message, then: None }
    }

    fn told(reason: Reason, message: String) -> Self {
        Fault { exit: Exit::of(reason), reason: Some(reason), message, then: None }
    }

    /// With what the operator would do next, on a first failure and with no token to fall back on.
    fn endpoint(error: &oauth::Error, propagation_delay: u64) -> Self {
        let failed = Failed {
            class: error.class(),
            count: 1,
            retry_after: error.retry_after(),
            expires_at: None,
            propagation_delay,
            uid: "",
        };
        let then = match wait(Timestamp::now(), &failed) {
            Some(seconds) => {
                format!("the operator would try again after {seconds} s or so, and later if it fails again")
            }
            None => "the operator would not try again before something changes".to_owned(),
        };
        Fault { then: Some(then), ..Fault::told(error.reason(), error.to_string()) }
    }
}

impl From<CredentialsError> for Fault {
    fn from(error: CredentialsError) -> Self {
        Fault::told(error.reason(), error.to_string())
    }
}

/// A TokenSource, and its credentials where they were found. No `Debug`: a Secret's would print them.
struct Given {
    namespace: Option<String>,
    source: TokenSource,
    credentials: Option<Secret>,
    /// What `spec.tls` names.
    named: Named,
}

/// Mints once, as `arguments` say.
pub async fn run(arguments: MintArgs) -> Exit {
    crate::oauth::transport::install_crypto_provider();
    let output = arguments.output;
    let mut report = Report::default();
    let fault = mint(arguments, &mut report).await.err();
    report.error = fault.as_ref().map(|fault| report::Failed {
        reason: fault.reason.map(Reason::as_str),
        message: fault.message.clone(),
        exit_code: fault.exit.code(),
        then: fault.then.clone(),
    });
    match output {
        OutputFormat::Text => print(&report.after()),
        OutputFormat::Json => {
            let json = serde_json::to_string_pretty(&report).unwrap_or_default();
            print(&format!("{json}\n"));
        }
    }
    let Some(fault) = fault else { return Exit::Minted };
    let reason = fault.reason.map(|reason| format!("{reason}: ")).unwrap_or_default();
    let then = fault.then.map(|then| format!("\n{then}")).unwrap_or_default();
    complain(&format!("tokensource-operator: {reason}{}{then}\n", fault.message));
    fault.exit
}

/// Whoever closed the stream does not read it, and what is at stake here is not lost by that.
fn print(text: &str) {
    let mut stdout = std::io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

async fn mint(arguments: MintArgs, report: &mut Report) -> Result<(), Fault> {
    let show = arguments.show_secrets;
    let propagation_delay = arguments.endpoints.default_propagation_delay;
    let saves = arguments.save_refresh_token.is_some();
    let (given, api_server) = given(&arguments, propagation_delay).await?;
    let Given { namespace, source, credentials: secret, named } = given;
    let name = source.metadata.name.clone().unwrap_or_default();
    report.source = namespace.map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"));

    let resolved = Resolved::of(&source, propagation_delay)
        .map_err(|error| Fault::told(error.reason(), error.to_string()))?;
    report.provider = Some(resolved.description.provider);
    if resolved.sends_refresh_token() && !saves {
        return Err(Fault::usage(
            "this grant spends a refresh token, and the answer may hold the only valid one from then on: say with --save-refresh-token FILE where to save it".to_owned(),
        ));
    }
    let spec = &source.spec.credentials;
    let description = &resolved.description.request;
    let secret = secret.ok_or_else(|| CredentialsError::secret_not_found(spec, &resolved.description))?;
    let read = read_credentials(
        spec,
        &resolved.description,
        secret.type_.as_deref(),
        &secret.data.unwrap_or_default(),
    )?;
    report.remarks = read.remarks;
    report.remarks.extend(operator::unused_proxies(&arguments.endpoints));
    let credentials = read.credentials;

    let transport = operator::transport(arguments.endpoints, api_server)
        .map_err(|error| Fault::usage(error.to_string()))?;
    let failed = |error: oauth::Error| Fault::endpoint(&error, propagation_delay);
    let tls = match &source.spec.tls {
        Some(spec) => named.tls(spec).map_err(|message| Fault::told(Reason::SpecInvalid, message))?,
        None => Tls::default(),
    };
    let located =
        Discovery::new(transport.clone()).locate(description, &tls, PATIENCE).await.map_err(failed)?;
    let request = located
        .attempt(&credentials, &transport.attempt(&located.token_url))
        .map_err(|error| failed(error.into()))?;
    report.issuer = located.issuer.as_ref().map(|issuer| issuer.as_str().to_owned());
    report.request = Some(outline::asked(&request, &located, spec.client_id.as_deref(), show));
    if arguments.output == OutputFormat::Text {
        print(&report.before());
    }

    let mut keeper = match arguments.save_refresh_token.filter(|_| request.spends_credential()) {
        Some(path) => Some(keeper(&path)?),
        None => None,
    };
    // From here on until the answer is safe nobody's Ctrl-C ends this.
    let _held = if keeper.is_some() { hold_signals()? } else { vec![] };
    let (sent_at, begun) = (Timestamp::now(), Instant::now());
    let outcome = Box::pin(transport.send_over(&request, &tls, PATIENCE)).await;
    let took = begun.elapsed();

    let refresh_token = match &outcome {
        Ok(answer) => answer.refresh_token.as_ref(),
        Err(error) => error.refresh_token(),
    };
    if let (Some(keeper), Some(token)) = (&mut keeper, refresh_token) {
        if let Err(error) = keeper.keep(token) {
            return Err(Fault {
                exit: Exit::NotSaved,
                reason: None,
                message: format!(
                    "the new refresh token could not be saved in {}: {error}. It may be the only valid one. Here it is:\n{}",
                    keeper.path().display(),
                    token.expose_secret()
                ),
                then: None,
            });
        }
        report.saved_refresh_token = Some(keeper.path().display().to_string());
    } else if keeper.is_some() {
        report.remarks.push(match &outcome {
            Err(error) if error.outcome_unknown() => {
                "whether the refresh token was spent is not known: try it once more, soon".to_owned()
            }
            _ => "no refresh token came back, so that nothing was saved".to_owned(),
        });
    }
    if let Some(offset) = transport.clock_offset(&located.token_url) {
        report.remarks.push(format!("the endpoint's clock is {} s ahead of this one", offset.as_secs()));
    }
    let answer = outcome.map_err(failed)?;
    let limit = attempt_timeout(0);
    if took > Duration::from_secs(limit) {
        report
            .remarks
            .push(format!("the operator would not have waited that long for a first token, but {limit} s"));
    }
    tell(report, &source, &resolved, &credentials, &answer, Sent { at: sent_at, took, show });
    Ok(())
}

/// From the files, or from the cluster; with the API server's own addresses.
async fn given(arguments: &MintArgs, propagation_delay: u64) -> Result<(Given, Vec<IpAddr>), Fault> {
    let MintArgs { files, namespace, name, .. } = arguments;
    let Some(name) = name.as_deref().filter(|_| files.is_empty()) else {
        let mut manifests = Manifests::default();
        for file in files {
            let text =
                read_file(file).map_err(|error| Fault::usage(format!("{}: {error}", file.display())))?;
            manifests.add(&file.display().to_string(), &text).map_err(Fault::usage)?;
        }
        let given = manifests.choose(namespace.as_deref(), name.as_deref()).map_err(Fault::usage)?;
        return Ok((given, vec![]));
    };
    let spends = |source: &TokenSource| {
        Resolved::of(source, propagation_delay).is_ok_and(|resolved| resolved.sends_refresh_token())
    };
    cluster::read(namespace.clone(), name, spends).await
}

fn read_file(path: &Path) -> std::io::Result<String> {
    if path != Path::new("-") {
        return std::fs::read_to_string(path);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map(|_| text)
}

fn keeper(path: &Path) -> Result<Keeper, Fault> {
    Keeper::create(path).map_err(|error| {
        Fault::usage(format!(
            "--save-refresh-token {}: {error}; nothing was asked, and the refresh token is not spent",
            path.display()
        ))
    })
}

fn hold_signals() -> Result<Vec<Signal>, Fault> {
    [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .into_iter()
        .map(|kind| {
            signal(kind).map_err(|error| Fault::usage(format!("signals cannot be held back: {error}")))
        })
        .collect()
}

/// A request that was answered.
#[derive(Clone, Copy)]
struct Sent {
    at: Timestamp,
    took: Duration,
    show: bool,
}

/// Writes down what a usable answer means.
fn tell(
    report: &mut Report,
    source: &TokenSource,
    resolved: &Resolved,
    credentials: &Credentials,
    answer: &Answer,
    sent: Sent,
) {
    let at = Timestamp::from_second(sent.at.as_second()).unwrap_or(sent.at);
    let lifetime = answer.lifetime(at, resolved.default_lifetime);
    let seconds = lifetime.seconds.unwrap_or(ASSUMED_LIFETIME);
    let text = |text: &str| match credentials.are_told_in(text) {
        true => Shown::secret(text, sent.show),
        false => Shown::Plain(text.to_owned()),
    };
    let token = answer.access_token.expose_secret();
    report.answer = Some(Answered {
        milliseconds: u64::try_from(sent.took.as_millis()).unwrap_or(u64::MAX),
        access_token: Shown::secret(token, sent.show),
        form: if token.starts_with("eyJ") && token.split('.').count() == 3 { "JWT" } else { "opaque" },
        token_id: answer.token_id(),
        token_type: text(&answer.token_type),
        scope: answer.scope.as_deref().map(text),
        refresh_token: answer
            .refresh_token
            .as_ref()
            .map(|token| Shown::secret(token.expose_secret(), sent.show)),
        values: answer
            .values
            .iter()
            .map(|(name, value)| Member::new(name, Shown::secret(value.expose_secret(), sent.show)))
            .collect(),
        lifetime_seconds: seconds,
        lifetime_source: match lifetime.source {
            LifetimeSource::Answer => "answer",
            LifetimeSource::Token => "token",
            LifetimeSource::Default => "default",
            LifetimeSource::Unknown => "assumed",
        },
        lifetime_because: because(answer, lifetime),
    });
    if answer.token_type_missing {
        report.remarks.push("the answer has no token_type, so Bearer is assumed".to_owned());
    }
    let held = source.status.as_ref().and_then(|status| status.token.as_ref());
    if held.is_some_and(|held| held.id == answer.token_id()) {
        report
            .remarks
            .push("this is the token that the target holds already: the issuer caches tokens".to_owned());
    }
    schedule(report, source, resolved, answer, (at, seconds, sent.show));
}

/// Why a token is taken to live that long.
fn because(answer: &Answer, lifetime: Lifetime) -> String {
    let said = answer.expires_in.filter(|seconds| *seconds > 0);
    match (lifetime.source, said) {
        (LifetimeSource::Answer, Some(said)) if Some(said) == lifetime.seconds => {
            "the answer says so (expires_in)".to_owned()
        }
        (LifetimeSource::Answer, _) => "the answer says so, as a time".to_owned(),
        (LifetimeSource::Token, Some(said)) => {
            format!("the token, a JWT, says so (exp), which is less than the {said} s of the answer")
        }
        (LifetimeSource::Token, None) => "the token, a JWT, says so (exp)".to_owned(),
        (LifetimeSource::Default, _) => {
            "neither the answer nor the token says; spec.refresh.defaultLifetime does".to_owned()
        }
        (LifetimeSource::Unknown, _) => {
            "neither the answer nor the token says, so that this is assumed: set spec.refresh.defaultLifetime"
                .to_owned()
        }
    }
}

/// What the operator would write of it, made with its own code.
fn schedule(
    report: &mut Report,
    source: &TokenSource,
    resolved: &Resolved,
    answer: &Answer,
    (at, seconds, show): (Timestamp, u64, bool),
) {
    let owner = Owner {
        name: source.metadata.name.clone().unwrap_or_default(),
        uid: source.metadata.uid.clone().unwrap_or_default(),
    };
    let minted = Minted {
        issued_at: at,
        expires_at: plus(at, seconds),
        token_id: answer.token_id(),
        token_type: answer.token_type.clone(),
        scope: None,
        remarks: vec![],
    };
    let nobody = Version { uid: String::new(), resource_version: String::new() };
    let inputs = Inputs { provider: resolved.wanted.provider.clone(), credentials: nobody };
    let record = Record::new(owner, inputs, None, minted, None);
    let refresh_at = resolved.policy.refresh_at(&record.owner.uid, at, seconds);
    let situation = Situation {
        now: at,
        generation: source.metadata.generation.unwrap_or_default(),
        provider: Some(resolved.description.provider),
        target: source.target_name(),
        token: Some((&record, refresh_at)),
        fits_spec: true,
        suspended: source.spec.suspend == Some(true),
        problem: None,
        last_failure: None,
        policy: resolved.policy,
        prompt: resolved.prompt,
        told: None,
        before: &TokenSourceStatus::default(),
    };
    let told = |condition: k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| Told {
        kind: condition.type_,
        status: condition.status,
        reason: condition.reason,
        message: condition.message,
    };
    report.schedule = Some(Schedule {
        issued_at: at,
        expires_at: record.expires_at,
        refresh_after_seconds: resolved.policy.refresh_after(seconds),
        refresh_at,
        conditions: status(&situation).conditions.into_iter().map(told).collect(),
    });
    let applied = TargetSecret {
        name: source.target_name(),
        record: &record,
        access_token: &answer.access_token,
        owner_reference: resolved.wanted.owner_reference,
    }
    .apply(None);
    report.target = Some(Target {
        name: source.target_name().to_owned(),
        kind: applied.get("type").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned(),
        data: outline::target(&applied, show),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_an_exit_code_that_the_help_explains() {
        for reason in Reason::ALL {
            let code = Exit::of(reason).code();
            assert!((1..=4).contains(&code), "{reason}");
            assert!(HELP.contains(&format!("\n  {code}  ")));
        }
        for (reason, code) in [
            (Reason::SpecInvalid, 1),
            (Reason::EndpointRefusedByPolicy, 1),
            (Reason::CredentialsInvalid, 2),
            (Reason::ClientRejected, 3),
            (Reason::ResponseMalformed, 3),
            (Reason::EndpointUnavailable, 4),
            (Reason::RateLimited, 4),
        ] {
            assert_eq!(Exit::of(reason).code(), code, "{reason}");
        }
    }
}
