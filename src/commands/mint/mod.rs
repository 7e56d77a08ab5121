//! `mint`: requests one token for a TokenSource as the operator would, and reports request and response, to find out why
//! an issuer gives no token. It writes to no cluster.

mod arguments;
mod cluster;
mod fault;
mod held_signals;
mod input;
mod issuer;
mod manifests;
mod redacted;
mod report;
mod requirements;
mod response;
mod service_account;
mod token_file;

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use secrecy::{ExposeSecret as _, SecretString};

pub use arguments::MintArgs;
pub use fault::{Exit, HELP};

use crate::cluster::UserCluster;
use crate::commands::output::{self, OutputFormat};
use crate::commands::{installation, operator};
use crate::providers::{CredentialsError, ReadCredentials, read_credentials};
use crate::refresh::attempt_timeout;
use crate::secret::Template;
use crate::spec::Resolved;
use crate::text::{shown, shown_message};
use crate::time::in_whole_seconds;
use crate::token_request::{self, AllowedToken, EndpointArgs, Sent, send};
use cluster::Internal;
use fault::Fault;
use held_signals::HeldSignals;
use input::Input;
use issuer::Lender;
use manifests::{ManifestError, Manifests};
use report::MintReport;
use requirements::Requirements;
use response::{Exchange, report_response, target_preview};
use token_endpoint::{self as oauth, Class, Discovery, Tls};
use token_file::TokenFile;
use tokensource_api::{Reason, TokenSource};

/// The timeout of the token request. The operator's is shorter where a token expires soon; here a user can wait, and a
/// timeout could lose a refresh token.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests one token.
pub async fn run(arguments: MintArgs) -> Exit {
    token_endpoint::transport::install_crypto_provider();
    let format = arguments.output;
    let mut report = MintReport::default();
    let fault = mint(arguments, &mut report).await.err();
    report.error = fault.as_ref().map(|fault| report::ErrorReport {
        reason: fault.reason.map(Reason::as_str),
        message: fault.message.clone(),
        exit_code: fault.exit.code(),
        then: fault.then.clone(),
    });
    output::report(format, &report, MintReport::after);
    let Some(fault) = fault else { return Exit::Minted };
    let reason = fault.reason.map(|reason| format!("{reason}: ")).unwrap_or_default();
    let then = fault.then.map(|then| format!("\n{then}")).unwrap_or_default();
    output::print_error(&format!("{reason}{}{then}", fault.message));
    fault.exit
}

