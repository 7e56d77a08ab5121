//! Completion of the command line: by scripts of the shells that call the binary, by kubectl, which calls
//! `kubectl_complete-tokensource`, and man pages.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Command, ValueEnum};
use clap_complete::engine::{self, ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;
use tokio::runtime::Builder;

use super::output;
use crate::cluster::{KubeconfigEntry, Scope, UserCluster, UserConnection};
use crate::key::Key;

/// The name under which kubectl asks a plugin for completions.
pub const KUBECTL_COMPLETER: &str = "kubectl_complete-tokensource";
/// The variable by which the scripts of the shells ask.
const VARIABLE: &str = "COMPLETE";
/// kubectl's directive to complete no file names: 4 of cobra's `ShellCompDirective`.
const NO_FILES: &str = ":4";
/// The longest that names are asked for: a shell must not hang.
const COMPLETION_TIMEOUT: Duration = Duration::from_secs(2);

/// The text below the flags in the help of `completion`.
pub const HELP: &str = "bash:        source <(kubectl-tokensource completion bash)
zsh:         source <(kubectl-tokensource completion zsh)
fish:        kubectl-tokensource completion fish | source
powershell:  kubectl-tokensource completion powershell | Out-String | Invoke-Expression

These complete the command kubectl-tokensource. For `kubectl tokensource`, which kubectl's own completion completes in all of
these shells, link the binary a second time, under the name that kubectl asks for:
             ln -s \"$(command -v kubectl-tokensource)\" DIRECTORY-OF-THE-PATH/kubectl_complete-tokensource";

/// The arguments of `completion`.
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// A shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU bash.
    Bash,
    /// Z shell.
    Zsh,
    /// fish.
    Fish,
    /// PowerShell.
    Powershell,
}

/// The arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder for the pages, which must exist.
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}

/// Prints the script of a shell.
///
/// # Errors
/// The output cannot be written.
pub fn script(arguments: &CompletionArgs, program: &str) -> io::Result<()> {
    let name = match arguments.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
        Shell::Powershell => "powershell",
    };
    let shells = Shells::builtins();
    let shell = shells.completer(name).ok_or(io::ErrorKind::Unsupported)?;
    let mut script = vec![];
    shell.write_registration(VARIABLE, program, program, program, &mut script)?;
    if arguments.shell == Shell::Zsh {
        // zsh loads a file of its `fpath` at the first Tab, which would be without an answer.
        let function = program.replace('-', "_");
        writeln!(
            script,
            "\nif [ \"$funcstack[1]\" = \"_{program}\" ]; then _clap_dynamic_completer_{function} \"$@\"; fi"
        )?;
    }
    io::stdout().write_all(&script)
}

/// Writes a man page for each command.
///
/// # Errors
/// A page cannot be written.
pub fn write_man_pages(arguments: &ManArgs, definition: Command) -> io::Result<()> {
    clap_mangen::generate_to(definition.disable_help_subcommand(true), &arguments.folder)
}

/// Answers a shell or kubectl that asks for completions. `None` where neither does.
pub fn answer(definition: impl Fn() -> Command) -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    if is_kubectl_completer(&program) {
        let candidates = for_kubectl(definition(), arguments.collect());
        output::print(&kubectl_answer(&candidates));
        return Some(ExitCode::SUCCESS);
    }
    std::env::var_os(VARIABLE)?;
    clap_complete::CompleteEnv::with_factory(definition).complete(); // ends the process, if it was asked
    None
}

fn is_kubectl_completer(program: &OsStr) -> bool {
    Path::new(program).file_stem().is_some_and(|name| name == KUBECTL_COMPLETER)
}

/// The candidates for the last of `words`, which may be empty. Flags are among them only after a hyphen, as kubectl has it, or
/// where there is nothing else.
fn for_kubectl(mut definition: Command, words: Vec<OsString>) -> Vec<CompletionCandidate> {
    let last = words.len().max(1);
    let is_flag = |text: &OsStr| text.as_encoded_bytes().starts_with(b"-");
    let wants_flags = words.last().is_some_and(|word| is_flag(word));
    let mut arguments = vec![OsString::from(KUBECTL_COMPLETER)];
    arguments.extend(words);
    arguments.resize(last + 1, OsString::new());
    let all = engine::complete(&mut definition, arguments, last, None).unwrap_or_default();
    let has_others = all.iter().any(|candidate| !candidate.is_hide_set() && !is_flag(candidate.get_value()));
    let is_wanted =
        |candidate: &CompletionCandidate| wants_flags || !has_others || !is_flag(candidate.get_value());
    all.into_iter().filter(is_wanted).collect()
}

