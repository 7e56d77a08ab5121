//! `kubectl tokensource` on a terminal: what bash, zsh and fish complete when Tab is pressed, and where colours are.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::plugin::{Plugin, everything};
use super::support::program::{ProgramOutput, run};
use super::support::scene::Scene;

const TERMINAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/terminal.py");
/// Runs a program on a terminal, and ends with its exit code.
pub(super) const ON_A_TERMINAL: &str =
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

#[tokio::test(flavor = "multi_thread")]
async fn shells_complete_commands_namespaces_and_names_of_the_cluster() {
    let scene = Scene::bare("shells").await;
    let mut only = scene.source(json!({}));
    only["metadata"]["name"] = json!("the-only-one");
    scene.apply(only).await;
    let (plugin, namespace) = (Plugin::new(), scene.namespace.as_str());
    let unfinished = &namespace[..namespace.len() - 1];
    let lines = [
        ("kubectl-tokensource sus", "kubectl-tokensource suspend".to_owned()),
        (
            &format!("kubectl-tokensource get -n {unfinished}"),
            format!("kubectl-tokensource get -n {namespace}"),
        ),
        (
            &format!("kubectl-tokensource refresh -n {namespace} the"),
            format!("kubectl-tokensource refresh -n {namespace} the-only-one"),
        ),
    ];
    let shells: [(&[&str], &str); 3] = [
        (&["bash", "--norc", "--noprofile", "-i"], "source <(kubectl-tokensource completion bash)"),
        (&["fish", "--no-config", "--private", "-i"], "kubectl-tokensource completion fish | source"),
        // As a package installs it: a file that zsh loads at the first Tab.
        (&["zsh", "-f", "-i"], "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D"),
    ];
    for (shell, setup) in shells {
        let home = tempfile::tempdir().unwrap();
        let mut script = Command::new(plugin.program());
        script.args(["completion", "zsh"]);
        let script = run(script, "").await.stdout;
        fs::write(home.path().join("_kubectl-tokensource"), script).unwrap();
        let file = |name: &str| home.path().join(name).display().to_string();
        let mut steps = vec![
            json!({"keys": format!("{setup}; echo ready >{}\n", file("ready")), "fills": file("ready")}),
        ];
        for (number, (typed, _)) in lines.iter().enumerate() {
            let filled = file(&number.to_string());
            // Tab, then the beginning of the line.
            steps.push(json!({"keys": format!("{typed}\t\u{1}echo >{filled} \n"), "fills": filled}));
        }
        let mut python = Command::new("python3");
        python.arg(TERMINAL).args(shell).env("PATH", plugin.path()).env("KUBECONFIG", everything());
        python.current_dir(home.path()).env("HOME", home.path()).env("TERM", "xterm");
        run(python, &json!(steps).to_string()).await.assert(0, &[]);
        for (number, (typed, completed)) in lines.iter().enumerate() {
            let line = fs::read_to_string(file(&number.to_string())).unwrap();
            assert_eq!(line.trim(), completed, "{}: {typed}", shell[0]);
        }
    }
}

/// Whether a part is coloured, bold or the like (SGR of ECMA-48); moving the cursor is none of that.
fn has_colours(text: &str) -> bool {
    let sequences = text.split("\u{1b}[").skip(1);
    sequences.filter_map(|rest| rest.chars().find(char::is_ascii_alphabetic)).any(|last| last == 'm')
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_on_a_terminal_only_and_never_with_no_color() {
    let scene = Scene::new("colours", 300).await;
    scene.apply(scene.source(json!({}))).await;
    let (plugin, namespace) = (Plugin::new(), scene.namespace.as_str());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (report, pages) = (path("report.tar.gz"), path(""));
    let commands: [&[&str]; 14] = [
        &["get", "-n", namespace],
        &["check", "-n", namespace],
        &["get", "--no-such-flag"],
        &["--help"],
        &["explain", "-n", namespace, "source"],
        &["refresh", "-n", namespace, "source"],
        &["suspend", "-n", namespace, "source"],
        &["resume", "-n", namespace, "source"],
        &["mint", "-n", namespace, "source"],
        &["report", "-n", namespace, "-o", &report],
        &["bindings"],
        &["completion", "bash"],
        &["man", &pages],
        &["crd"],
    ];
    let said = async |arguments: &[&str], on_a_terminal: bool, variables: &[(&str, &str)]| -> ProgramOutput {
        let program = plugin.program();
        let mut command = if on_a_terminal {
            let mut python = Command::new("python3");
            python.args(["-c", ON_A_TERMINAL]).arg(&program);
            python
        } else {
            Command::new(&program)
        };
        command.args(arguments).env("KUBECONFIG", everything()).env("TERM", "xterm");
        // Both decide on colours by themselves: workflows show them without a terminal.
        command.env_remove("NO_COLOR").env_remove("CI");
        command.envs(variables.iter().copied());
        run(command, "").await
    };
    for arguments in commands {
        let piped = said(arguments, false, &[]).await;
        assert!(
            !piped.all().contains('\u{1b}') && !piped.all().is_empty() | (arguments[0] == "man"),
            "{piped:?}"
        );
        let without = said(arguments, true, &[("NO_COLOR", "1")]).await;
        assert!(!has_colours(&without.all()), "{arguments:?}: {without:?}");
    }
    // So that the rest of the test can fail.
    for arguments in &commands[..4] {
        let coloured = said(arguments, true, &[]).await;
        assert!(has_colours(&coloured.all()), "{arguments:?}: {coloured:?}");
        let dumb = said(arguments, true, &[("TERM", "dumb")]).await;
        assert!(!has_colours(&dumb.all()), "{arguments:?}: {dumb:?}");
    }
    assert!(Path::new(&report).exists());
}