async fn mint(arguments: MintArgs, report: &mut MintReport) -> Result<(), Fault> {
    let show = arguments.show_secrets;
    let (endpoints, operator) = endpoint_flags(&arguments, report).await;
    let propagation_delay = endpoints.default_propagation_delay;
    let saves = arguments.save_refresh_token.is_some();
    let (input, internal) = read_input(&arguments, operator.as_ref(), propagation_delay).await?;
    let Input { namespace, source, issuer, credentials: secret, named, cluster } = input;
    let issuer = issuer.map(Arc::new);
    let name = source.metadata.name.clone().unwrap_or_default();
    report.source =
        namespace.as_ref().map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"));
    let namespace = namespace.unwrap_or_default();

    if let Some(reference) = source.spec.issuer_ref.as_ref().filter(|_| issuer.is_none()) {
        return Err(Fault::usage(format!(
            "it asks ClusterTokenIssuer {}, which is read from the cluster alone: write the TokenSource's name instead of -f, or the issuer's provider and credentials into the file",
            shown(&reference.name)
        )));
    }
    let mut resolved = Resolved::of(&source, propagation_delay)
        .map_err(|error| Fault::told(error.reason(), error.to_string()))?;
    issuer.iter().for_each(|issuer| resolved.set_issuer(Arc::clone(issuer)));
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
    let account = resolved.description.service_account.as_ref();
    let read = match account {
        Some(account) => ReadCredentials {
            credentials: account.credentials(spec, &namespace),
            remarks: vec![],
            doubts: vec![],
        },
        None => {
            let missing = || CredentialsError::secret_not_found(spec, &resolved.description);
            let secret = secret.ok_or_else(missing)?;
            let data = secret.data.unwrap_or_default();
            read_credentials(spec, &resolved.description, secret.type_.as_deref(), &data)?
        }
    };
    report.remarks.extend(read.remarks);
    report.remarks.extend(token_request::unused_proxies(&endpoints));
    let mut credentials = read.credentials;

    let transport = token_request::transport(&endpoints, internal.api_server)
        .map_err(|error| Fault::usage(error.to_string()))?;
    let transport = match &issuer {
        Some(issuer) => transport.for_trusted(issuer.is_private()),
        None => transport,
    };
    transport.egress().set_internal(internal.networks);
    let failed = |error: oauth::Error| Fault::endpoint(&error, propagation_delay);
    let tls = match &source.spec.tls {
        Some(spec) => named
            .tls(spec, &transport)
            .map_err(|error| Fault::told(Reason::SpecInvalid, error.to_string()))?,
        None => Tls::default(),
    };
    let located =
        Discovery::new(transport.clone()).locate(description, &tls, REQUEST_TIMEOUT).await.map_err(failed)?;
    issuer::check_endpoint(issuer.as_deref(), &located)?;
    let allowed = operator.as_ref().map(allowed_tokens);
    let to_send = (&located, &mut credentials);
    service_account::add(account, cluster.as_ref(), &namespace, allowed, to_send, report).await?;
    let request = located
        .attempt(&credentials, &transport.attempt(&located.token_url))
        .map_err(|error| failed(error.into()))?;
    report.issuer = located.issuer.as_ref().map(|issuer| issuer.as_str().to_owned());
    // The token of a ServiceAccount is never shown.
    let shows_request = show && account.is_none();
    report.request =
        Some(redacted::request_view(&request, &located, spec.client_id.as_deref(), shows_request));
    if arguments.output == OutputFormat::Text {
        output::print(&report.before());
    }

    let mut token_file = match arguments.save_refresh_token.filter(|_| request.spends_credential()) {
        Some(path) => Some(create_token_file(&path)?),
        None => None,
    };
    // Until the new refresh token is saved, Ctrl-C must not end the process: it may be the only valid one.
    let _held = match token_file.is_some() {
        true => Some(
            HeldSignals::new()
                .map_err(|error| Fault::usage(format!("signals cannot be held back: {error}")))?,
        ),
        false => None,
    };
    let now = in_whole_seconds(Timestamp::now());
    let mut saved = None;
    // Before the rest of the response is read.
    let keep = |token: &SecretString| {
        saved = token_file.as_mut().map(|file| file.save(token).map_err(|error| (error, token.clone())));
    };
    let Sent { outcome, at: sent_at, took } =
        Box::pin(send(&transport, &request, &tls, REQUEST_TIMEOUT, now, keep)).await;

    if let (Some(file), Some(saved)) = (&token_file, saved) {
        if let Err((error, token)) = saved {
            return Err(Fault {
                exit: Exit::NotSaved,
                reason: None,
                message: format!(
                    "the new refresh token could not be saved in {}: {error}. It may be the only valid one. Here it is:\n{}",
                    file.path().display(),
                    token.expose_secret()
                ),
                then: None,
            });
        }
        report.saved_refresh_token = Some(file.path().display().to_string());
    } else if token_file.is_some() {
        report.remarks.push(match &outcome {
            Err(error) if error.outcome_unknown() => {
                "whether the refresh token was spent is not known: try it once more, soon".to_owned()
            }
            _ => "no refresh token came back, so that nothing was saved".to_owned(),
        });
    }
    let differs = transport.clock_offset(&located.token_url).is_some();
    if let Some(offset) = transport.clock_difference(&located.token_url).filter(|_| differs) {
        report.remarks.push(format!("the endpoint's clock is {} s ahead of this one", offset.as_secs()));
    }
    if outcome.as_ref().is_err_and(|error| error.class() == Class::Rejected) {
        report.remarks.extend(read.doubts);
    }
    let answer = outcome.map_err(failed)?;
    let limit = attempt_timeout(0, 0, false);
    if took > Duration::from_secs(limit) {
        report
            .remarks
            .push(format!("the operator would not have waited that long for a first token, but {limit} s"));
    }
    let exchange = Exchange { sent_at, took, show_secrets: show };
    let record = report_response(report, &source, &resolved, &credentials, &answer, exchange);
    issuer::check_granted(issuer.as_deref(), &answer)?;
    let target = target_preview(&source, &resolved, &template, (&record, &answer), show);
    // The endpoint has answered, so the exit code is not that of a configuration error.
    report.target = Some(target.map_err(|error| Fault { exit: Exit::Refused, ..error.into() })?);
    Ok(())
}

