//! The pages: links, the table of contents, code blocks, the length of lines, and the log messages of `docs/logs.md`.
#![cfg(test)] // so that clippy lets helpers panic, too

#[path = "support/process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use process::{RUN_LIMIT, output_within};

/// Of a line of prose: wider ones do not fit beside each other in a review.
const MAX_COLUMNS: usize = 130;

/// Of code blocks. `text` is for what has no language, such as output.
const LANGUAGES: [&str; 15] = [
    "bash",
    "console",
    "go",
    "ini",
    "java",
    "javascript",
    "json",
    "mermaid",
    "nginx",
    "powershell",
    "promql",
    "python",
    "rust",
    "text",
    "toml",
];

fn pages() -> Vec<PathBuf> {
    let mut pages = vec![];
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
                folders.push(path);
            } else if name.ends_with(".md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// The page without code.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(page).unwrap();
    let mut fenced = false;
    let is_prose = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    };
    let lines: Vec<&str> = text.lines().filter(is_prose).collect();
    // Outside of backticks.
    lines.join("\n").split('`').step_by(2).collect::<Vec<_>>().join("")
}

/// The targets of inline links.
fn links(prose: &str) -> Vec<String> {
    let ends = prose.split("](").skip(1);
    ends.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

/// The anchors of a page: those that GitHub generates for headings, and `<a name>` anchors.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(page).unwrap();
    let named = text.split("<a name=\"").skip(1).filter_map(|rest| rest.split_once('"'));
    let named = named.map(|(name, _)| name.to_owned());
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .map(|heading| {
            let kept = heading.chars().filter(|it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_'));
            kept.map(|it| if it == ' ' { '-' } else { it }).collect()
        })
        .chain(named)
        .collect()
}

#[test]
fn every_relative_link_has_a_target() {
    let mut checked = 0;
    let mut broken = vec![];
    for page in pages() {
        for link in links(&prose(&page)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            checked += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let found = target.exists() && (anchor.is_empty() || anchors(&target).contains(anchor));
            if !found {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(checked > 30, "{checked} links");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_page_of_docs_is_in_the_table_of_contents() {
    let contents = root().join("docs/SUMMARY.md");
    let listed: Vec<PathBuf> = links(&fs::read_to_string(&contents).unwrap())
        .iter()
        .map(|link| root().join("docs").join(link).canonicalize().unwrap())
        .collect();
    let docs = root().join("docs").canonicalize().unwrap();
    let missing: Vec<_> = pages()
        .into_iter()
        .map(|page| page.canonicalize().unwrap())
        .filter(|page| page.starts_with(&docs) && *page != docs.join("SUMMARY.md") && !listed.contains(page))
        .collect();
    assert!(missing.is_empty(), "add to docs/SUMMARY.md, the contents of the manual: {missing:?}");
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), listed.len(), "a page is listed twice");
}

/// A code block: where it begins, its language, and its text without indentation.
struct Block {
    place: String,
    language: String,
    text: String,
}

fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).unwrap();
    let (mut blocks, mut open) = (vec![], None::<(usize, Block)>);
    for (number, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        let indentation = line.len() - line.trim_start().len();
        match (&mut open, fence) {
            (None, Some(language)) => {
                let place = format!("{}:{}", page.display(), number + 1);
                open =
                    Some((indentation, Block { place, language: language.to_owned(), text: String::new() }));
            }
            (Some(_), Some(_)) => blocks.extend(open.take().map(|(_, block)| block)),
            (Some((indentation, block)), None) => {
                block.text.push_str(line.get(*indentation..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// The yaml blocks are applied: `tests/integration/samples.rs`.
#[test]
fn code_blocks_have_a_language_and_its_syntax() {
    let mut wrong = vec![];
    for block in pages().iter().flat_map(|page| blocks(page)) {
        let fault = match block.language.as_str() {
            "yaml" => None,
            "bash" => {
                let mut bash = Command::new("bash");
                bash.arg("-n");
                let output = output_within(bash, &block.text, RUN_LIMIT);
                (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
            }
            "json" => serde_json::from_str::<serde_json::Value>(&block.text).err().map(|it| it.to_string()),
            known if LANGUAGES.contains(&known) => None,
            other => Some(format!("the language `{other}` is none of yaml, {}", LANGUAGES.join(", "))),
        };
        wrong.extend(fault.map(|fault| format!("{}: {fault}", block.place)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// People paste the lines into zsh, the shell of macOS, where `#` begins no comment: behind a command it and what follows are
/// arguments, and a quote in a comment waits for another.
#[test]
fn lines_to_paste_have_no_comments_behind_commands() {
    let mut wrong = vec![];
    for block in pages().iter().flat_map(|page| blocks(page)).filter(|block| block.language == "bash") {
        // A script, which is stored in a file.
        if block.text.starts_with("#!") {
            continue;
        }
        for line in block.text.lines() {
            let is_wrong = match line.trim_start().strip_prefix('#') {
                Some(comment) => comment.contains(['\'', '"', '`']),
                None => line.contains(" #"),
            };
            if is_wrong {
                wrong.push(format!("{}: {line}", block.place));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `deployment/` is any replica, which may be the one that stands by. With `metrics.secure`, port and scheme are others.
#[test]
fn runbooks_look_at_one_replica_and_know_secure_metrics() {
    let mut checked = 0;
    for page in pages().iter().filter(|page| page.parent().unwrap().ends_with("docs/runbooks")) {
        let text = fs::read_to_string(page).unwrap();
        if !text.contains("port-forward") {
            continue;
        }
        checked += 1;
        // There it is of no importance which one answers.
        let asks_any = page.file_stem().unwrap() == "TokenSourceOperatorAbsent";
        assert!(asks_any || !text.contains("port-forward deployment/"), "{}", page.display());
        assert!(text.contains("`metrics.secure`"), "{}", page.display());
    }
    assert!(checked > 2, "{checked} runbooks");
}

#[test]
fn prose_fits_into_130_columns() {
    let mut long = vec![];
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let mut fenced = false;
        for (number, line) in text.lines().enumerate() {
            fenced ^= line.trim_start().starts_with("```");
            // A row of a table, the target of a link, and a single word cannot be broken.
            let is_whole = line.trim_start().starts_with('|')
                || line.split_once("]: ").is_some_and(|(name, _)| name.starts_with('['))
                || !line.trim().contains(' ');
            if !fenced && !is_whole && line.chars().count() > MAX_COLUMNS {
                long.push(format!("{}:{}: {} columns", page.display(), number + 1, line.chars().count()));
            }
        }
    }
    assert!(long.is_empty(), "more than {MAX_COLUMNS} columns:\n{}", long.join("\n"));
}

// ------------------------------------------------------------------------------------------------------- log messages

/// Of the messages that are documented.
const LEVELS: [&str; 3] = ["error", "warn", "info"];

/// The messages of the source with their levels.
#[derive(Default)]
struct LogMessages(BTreeMap<String, String>);

impl<'ast> Visit<'ast> for LogMessages {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let is_for_tests = module.attrs.iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|cfg| cfg.is_ident("test"))
        });
        if !is_for_tests {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.read(&call.path.segments.last().unwrap().ident.to_string(), call.tokens.clone());
    }
}

impl LogMessages {
    fn read(&mut self, name: &str, arguments: TokenStream) {
        if !LEVELS.contains(&name) {
            // Another macro: perhaps one that contains code, such as `select!`.
            let tokens: Vec<TokenTree> = arguments.into_iter().collect();
            for (index, token) in tokens.iter().enumerate() {
                let TokenTree::Group(group) = token else { continue };
                let name = match &tokens[..index] {
                    [.., TokenTree::Ident(name), TokenTree::Punct(mark)] if mark.as_char() == '!' => {
                        name.to_string()
                    }
                    _ => String::new(),
                };
                self.read(&name, group.stream());
            }
            return;
        }
        let message =
            message(arguments.clone()).unwrap_or_else(|| panic!("{name}!({arguments}) has no message"));
        assert!(
            !message.contains('{'),
            "a message has a fixed wording, and what differs in members: {message}"
        );
        self.0.insert(message, name.to_owned());
    }
}

/// The argument of a macro of `tracing` that is a literal; members have a name and `=` before their value.
fn message(arguments: TokenStream) -> Option<String> {
    let mut is_first = true;
    for token in arguments {
        match token {
            TokenTree::Punct(comma) if comma.as_char() == ',' => is_first = true,
            TokenTree::Literal(text) if is_first => {
                return syn::parse_str::<syn::LitStr>(&text.to_string()).ok().map(|text| text.value());
            }
            _ => is_first = false,
        }
    }
    None
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_log_message_of_the_source_is_documented() {
    let mut messages = LogMessages::default();
    for folder in ["src", "crates/api/src", "crates/tenant-shares/src", "crates/token-endpoint/src"] {
        for file in sources(&root().join(folder)) {
            messages.visit_file(&syn::parse_file(&fs::read_to_string(&file).unwrap()).unwrap());
        }
    }
    assert!(messages.0.len() > 50, "only {} messages were found", messages.0.len());
    let page = fs::read_to_string(root().join("docs/logs.md")).unwrap();
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|');
        Some((cells.next()?.trim().trim_end_matches('`').to_owned(), cells.next()?.trim().to_owned()))
    });
    let documented: BTreeMap<String, String> = rows.collect();
    let missing: Vec<_> = messages.0.iter().filter(|it| documented.get(it.0) != Some(it.1)).collect();
    assert!(missing.is_empty(), "not in docs/logs.md with this level: {missing:#?}");
    let gone: Vec<_> = documented.keys().filter(|it| !messages.0.contains_key(*it)).collect();
    assert!(gone.is_empty(), "in docs/logs.md, and not in the source: {gone:#?}");
}

#[test]
fn make_help_lists_every_target() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let mut make = Command::new("make");
    make.args(["--no-print-directory", "help"]).current_dir(root());
    let help = String::from_utf8(output_within(make, "", RUN_LIMIT).stdout).unwrap();
    let listed: BTreeSet<&str> =
        help.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let targets = makefile.lines().filter_map(|line| line.strip_prefix(".PHONY: "));
    let missing: Vec<_> = targets.filter(|target| !listed.contains(target)).collect();
    assert!(listed.len() > 30 && missing.is_empty(), "{missing:?} has no `##` with its description");
}

// ---------------------------------------------------------------------------------------------------------- pictures

#[test]
fn picture_of_the_dashboard_shows_its_present_panels() {
    let mut digest = Command::new(root().join("hack/dashboard.py"));
    digest.arg("digest");
    let output = output_within(digest, "", RUN_LIMIT);
    assert!(output.status.success(), "{output:?}");
    let digest = String::from_utf8(output.stdout).unwrap();
    let picture = fs::read_to_string(root().join("docs/pictures/dashboard.svg")).unwrap();
    let drawn_by = format!("data-dashboard=\"{}\"", digest.trim());
    assert!(picture.contains(&drawn_by), "the picture shows an earlier dashboard: run `make pictures`");
}

/// The version of Kubernetes that a module of hack/ pins.
fn pinned_kubernetes(module: &Path) -> Option<String> {
    let text = fs::read_to_string(module.join("go.mod")).ok()?;
    let line = text.lines().find(|line| line.trim().starts_with("k8s.io/kubernetes v"))?;
    line.split_whitespace().nth(1).map(|version| version.trim_start_matches('v').to_owned())
}

#[test]
fn pinned_versions_of_kubernetes_are_those_of_the_workflow_the_page_and_the_chart() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let minor = |version: &str| version.rsplit_once('.').unwrap().0.to_owned();
    let newest = pinned_kubernetes(&root().join("hack/control-plane")).unwrap();
    let mut pinned = BTreeSet::from([newest.clone()]);
    let mut in_jobs = vec![];
    for entry in fs::read_dir(root().join("hack")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if let Some(of) = name.strip_prefix("control-plane-") {
            let version = pinned_kubernetes(&path).unwrap();
            assert_eq!(minor(&version), of, "{name}");
            in_jobs.push(format!("\"{of}\""));
            pinned.insert(version);
        }
    }
    in_jobs.sort();
    let matrix = format!("version: [{}]", in_jobs.join(", "));
    assert!(read(".github/workflows/ci.yml").contains(&matrix), "{matrix}");
    let documented: BTreeSet<String> = read("docs/install.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| 1.")?.split(" | ").nth(1).map(str::to_owned))
        .collect();
    assert_eq!(documented, pinned);
    let oldest = minor(pinned.first().unwrap());
    assert!(
        read("charts/tokensource-operator/Chart.yaml").contains(&format!("kubeVersion: \">={oldest}.0-0\""))
    );
}

// ----------------------------------------------------------------------------------------------------- Artifact Hub

/// Artifact Hub reads annotations of the chart as YAML, and silently drops what it cannot read.
#[test]
fn annotations_for_artifact_hub_are_yaml_with_all_kinds_and_their_pictures_exist() {
    let chart = fs::read_to_string(root().join("charts/tokensource-operator/Chart.yaml")).unwrap();
    let chart: serde_json::Value = serde_saphyr::from_str(&chart).unwrap();
    let (mut pictures, mut definitions) = (vec![chart["icon"].clone()], BTreeSet::new());
    for (name, text) in chart["annotations"].as_object().unwrap() {
        let value: serde_json::Value = serde_saphyr::from_str(text.as_str().unwrap()).unwrap();
        let members: &[&str] = match name.trim_start_matches("artifacthub.io/") {
            "crds" => &["kind", "version", "name", "displayName", "description"],
            "crdsExamples" => &["apiVersion", "kind", "metadata", "spec"],
            "links" => &["name", "url"],
            "screenshots" => &["title", "url"],
            "changes" => &["kind", "description"],
            _ => continue,
        };
        for item in value.as_array().unwrap() {
            assert!(members.iter().all(|member| !item[*member].is_null()), "{name}: {item}");
            if name.ends_with("/crds") {
                definitions.insert(item["name"].as_str().unwrap().to_owned());
            }
            if name.ends_with("/screenshots") {
                pictures.push(item["url"].clone());
            }
        }
    }
    let ours = [tokensource_api::crd(), tokensource_api::issuer_crd()];
    assert_eq!(definitions, ours.map(|it| it.metadata.name.unwrap()).into());
    for picture in pictures {
        let path = picture.as_str().unwrap().strip_prefix(&format!("{RAW}/main/"));
        assert!(path.is_some_and(|path| root().join(path).is_file()), "{picture} is not in the repository");
    }
}

const RAW: &str = "https://raw.githubusercontent.com/tokensource/tokensource-operator";
