//! `mint`: what the operator does for one TokenSource, once and in the open, for whoever wants to know why an issuer
//! gives no token, or which. It writes to no cluster.

mod answered;
mod arguments;
mod cluster;
mod fault;
mod keep;
mod manifests;
mod outline;
mod report;

use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use secrecy::ExposeSecret as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub use arguments::MintArgs;
pub use fault::{Exit, HELP};

use crate::commands::output::{self, OutputFormat};
use crate::providers::{CredentialsError, read_credentials};
use crate::refresh::attempt_timeout;
use crate::secret::Template;
use crate::spec::Resolved;
use crate::token_request;
use crate::token_request::tls::Named;
use answered::{Sent, target, tell};
use fault::Fault;
use keep::Keeper;
use manifests::Manifests;
use report::Report;
use token_endpoint::{self as oauth, Discovery, Tls};
use tokensource_api::{Reason, TokenSource};

/// How long the endpoint may take. The operator gives it less where it is in a hurry, but a person can wait, and a refresh
/// token is easily lost.
const PATIENCE: Duration = Duration::from_secs(30);

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
    token_endpoint::transport::install_crypto_provider();
    let format = arguments.output;
    let mut report = Report::default();
    let fault = mint(arguments, &mut report).await.err();
    report.error = fault.as_ref().map(|fault| report::Failed {
        reason: fault.reason.map(Reason::as_str),
        message: fault.message.clone(),
        exit_code: fault.exit.code(),
        then: fault.then.clone(),
    });
    output::report(format, &report, Report::after);
    let Some(fault) = fault else { return Exit::Minted };
    let reason = fault.reason.map(|reason| format!("{reason}: ")).unwrap_or_default();
    let then = fault.then.map(|then| format!("\n{then}")).unwrap_or_default();
    output::complain(&format!("{reason}{}{then}", fault.message));
    fault.exit
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
    let values: Vec<&str> = description.response.values.keys().map(String::as_str).collect();
    let template = source.spec.target.as_ref().and_then(|target| target.template.as_ref());
    let template = Template::of(template, &values)?;
    let secret = secret.ok_or_else(|| CredentialsError::secret_not_found(spec, &resolved.description))?;
    let read = read_credentials(
        spec,
        &resolved.description,
        secret.type_.as_deref(),
        &secret.data.unwrap_or_default(),
    )?;
    report.remarks = read.remarks;
    report.remarks.extend(token_request::unused_proxies(&arguments.endpoints));
    let credentials = read.credentials;

    let transport = token_request::transport(&arguments.endpoints, api_server)
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
        output::print(&report.before());
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
    let record = tell(report, &source, &resolved, &credentials, &answer, Sent { at: sent_at, took, show });
    let target = target(&source, &resolved, &template, (&record, &answer), show);
    // Something was asked, and answered.
    report.target = Some(target.map_err(|error| Fault { exit: Exit::Refused, ..error.into() })?);
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
