//! The lines of `docs/kubectl-plugin.md` that install the plugin, against what a release has.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use super::process::{RUN_LIMIT, output_within};
use super::{Packed, packed, plugin, said, sha256};

const PAGE: &str = include_str!("../../docs/kubectl-plugin.md");
const WORKFLOW: &str = include_str!("../../.github/workflows/release.yml");
const RELEASES: &str = "https://github.com/tokensource/tokensource-operator/releases/download";

/// The first code block after the heading.
fn block(heading: &str) -> &'static str {
    let rest = PAGE.split_once(&format!("\n### {heading}\n")).unwrap().1;
    let code = rest.split_once("```").unwrap().1.split_once('\n').unwrap().1;
    code.split_once("```").unwrap().0
}

/// The URLs of the archives, as krew's manifest has them: `hack/plugin.py` names archive and URL in one place.
fn urls(sums: &Path) -> BTreeSet<String> {
    let manifest = plugin(&["krew", &sums.display().to_string()]);
    manifest.lines().filter_map(|line| line.trim().strip_prefix("uri: ")).map(str::to_owned).collect()
}

fn program(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs the lines for Linux and macOS on a machine that `uname` names so, where curl copies from the folder `release`.
fn install(folder: &Path, system: &str, machine: &str) -> Output {
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(folder.join("home")).unwrap();
    program(&bin.join("uname"), &format!("if [ $1 = -s ]; then echo {system}; else echo {machine}; fi"));
    let copy =
        format!("cp \"{0}/release/${{argument##*/}}\" . && echo $argument >>{0}/fetched", folder.display());
    program(
        &bin.join("curl"),
        &format!("for argument; do case $argument in https://*) {copy} || exit 22 ;; esac; done"),
    );
    program(&bin.join("kubectl"), "shift; exec ~/.local/bin/kubectl-tokensource --version");
    // As people paste them: macOS has zsh, where `#` begins no comment.
    let (shell, arguments) = if system == "Darwin" {
        ("zsh", &["-f", "-i", "+m"][..])
    } else {
        ("bash", &["--noprofile", "--norc"][..])
    };
    let mut shell = Command::new(shell);
    shell.args(arguments).current_dir(folder.join("home")).env("HOME", folder.join("home"));
    shell.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    output_within(shell, block("Linux and macOS"), RUN_LIMIT)
}

#[test]
fn install_lines_fetch_check_and_unpack_the_archive_of_each_platform() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let release = folder.join("release");
    let packed = packed(&release);
    let sums = folder.join("all");
    fs::write(&sums, packed.sums()).unwrap();
    let urls = urls(&sums);
    for (system, machine, platform) in [
        ("Linux", "x86_64", "linux-amd64"),
        ("Linux", "aarch64", "linux-arm64"),
        ("Darwin", "x86_64", "darwin-amd64"),
        ("Darwin", "arm64", "darwin-arm64"),
    ] {
        // One platform's binary stands for all.
        let name = packed.name(platform);
        let archive = release.join(&name);
        if archive != packed.archive {
            fs::copy(&packed.archive, &archive).unwrap();
        }
        fs::write(release.join("SHA256SUMS"), format!("{}  {name}\n", sha256(&archive))).unwrap();
        let output = install(folder, system, machine);
        let version = format!("kubectl-tokensource {}", packed.version.trim_start_matches('v'));
        assert!(said(&output).contains(&version), "{platform}: {}", said(&output));
        let fetched = fs::read_to_string(folder.join("fetched")).unwrap();
        let fetched: Vec<_> = fetched.lines().collect();
        assert!(urls.contains(fetched[0]), "{} is not of a release: {urls:#?}", fetched[0]);
        assert_eq!(fetched[1], format!("{RELEASES}/{}/SHA256SUMS", packed.version));
        fs::remove_file(folder.join("fetched")).unwrap();
        fs::remove_dir_all(folder.join("home")).unwrap();
    }
    // An archive that was changed is not unpacked.
    let name = packed.name("linux-amd64");
    fs::write(release.join("SHA256SUMS"), format!("{}  {name}\n", "0".repeat(64))).unwrap();
    let output = install(folder, "Linux", "x86_64");
    assert!(said(&output).contains("FAILED"), "{}", said(&output));
    assert!(!folder.join("home/.local/bin/kubectl-tokensource").exists());
}

/// PowerShell is not on the machines of the tests, so that its lines are only read.
#[test]
fn install_lines_for_windows_name_the_archives_of_a_release() {
    let folder = tempfile::tempdir().unwrap();
    let version = format!("v{}", env!("CARGO_PKG_VERSION"));
    let archive = folder.path().join(format!("kubectl-tokensource-{version}-windows-amd64.zip"));
    fs::write(&archive, "an archive").unwrap();
    let packed = Packed { archive, version };
    let sums = folder.path().join("all");
    fs::write(&sums, packed.sums()).unwrap();
    let (lines, urls) = (block("Windows"), urls(&sums));
    let value = |name: &str| {
        let line = lines.lines().find_map(|line| line.strip_prefix(&format!("${name} = "))).unwrap();
        line.trim_matches('"').to_owned()
    };
    assert_eq!(value("version"), packed.version);
    assert!(value("machine").contains("{ \"arm64\" } else { \"amd64\" }"), "{}", value("machine"));
    for machine in ["amd64", "arm64"] {
        let filled = |text: &str| text.replace("$version", &value("version")).replace("$machine", machine);
        let url = format!("{}/{}", filled(&value("release")), filled(&value("archive")));
        assert!(urls.contains(&url), "{url} is not of a release: {urls:#?}");
    }
}

#[test]
fn install_lines_name_files_that_the_workflow_makes() {
    let version = format!("v{}", env!("CARGO_PKG_VERSION"));
    let mut found = 0;
    for rest in PAGE.split(&format!("{RELEASES}/")).skip(1) {
        let url = rest.split(['\n', ' ', '"', '`']).next().unwrap();
        let (of, file) = url.split_once('/').unwrap_or((url, ""));
        assert!(of == version || of == "$version", "{url} is of another version than {version}");
        assert!(file.is_empty() || WORKFLOW.contains(&format!(">dist/{file}\n")), "{file}");
        found += 1;
    }
    assert!(found >= 4, "only {found} URLs of a release were found");
    // SHA256SUMS is made of all files in `dist`, where each platform's job packs its archive.
    assert!(WORKFLOW.contains("(cd dist && sha256sum -- * >SHA256SUMS)"));
    assert_eq!(WORKFLOW.matches("hack/plugin.py archive ").count(), 2);
    for platform in ["darwin-amd64", "darwin-arm64", "windows-amd64", "windows-arm64"] {
        assert!(WORKFLOW.contains(&format!("{{platform: {platform}, ")), "{platform}");
    }
    for architecture in ["amd64", "arm64"] {
        assert!(WORKFLOW.contains(&format!("{{architecture: {architecture}, ")), "linux-{architecture}");
    }
}
