//! Every flag of every command, from the definition of the command line.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory};

use super::{cell, code, wrap};

const HEAD: &str = "# Commands and flags

Generated from the command line's definition by `make generate`; `tokensource-operator COMMAND --help` prints the same. A flag
takes precedence over its environment variable. The chart has [a value](../../charts/tokensource-operator/README.md) for each
flag of `run`.
";

pub(super) fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut cli = tokensource_operator::cli::Cli::command();
    cli.build();
    for command in cli.get_subcommands().filter(|command| !command.is_hide_set()) {
        if command.get_name() != "help" {
            section(&mut page, command);
        }
    }
    page
}

fn section(page: &mut String, command: &Command) {
    let _ = write!(page, "\n## {}\n", command.get_name());
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        let _ = write!(page, "\n{}\n", wrap(&cell(&about.to_string()), ""));
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let _ = write!(page, "\n```text\n{usage}\n```\n");
    let arguments: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set())
        .filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version"))
        .collect();
    if arguments.is_empty() {
        return;
    }
    page.push_str("\n| flag | environment variable | default | description |\n|---|---|---|---|\n");
    for argument in arguments {
        let defaults: Vec<_> =
            argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
        let help = argument.get_long_help().or_else(|| argument.get_help());
        let mut text = cell(&help.map(ToString::to_string).unwrap_or_default());
        let values: Vec<_> =
            argument.get_possible_values().iter().map(|value| code(value.get_name())).collect();
        // A switch has the values true and false.
        if argument.get_action().takes_values() && values.len() > 1 && values != ["`true`", "`false`"] {
            let _ = write!(text, ": {}", values.join(", "));
        }
        let _ = writeln!(
            page,
            "| {} | {} | {} | {text} |",
            code(&name(argument)),
            argument.get_env().map(|name| code(&name.to_string_lossy())).unwrap_or_default(),
            if defaults.is_empty() { String::new() } else { code(&defaults.join(",")) },
        );
    }
}

/// The flag with the name of its value.
fn name(argument: &Arg) -> String {
    let names = argument.get_value_names().filter(|_| argument.get_action().takes_values());
    let value = names.into_iter().flatten().map(|name| format!("<{name}>")).collect::<Vec<_>>().join(" ");
    match (argument.get_short(), argument.get_long()) {
        (None, None) => value,
        (Some(short), None) => format!("-{short} {value}").trim_end().to_owned(),
        (None, Some(long)) => format!("--{long} {value}").trim_end().to_owned(),
        (Some(short), Some(long)) => format!("-{short}, --{long} {value}").trim_end().to_owned(),
    }
}
