//! What the release workflow's script checks and pins.
#![cfg(unix)] // scripts
#![cfg(test)] // so that clippy lets helpers panic, too

#[path = "support/process.rs"]
mod process;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use process::{RUN_LIMIT, output_within};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const DIGEST: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

const BUNDLE: &str = "deploy/olm/manifests/tokensource-operator.clusterserviceversion.yaml";

/// A copy of the files that the script reads and writes, in a repository whose `main` has one commit.
fn copy() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in [
        "hack/release.sh",
        "charts/tokensource-operator/values.yaml",
        "deploy/install.yaml",
        "deploy/base/operator.yaml",
        BUNDLE,
    ] {
        let to = copy.path().join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(Path::new(ROOT).join(file), to).unwrap();
    }
    git(copy.path(), &["init", "--quiet", "--initial-branch", "main"]);
    commit(copy.path());
    git(copy.path(), &["update-ref", "refs/remotes/origin/main", "HEAD"]);
    copy
}

fn git(folder: &Path, arguments: &[&str]) {
    let person = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"];
    let mut command = Command::new("git");
    command.current_dir(folder).args(person).args(arguments);
    let output = output_within(command, "", RUN_LIMIT);
    assert!(output.status.success(), "git {arguments:?}: {}", said(&output));
}

fn commit(folder: &Path) {
    git(folder, &["add", "--all"]);
    git(folder, &["commit", "--quiet", "--allow-empty", "-m", "a change"]);
}

