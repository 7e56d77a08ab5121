//! What the release workflow's script checks and pins, and what a build of the image gets.
#![cfg(unix)] // scripts
#![cfg(test)] // so that clippy lets helpers panic, too

#[path = "release/image_context.rs"]
mod image_context;
#[path = "release/install_lines.rs"]
mod install_lines;
#[path = "support/process.rs"]
mod process;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use process::{BUILD_LIMIT, RUN_LIMIT, output_within, said};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const DIGEST: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

const BUNDLE: &str = "deploy/olm/manifests/tokensource-operator.clusterserviceversion.yaml";

const PLUGIN_PAGE: &str = "docs/kubectl-plugin.md";

/// A copy of the files that the script pins, in a repository whose `main` has one commit.
fn copy() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in [
        "hack/release.sh",
        "charts/tokensource-operator/values.yaml",
        "deploy/install.yaml",
        "deploy/base/operator.yaml",
        BUNDLE,
    ] {
        copy_file(file, copy.path());
    }
    git(copy.path(), &["init", "--quiet", "--initial-branch", "main"]);
    commit(copy.path());
    git(copy.path(), &["update-ref", "refs/remotes/origin/main", "HEAD"]);
    copy
}

/// Copies a file of the project to the same place in a folder.
fn copy_file(file: &str, folder: &Path) {
    let to = folder.join(file);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(Path::new(ROOT).join(file), to).unwrap_or_else(|error| panic!("{file}: {error}"));
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
fn release_with_a_version_that_a_file_lacks_is_refused() {
    let copy = copy();
    let version = env!("CARGO_PKG_VERSION");
    let changes = format!("## [{version}] - 2026-12-01\n\n- A change.\n");
    for file in ["Cargo.toml", "charts/tokensource-operator/Chart.yaml", PLUGIN_PAGE] {
        copy_file(file, copy.path());
    }
    fs::write(copy.path().join("CHANGELOG.md"), changes).unwrap();
    let check = || release(copy.path(), &["check", &format!("v{version}")], "");
    let first = check();
    assert!(first.status.success(), "{}", said(&first));

    // Each place by itself.
    let page = fs::read_to_string(copy.path().join(PLUGIN_PAGE)).unwrap();
    let places: Vec<_> = page.match_indices(&format!("v{version}")).map(|(at, _)| at).collect();
    assert!(places.len() > 3, "{places:?}");
    for at in places {
        let other = format!("{}v9.9.9{}", &page[..at], &page[at + version.len() + 1..]);
        fs::write(copy.path().join(PLUGIN_PAGE), other).unwrap();
        let refused = check();
        assert!(!refused.status.success() && said(&refused).contains(PLUGIN_PAGE), "{}", said(&refused));
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
    for name in ["sbom", "build", "plugin"] {
        assert!(job(&workflow, name).contains("    needs: check\n"), "{name}");
    }
    assert!(job(&workflow, "publish").contains("    needs: [sbom, build, plugin]\n"));
    let (sbom, plugin) = (job(&workflow, "sbom"), job(&workflow, "plugin"));
    assert!(sbom.contains("make sbom") && !sbom.contains(": write"), "{sbom}");
    assert!(plugin.contains("cargo build --release") && !plugin.contains(": write"), "{plugin}");
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

/// Runs `hack/plugin.py`; returns its stdout.
fn plugin(arguments: &[&str]) -> String {
    let mut command = Command::new(Path::new(ROOT).join("hack/plugin.py"));
    command.args(arguments).env("SOURCE_DATE_EPOCH", "1");
    let output = output_within(command, "", RUN_LIMIT);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn sha256(path: &Path) -> String {
    let mut command = Command::new("python3");
    command.args([
        "-c",
        "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())",
    ]);
    command.arg(path);
    String::from_utf8(output_within(command, "", RUN_LIMIT).stdout).unwrap().trim().to_owned()
}

/// The archive of this platform.
struct Packed {
    archive: PathBuf,
    /// Of the archive's name, such as `v1.2.3`.
    version: String,
}

fn packed(folder: &Path) -> Packed {
    let binary = env!("CARGO_BIN_EXE_tokensource-operator");
    let archive = PathBuf::from(plugin(&["archive", binary, &folder.display().to_string()]).trim());
    let name = archive.file_name().unwrap().to_str().unwrap();
    let version = name.strip_prefix("kubectl-tokensource-").unwrap().split_once('-').unwrap().0.to_owned();
    Packed { archive, version }
}

impl Packed {
    /// The name of a platform's archive.
    fn name(&self, platform: &str) -> String {
        let kind = if platform.starts_with("windows") { "zip" } else { "tar.gz" };
        format!("kubectl-tokensource-{}-{platform}.{kind}", self.version)
    }

    /// The checksums of all archives, of which those of the other platforms are made on their machines.
    fn sums(&self) -> String {
        let own = self.archive.file_name().unwrap().to_str().unwrap();
        let mut sums = format!("{}  {own}\n", sha256(&self.archive));
        for platform in
            ["linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64", "windows-amd64", "windows-arm64"]
        {
            if self.name(platform) != own {
                sums += &format!("{}  {}\n", "0".repeat(64), self.name(platform));
            }
        }
        sums
    }
}

#[test]
fn archive_of_the_plugin_is_installed_by_krew_and_has_completions_and_man_pages() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let packed = packed(folder);
    let (archive, version, sums) = (packed.archive.as_path(), packed.version.as_str(), packed.sums());
    let file = |name: &str| folder.join(name).display().to_string();
    fs::write(file("SHA256SUMS"), &sums).unwrap();
    let manifest = plugin(&["krew", &file("SHA256SUMS")]);
    fs::write(file("tokensource.yaml"), &manifest).unwrap();
    let tools = output_within(tools("krew"), "", BUILD_LIMIT);
    let tools = PathBuf::from(String::from_utf8(tools.stdout).unwrap().trim());
    let mut validate = Command::new(tools.join("validate-krew-manifest"));
    validate.args(["-manifest", &file("tokensource.yaml"), "-skip-install"]);
    let output = output_within(validate, "", RUN_LIMIT);
    assert!(output.status.success(), "{}", said(&output));
    let mut install = Command::new(tools.join("krew"));
    install.args(["install", "--manifest", &file("tokensource.yaml"), "--archive"]).arg(archive);
    install.env("KREW_ROOT", folder.join("root")).env("KREW_NO_UPGRADE_CHECK", "1");
    let output = output_within(install, "", RUN_LIMIT);
    assert!(output.status.success(), "{}", said(&output));

    let output = output_within(version_of(&folder.join("root/bin/kubectl-tokensource")), "", RUN_LIMIT);
    assert_eq!(said(&output).trim(), format!("kubectl-tokensource {}", version.trim_start_matches('v')));
    let installed = folder.join("root/store/tokensource").join(version);
    for (path, words) in [
        ("LICENSE", "Apache License"),
        ("completions/kubectl-tokensource.bash", "complete -o nospace"),
        ("completions/_kubectl-tokensource", "#compdef kubectl-tokensource"),
        ("completions/kubectl-tokensource.fish", "--command kubectl-tokensource"),
        ("completions/kubectl-tokensource.ps1", "-CommandName kubectl-tokensource"),
        ("man/kubectl-tokensource.1", "kubectl\\-tokensource\\-get(1)"),
        ("man/kubectl-tokensource-get.1", "List TokenSources by urgency"),
    ] {
        let text = fs::read_to_string(installed.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(text.contains(words), "{path}: {text}");
    }
    let formula = plugin(&["formula", &file("SHA256SUMS")]);
    for platform in ["darwin-amd64", "darwin-arm64", "linux-amd64", "linux-arm64"] {
        let url = format!("/releases/download/{version}/kubectl-tokensource-{version}-{platform}.tar.gz\"\n");
        assert!(formula.contains(&url), "{url}: {formula}");
    }
    assert!(formula.contains(&sha256(archive)), "{formula}");
    // A platform without an archive.
    fs::write(file("SHA256SUMS"), sums.lines().next().unwrap()).unwrap();
    let mut incomplete = Command::new(Path::new(ROOT).join("hack/plugin.py"));
    incomplete.args(["formula", &file("SHA256SUMS")]);
    let output = output_within(incomplete, "", RUN_LIMIT);
    assert!(!output.status.success() && said(&output).contains("has no checksum of"), "{}", said(&output));
}

fn tools(module: &str) -> Command {
    let mut command = Command::new(Path::new(ROOT).join("hack/tools.sh"));
    command.arg(module);
    command
}

fn version_of(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--version");
    command
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

/// The name by which a test is run: its modules in front, and not its binary or crate.
fn test_path(file: &Path, name: &str) -> String {
    let file = file.strip_prefix(ROOT).unwrap().with_extension("");
    let folders: Vec<_> = file.iter().map(|it| it.to_str().unwrap()).collect();
    let modules = match &folders[..] {
        ["src", modules @ ..] | ["crates", _, "src", modules @ ..] | ["tests", _, modules @ ..] => modules,
        other => panic!("tests in {other:?}"),
    };
    let modules = modules.iter().copied().filter(|it| !["main", "mod", "lib"].contains(it));
    modules.chain([name]).collect::<Vec<_>>().join("::")
}

#[test]
fn nightly_workflow_runs_every_long_test() {
    let workflow = fs::read_to_string(Path::new(ROOT).join(".github/workflows/nightly.yml")).unwrap();
    let parts = workflow.lines().find_map(|line| line.trim().strip_prefix("part: [")).unwrap();
    let parts: Vec<_> = parts.trim_end_matches(']').split(", ").collect();
    let makefile = fs::read_to_string(Path::new(ROOT).join("Makefile")).unwrap();
    let target = makefile.split("\ntest-long:").nth(1).unwrap().split("\n\n").next().unwrap();
    let skipped = target.split("--skip ").nth(1).unwrap().split(' ').next().unwrap();
    let mut files = Vec::new();
    for folder in ["tests", "src", "crates"] {
        sources(&Path::new(ROOT).join(folder), &mut files);
    }
    let mut long = 0;
    for file in files.iter().filter(|file| !file.ends_with("tests/release.rs")) {
        let text = fs::read_to_string(file).unwrap();
        for rest in text.split("#[ignore = ").skip(1) {
            let name = rest.split_once("fn ").unwrap().1.split_once('(').unwrap().0;
            if rest.starts_with("\"make pictures\"") {
                assert!(name.contains(skipped), "make test-long runs {name}");
                continue;
            }
            let path = test_path(file, name);
            assert!(parts.iter().any(|part| path.contains(part)), "no part of {parts:?} runs {path}");
            long += 1;
        }
    }
    assert!(long > 10, "{long} long tests were found");
    assert!(job(&workflow, "pictures").contains("make pictures"));
}

#[test]
fn nightly_workflow_runs_every_version_of_keycloak() {
    let read = |path: &str| fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
    let script = read("hack/keycloak.sh");
    let known: Vec<_> = script.lines().filter_map(|line| line.trim().split_once(") want=")).collect();
    let default = script.split("version=${KEYCLOAK:-").nth(1).unwrap().split('}').next().unwrap();
    assert!(known.len() > 1 && known.iter().any(|(version, _)| *version == default), "{known:?}");
    let workflow = read(".github/workflows/nightly.yml");
    let job = job(&workflow, "keycloak");
    assert!(job.contains("make test PART=keycloak"));
    for (version, _) in known {
        let version = if version == default { "" } else { version };
        assert!(job.contains(&format!("\"{version}\"")), "{version}");
    }
}
