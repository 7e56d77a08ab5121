//! The layout of the source: which file may import which. A file imports only from its own folder or from layers further
//! down, and no files or folders import each other in a circle.
#![cfg(test)] // so that clippy lets helpers panic, too

mod checker;
mod circles;
mod imports;
#[path = "../support/process.rs"]
mod process;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use circles::{Circle, circles};
use imports::{Import, Imports, Sources, imports_of};
use process::{RUN_LIMIT, output_within};

/// The layers of `src/`, the highest first. Modules of one layer do not import each other.
const LAYERS: [&[&str]; 16] = [
    &["main"],
    &["cli"],
    &["commands"],
    &["operator"],
    &["controller"],
    &["token_request"],
    &["cluster"],
    &["metrics"],
    &["heartbeat", "leadership", "restorations"],
    &["clock"],
    // Pure from here on: no clock, no client, no randomness.
    &["spec"],
    &["status"],
    &["providers"],
    &["refresh"],
    &["secret"],
    &["key", "time", "digest", "text", "binding", "uid"],
];

/// Imports that are forbidden although they go down: a module, and what it must not import.
const FORBIDDEN: [(&str, &str); 2] = [("commands", "controller"), ("commands", "operator")];

/// Where alone `kube::Api` may be named.
const API_CALLERS: &str = "src/cluster/";

/// Words of the operator's, of which the crate for token endpoints knows nothing.
const OPERATOR_WORDS: [&str; 3] = ["kube", "Kubernetes", "TokenSource"];

// ---------------------------------------------------------------------------------------------------------- the tests

#[test]
fn no_import_in_src_goes_up_the_layers() {
    let wrong = upward(&operator());
    let wrong: Vec<_> = wrong.iter().map(|(import, _)| describe(import)).collect();
    assert!(wrong.is_empty(), "imports that go up the layers (see LAYERS, FORBIDDEN):\n{}", wrong.join("\n"));
}

#[test]
fn every_module_of_src_has_a_layer() {
    let named: BTreeSet<_> = operator().files.keys().filter_map(|path| path.first().cloned()).collect();
    let layered: BTreeSet<_> = LAYERS.concat().into_iter().map(str::to_owned).collect();
    assert_eq!(named, layered, "LAYERS in tests/layout/main.rs lists every module");
}

#[test]
fn no_files_or_folders_import_each_other_in_a_circle() {
    let crates = [
        ("src", operator()),
        ("crates/api/src", api()),
        ("crates/token-endpoint/src", endpoint()),
        ("crates/tenant-shares/src", shares()),
    ];
    let mut wrong = String::new();
    for (folder, imports) in crates {
        for circle in circles(&imports.internal) {
            let folder = [&[folder.to_owned()], &circle.within[..]].concat().join("/");
            wrong += &describe_circle(&folder, &circle);
        }
    }
    assert!(wrong.is_empty(), "circles of imports; a shortest one of each:\n{wrong}");
}

#[test]
fn only_the_cluster_module_names_kube_api() {
    let wrong: Vec<_> =
        api_callers(&operator()).into_iter().filter(|(file, _)| !file.starts_with(API_CALLERS)).collect();
    assert!(wrong.is_empty(), "kube::Api belongs to src/cluster: {wrong:#?}");
}

#[test]
fn crates_depend_neither_on_each_other_nor_on_kubes_client() {
    let wrong: Vec<_> =
        api().external.into_iter().filter(|it| it.path.join("::").starts_with("kube::client")).collect();
    assert!(wrong.is_empty(), "crates/api makes no calls: {wrong:#?}");

    let api = dependencies("tokensource-api");
    let kube = api.iter().find(|it| it["name"] == "kube").expect("kube, for its derive");
    assert_eq!(
        (&kube["features"], &kube["uses_default_features"]),
        (&serde_json::json!(["derive"]), &false.into())
    );
    let is_client =
        |name: &str| ["token-endpoint", "reqwest", "hyper", "kube-client", "kube-runtime"].contains(&name);
    assert_eq!(names(&api).find(|name| is_client(name)), None, "crates/api makes no calls");

    let endpoint = dependencies("token-endpoint");
    let is_kubernetes = |name: &str| ["tokensource", "kube", "k8s"].iter().any(|it| name.starts_with(it));
    assert_eq!(
        names(&endpoint).find(|name| is_kubernetes(name)),
        None,
        "crates/token-endpoint knows no Kubernetes"
    );
    let shares = dependencies("tenant-shares");
    assert_eq!(names(&shares).next(), None, "crates/tenant-shares needs no other crate");
}