/// Runs the script with a `gh` that prints this, in the place of the runs that GitHub knows.
fn release(folder: &Path, arguments: &[&str], runs: &str) -> Output {
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(
        bin.join("gh"),
        format!("#!/bin/sh\necho \"$*\" >>'{}/asked'\nprintf '%s' '{runs}'\n", bin.display()),
    )
    .unwrap();
    fs::set_permissions(bin.join("gh"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(folder.join("hack/release.sh"));
    command.args(arguments).env("PATH", path);
    output_within(command, "", RUN_LIMIT)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn release_of_a_commit_that_is_not_on_main_is_refused() {
    let copy = copy();
    commit(copy.path());
    let output = release(copy.path(), &["check-commit", "HEAD"], "https://example.com/run");
    assert!(!output.status.success() && said(&output).contains("is not on main"), "{}", said(&output));
}

#[test]
fn release_of_a_commit_of_main_needs_a_run_of_ci_that_succeeded_for_it() {
    let copy = copy();
    let output = release(copy.path(), &["check-commit", "HEAD"], "");
    assert!(!output.status.success() && said(&output).contains("CI has not succeeded"), "{}", said(&output));
    let output = release(copy.path(), &["check-commit", "HEAD"], "https://example.com/run");
    assert!(
        output.status.success() && said(&output).contains("https://example.com/run"),
        "{}",
        said(&output)
    );
    let asked = fs::read_to_string(copy.path().join("bin/asked")).unwrap();
    for filter in ["--workflow ci.yml", "--branch main", "--event push", "--status success"] {
        assert!(asked.lines().all(|line| line.contains(filter)), "{filter}: {asked}");
    }
}

#[test]
fn digest_of_the_image_is_pinned_in_chart_manifests_and_bundle_once() {
    let copy = copy();
    let cargo = fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap();
    let version =
        cargo.lines().find_map(|line| line.strip_prefix("version = \"")).unwrap().trim_end_matches('"');
    let tag = format!("v{version}");
    for wrong in ["", "sha256:00", "latest"] {
        assert!(!release(copy.path(), &["pin", &tag, wrong], "").status.success(), "{wrong}");
    }
    let output = release(copy.path(), &["pin", &tag, DIGEST], "");
    assert!(output.status.success(), "{}", said(&output));
    let read = |file: &str| fs::read_to_string(copy.path().join(file)).unwrap();
    assert!(read("charts/tokensource-operator/values.yaml").contains(&format!("\n  digest: {DIGEST}\n")));
    for file in ["deploy/install.yaml", "deploy/base/operator.yaml"] {
        let images: Vec<_> =
            read(file).lines().filter(|it| it.trim().starts_with("image: ")).map(str::to_owned).collect();
        let pinned = format!("          image: ghcr.io/tokensource/tokensource-operator:{version}@{DIGEST}");
        assert_eq!(images, [pinned], "{file}");
    }
    let bundle = read(BUNDLE);
    let images: Vec<_> = bundle.lines().filter(|it| it.contains("ghcr.io/")).collect();
    let pinned = format!(": ghcr.io/tokensource/tokensource-operator:{version}@{DIGEST}");
    assert_eq!(images.len(), 3, "Deployment, annotation and related image: {images:#?}");
    assert!(images.iter().all(|it| it.ends_with(&pinned)), "{images:#?}");
    assert!(!release(copy.path(), &["pin", &tag, DIGEST], "").status.success(), "pinned twice");
}

/// The steps of a workflow's job, as text.
fn job<'a>(workflow: &'a str, name: &str) -> &'a str {
    let rest = workflow.split_once(&format!("\n  {name}:\n")).unwrap().1;
    let end = rest
        .match_indices("\n  ")
        .find(|(at, _)| rest[at + 3..].starts_with(|it: char| it.is_ascii_lowercase()));
    end.map_or(rest, |(at, _)| &rest[..at])
}

#[test]
fn release_workflow_checks_the_commit_first_and_runs_no_build_script_with_write_rights() {
    let workflow = fs::read_to_string(Path::new(ROOT).join(".github/workflows/release.yml")).unwrap();
    assert!(job(&workflow, "check").contains("hack/release.sh check-commit \"$GITHUB_SHA\""));
    for name in ["sbom", "build"] {
        assert!(job(&workflow, name).contains("    needs: check\n"), "{name}");
    }
    assert!(job(&workflow, "publish").contains("    needs: [sbom, build]\n"));
    let sbom = job(&workflow, "sbom");
    assert!(sbom.contains("make sbom") && !sbom.contains(": write"), "{sbom}");
    let publish = job(&workflow, "publish");
    assert!(!publish.contains("make ") && !publish.contains("cargo"), "{publish}");
    let pin = publish.find("hack/release.sh pin").unwrap();
    for published in ["package charts/", "cp deploy/install.yaml", "-C deploy/olm "] {
        assert!(publish.find(published).unwrap() > pin, "{published} comes before the digest is pinned");
    }
    let dockerfile = fs::read_to_string(Path::new(ROOT).join("Dockerfile")).unwrap();
    for image in dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")) {
        assert!(image == "scratch" || image.contains("@sha256:"), "{image}");
    }
}

/// Every file of Rust below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("node_modules") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn nightly_workflow_runs_every_long_test() {
    let workflow = fs::read_to_string(Path::new(ROOT).join(".github/workflows/nightly.yml")).unwrap();
    let parts = workflow.lines().find_map(|line| line.trim().strip_prefix("part: [")).unwrap();
    let parts: Vec<_> = parts.trim_end_matches(']').split(", ").collect();
    let mut files = Vec::new();
    for folder in ["tests", "src", "crates"] {
        sources(&Path::new(ROOT).join(folder), &mut files);
    }
    let mut long = 0;
    for file in files.iter().filter(|file| !file.ends_with("tests/release.rs")) {
        let text = fs::read_to_string(file).unwrap();
        for rest in text.split("#[ignore = ").skip(1).filter(|rest| !rest.starts_with("\"make pictures\"")) {
            let name = rest.split_once("fn ").unwrap().1.split_once('(').unwrap().0;
            // A part is a part of the test's name, which has its modules in front; a binary's name is not in it.
            let module =
                file.parent().unwrap().components().next_back().unwrap().as_os_str().to_string_lossy();
            let stem = file.file_stem().unwrap().to_string_lossy();
            let path = format!("{module}::{stem}::{name}");
            assert!(parts.iter().any(|part| path.contains(part)), "no part of {parts:?} runs {path}");
            long += 1;
        }
    }
    assert!(long > 10, "{long} long tests were found");
}
