//! The API server accepts every manifest in README.md and docs/, read from the page itself.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::support::control_plane::ControlPlane;
use super::support::definitions;
use super::support::scene::Scene;

const MINIMUM: usize = 10;

/// A yaml code block of a page, with its first line's number.
struct Sample {
    place: String,
    text: String,
}

impl Sample {
    /// The first line of a fragment says so; everything else can be applied as it is.
    fn is_fragment(&self) -> bool {
        self.text.trim_start().starts_with("# fragment")
    }
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "md") {
                pages.push(path);
            }
        }
    }
    pages.retain(|page| page.exists());
    pages.sort();
    pages
}

fn samples() -> Vec<Sample> {
    let mut samples = vec![];
    for page in pages() {
        let mut open: Option<Sample> = None;
        for (number, line) in fs::read_to_string(&page).unwrap().lines().enumerate() {
            let block = line.trim_start();
            match &mut open {
                None if block.starts_with("```yaml") || block.starts_with("```yml") => {
                    let place = format!("{}:{}", page.display(), number + 1);
                    open = Some(Sample { place, text: String::new() });
                }
                None => {}
                Some(_) if block.starts_with("```") => samples.extend(open.take()),
                Some(sample) => {
                    sample.text.push_str(line);
                    sample.text.push('\n');
                }
            }
        }
        assert!(open.is_none(), "{}: a code block is not closed", page.display());
    }
    samples
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_manifests_are_accepted() {
    let scene = Scene::bare("samples").await;
    // Pod templates that violate the restricted profile cause a warning.
    let strict = ["label", "namespace", &scene.namespace, "pod-security.kubernetes.io/warn=restricted"];
    scene.kubectl(&strict, "").await;
    definitions::install(ControlPlane::shared()).await;
    let samples = samples();
    let manifests: Vec<_> = samples.iter().filter(|sample| !sample.is_fragment()).collect();
    assert!(
        manifests.len() >= MINIMUM,
        "only {} manifests were found: has the format changed?",
        manifests.len()
    );
    for sample in manifests {
        let arguments = ["-n", &scene.namespace, "apply", "--dry-run=server", "-o", "name", "-f", "-"];
        let output = ControlPlane::shared().kubectl(&arguments, &sample.text).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{}: {said}\n{}", sample.place, sample.text);
    }
}

#[test]
fn documented_fragments_are_yaml_and_no_manifests() {
    for sample in samples().iter().filter(|sample| sample.is_fragment()) {
        let parsed: Value = serde_saphyr::from_str(&sample.text)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", sample.place, sample.text));
        let whole = parsed.get("apiVersion").is_some_and(|it| it == "tokensource.dev/v1alpha1")
            && parsed.pointer("/metadata/name").is_some();
        assert!(!whole, "{}: this is a manifest, not a fragment", sample.place);
    }
}