/// The flags about token endpoints: for a TokenSource of a cluster those of its operator, where the user gave none. Also its
/// Deployment, where that may be read.
async fn endpoint_flags(arguments: &MintArgs, report: &mut MintReport) -> (EndpointArgs, Option<Deployment>) {
    let given = &arguments.endpoints;
    if !arguments.files.is_empty() {
        return (given.args.clone(), None);
    }
    // Where the cluster cannot be used at all, reading the TokenSource says so.
    let Ok(cluster) = UserCluster::connect(&arguments.cluster.connection()).await else {
        return (given.args.clone(), None);
    };
    match installation::of_namespace(&cluster, &cluster.namespace, &arguments.installation).await {
        Ok(installation) => {
            report.remarks.push(format!(
                "where you give no flags about token endpoints, those of {installation}, hold"
            ));
            (given.over(&installation.deployment), Some(installation.deployment))
        }
        Err(error) => {
            let error = error.to_string();
            report
                .remarks
                .push(format!("{}; or give mint the flags that the operator has", shown_message(&error)));
            (given.args.clone(), None)
        }
    }
}

/// Where an operator sends tokens of ServiceAccounts.
fn allowed_tokens(deployment: &Deployment) -> Vec<AllowedToken> {
    let allowed = operator::flag(deployment, "service-account-tokens-allowed");
    allowed.iter().flat_map(|value| value.split(',')).filter_map(|pair| pair.parse().ok()).collect()
}

/// Reads the input from the files or from the cluster, and what no endpoint of that may have.
async fn read_input(
    arguments: &MintArgs,
    operator: Option<&Deployment>,
    propagation_delay: u64,
) -> Result<(Input, Internal), Fault> {
    let usage = |error: ManifestError| Fault::usage(error.to_string());
    let MintArgs { files, name, cluster, .. } = arguments;
    let Some(name) = name.as_deref().filter(|_| files.is_empty()) else {
        let mut manifests = Manifests::default();
        for file in files {
            let text =
                read_file(file).map_err(|error| Fault::usage(format!("{}: {error}", file.display())))?;
            manifests.add(&file.display().to_string(), &text).map_err(usage)?;
        }
        let input = manifests.choose(cluster.namespace.as_deref(), name.as_deref()).map_err(usage)?;
        return Ok((input, Internal::default()));
    };
    let sends_refresh_token = |source: &TokenSource| {
        Resolved::of(source, propagation_delay).is_ok_and(|resolved| resolved.sends_refresh_token())
    };
    let lender = Lender::of(operator, arguments.installation.operator_namespace.as_deref());
    let requirements = Requirements::of(operator);
    cluster::read(&cluster.connection(), name, (lender, requirements), sends_refresh_token).await
}

fn read_file(path: &Path) -> std::io::Result<String> {
    if path != Path::new("-") {
        return std::fs::read_to_string(path);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map(|_| text)
}

fn create_token_file(path: &Path) -> Result<TokenFile, Fault> {
    TokenFile::create(path).map_err(|error| {
        Fault::usage(format!(
            "--save-refresh-token {}: {error}; nothing was asked, and the refresh token is not spent",
            path.display()
        ))
    })
}