/// What kubectl reads: a candidate a line, with its description behind a tab, and a directive.
fn kubectl_answer(candidates: &[CompletionCandidate]) -> String {
    let mut answer = String::new();
    for candidate in candidates.iter().filter(|candidate| !candidate.is_hide_set()) {
        answer += &candidate.get_value().to_string_lossy();
        if let Some(line) = candidate.get_help().map(ToString::to_string)
            && let Some(first) = line.lines().next()
        {
            answer = format!("{answer}\t{first}");
        }
        answer.push('\n');
    }
    answer + NO_FILES + "\n"
}

/// The namespaces of the cluster.
pub(super) fn namespaces() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        asked(async |cluster| cluster.namespace_names().await.ok()).unwrap_or_default()
    })
}

/// The TokenSources of the namespace on the command line.
pub(super) fn sources() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        asked(async |cluster| {
            let scope = Scope { namespace: Some(cluster.namespace.clone()), labels: None };
            let (sources, _) = cluster.source_objects(&scope, |_| ()).await.ok()?;
            Some(sources.iter().map(|source| Key::of(&source.metadata).name.to_string()).collect())
        })
        .unwrap_or_default()
    })
}

/// The contexts, clusters or users of the kubeconfig.
pub(super) fn kubeconfig_entries(kind: KubeconfigEntry) -> ArgValueCandidates {
    ArgValueCandidates::new(move || candidates(connection(std::env::args_os()).entries(kind)))
}

fn candidates(names: Vec<String>) -> Vec<CompletionCandidate> {
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// What the cluster of the command line answers, if it does in time.
fn asked(ask: impl AsyncFnOnce(UserCluster) -> Option<Vec<String>>) -> Option<Vec<CompletionCandidate>> {
    token_endpoint::transport::install_crypto_provider();
    let runtime = Builder::new_current_thread().enable_all().build().ok()?;
    let names = runtime.block_on(async {
        let answer = async { ask(UserCluster::connect(&connection(std::env::args_os())).await.ok()?).await };
        tokio::time::timeout(COMPLETION_TIMEOUT, answer).await.ok()?
    })?;
    Some(candidates(names))
}

/// The cluster that an unfinished command line is about.
fn connection(words: impl Iterator<Item = OsString>) -> UserConnection {
    let mut connection =
        UserConnection { request_timeout: Some(COMPLETION_TIMEOUT), ..UserConnection::default() };
    let mut words = words.filter_map(|word| word.into_string().ok());
    while let Some(word) = words.next() {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => match word.strip_prefix("-n").filter(|rest| !rest.is_empty()) {
                Some(namespace) => ("-n".to_owned(), Some(namespace.to_owned())),
                None => (word, None),
            },
        };
        let known = ["-n", "--namespace", "--kubeconfig", "--context", "--cluster", "--user", "--as"];
        if !known.contains(&flag.as_str()) {
            continue;
        }
        let value = value.or_else(|| words.next()).filter(|value| !value.is_empty());
        match flag.as_str() {
            "-n" | "--namespace" => connection.namespace = value,
            "--kubeconfig" => connection.kubeconfig = value.map(PathBuf::from),
            "--context" => connection.context = value,
            "--cluster" => connection.cluster = value,
            "--user" => connection.user = value,
            _ => connection.impersonated_user = value,
        }
    }
    connection
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn words(line: &str) -> impl Iterator<Item = OsString> {
        line.split(' ').map(OsString::from).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn connection_is_that_of_the_unfinished_line() {
        for line in [
            "kubectl tokensource get --context=c -n a ",
            "kubectl tokensource get --context c --namespace=a x",
            "kubectl tokensource -na --context c get",
        ] {
            let connection = connection(words(line));
            assert_eq!(
                (connection.namespace.as_deref(), connection.context.as_deref()),
                (Some("a"), Some("c")),
                "{line}"
            );
        }
        assert_eq!(connection(words("get -n")).namespace, None);
    }

    #[test]
    fn kubectl_is_answered_in_lines_with_a_directive() {
        let definition = Command::new("p")
            .subcommand(Command::new("get").about("List\nthem"))
            .subcommand(Command::new("run").hide(true));
        let answer = kubectl_answer(&for_kubectl(definition.clone(), vec!["g".into()]));
        assert_eq!(answer, "get\tList\n:4\n");
        assert!(kubectl_answer(&for_kubectl(definition, vec![])).starts_with("get\t"));
        let named = Command::new("p")
            .arg(Arg::new("shell").value_parser(["bash"]))
            .arg(Arg::new("wide").long("wide"));
        let values = |word: &str| -> Vec<OsString> {
            let candidates = for_kubectl(named.clone(), vec![word.into()]);
            candidates.iter().map(|candidate| candidate.get_value().to_owned()).collect()
        };
        assert_eq!(values(""), ["bash"], "no flags before a hyphen");
        assert_eq!(values("--w"), ["--wide"]);
        assert!(is_kubectl_completer(OsStr::new("/bin/kubectl_complete-tokensource")));
        assert!(!is_kubectl_completer(OsStr::new("kubectl-tokensource")));
    }
}