#[test]
fn token_endpoint_crate_has_no_words_of_the_operator() {
    let mut wrong = String::new();
    for (file, text) in read("crates/token-endpoint/src") {
        for (number, line) in text.lines().enumerate() {
            let mut words = line.split(|letter: char| !letter.is_alphanumeric());
            // `TokenSources`, and `TokenSourceSpec`.
            if words.any(|word| {
                word == OPERATOR_WORDS[0] || OPERATOR_WORDS[1..].iter().any(|it| word.contains(it))
            }) {
                wrong += &format!("{file}:{}: {}\n", number + 1, line.trim());
            }
        }
    }
    assert!(wrong.is_empty(), "the crate is useful without Kubernetes, and does not mention it:\n{wrong}");
}

// -------------------------------------------------------------------------------------------------------------- rules

/// The imports of `src/` that go up, or are forbidden, each with the module that it must not import.
fn upward(imports: &Imports) -> Vec<(Import, String)> {
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let goes_up =
        |from: &str, to: &str| from != to && (layer(from) >= layer(to) || FORBIDDEN.contains(&(from, to)));
    // Each once for a file: the line of the declaration is enough. The root of the library imports nothing.
    let mut first = BTreeMap::new();
    for import in &imports.internal {
        if let (Some(from), Some(to)) = (import.from.first(), import.to.first())
            && goes_up(from, to)
        {
            first.entry((import.file.clone(), to.clone())).or_insert(import);
        }
    }
    first.into_iter().map(|((_, to), import)| (import.clone(), to)).collect()
}

/// The files that name `kube::Api`, with the path.
fn api_callers(imports: &Imports) -> BTreeSet<(String, String)> {
    let names_api = |path: &[String]| {
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        path.starts_with(&["kube", "Api"]) || path.starts_with(&["kube", "api", "Api"])
    };
    let named = imports.external.iter().filter(|it| names_api(&it.path));
    named.map(|it| (it.file.clone(), it.path.join("::"))).collect()
}

fn describe(import: &Import) -> String {
    format!("{}:{}: {} (of {})", import.file, import.line, import.path, import.to.join("::"))
}

fn describe_circle(folder: &str, circle: &Circle) -> String {
    let parts: Vec<_> = circle.parts.iter().map(String::as_str).collect();
    let steps: Vec<_> = circle.steps.iter().map(|import| format!("    {}\n", describe(import))).collect();
    format!("{folder}: {}\n{}", parts.join(", "), steps.concat())
}

// ------------------------------------------------------------------------------------------------------------ sources

fn operator() -> Imports {
    imports_of("src", "tokensource_operator", &read("src"))
}

fn api() -> Imports {
    imports_of("crates/api/src", "tokensource_api", &read("crates/api/src"))
}

fn endpoint() -> Imports {
    imports_of("crates/token-endpoint/src", "token_endpoint", &read("crates/token-endpoint/src"))
}

fn shares() -> Imports {
    imports_of("crates/tenant-shares/src", "tenant_shares", &read("crates/tenant-shares/src"))
}

/// The Rust files below a folder of this repository.
fn read(folder: &str) -> Sources {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Sources::new();
    let mut folders: Vec<PathBuf> = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                sources.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    sources
}

/// The dependencies of a crate of this workspace, as Cargo reads its manifest.
fn dependencies(name: &str) -> Vec<Value> {
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--no-deps", "--offline", "--format-version=1"]);
    metadata.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = output_within(metadata, "", RUN_LIMIT);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == name).unwrap();
    package["dependencies"].as_array().unwrap().clone()
}

fn names(dependencies: &[Value]) -> impl Iterator<Item = &str> {
    dependencies.iter().map(|it| it["name"].as_str().unwrap())
}
