//! What `docker build` copies: the files that `.dockerignore` leaves.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::process::{RUN_LIMIT, output_within, said};
use super::{ROOT, copy_file};

/// A line of `.dockerignore`. The last that matches decides.
struct Pattern<'a> {
    leaves: bool,
    place: Place<'a>,
}

enum Place<'a> {
    /// This path, and what is below it.
    Path(&'a str),
    /// What is in this folder.
    In(&'a str),
    /// This name, in each folder.
    Name(&'a str),
}

impl Pattern<'_> {
    fn matches(&self, path: &str) -> bool {
        let below = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        match self.place {
            Place::Path(wanted) => path == wanted || below(wanted),
            Place::In(folder) => below(folder),
            Place::Name(name) => path.split('/').any(|part| part == name),
        }
    }
}

fn patterns(text: &str) -> Vec<Pattern<'_>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (leaves, pattern) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
            let place = if let Some(name) = pattern.strip_prefix("**/") {
                Place::Name(name)
            } else if let Some(folder) = pattern.strip_suffix("/*") {
                Place::In(folder)
            } else {
                Place::Path(pattern)
            };
            let (Place::Path(plain) | Place::In(plain) | Place::Name(plain)) = place;
            let is_known = plain.chars().all(|it| it.is_alphanumeric() || "._-/".contains(it));
            assert!(is_known && !plain.ends_with('/'), "this test does not know the pattern {line}");
            Pattern { leaves, place }
        })
        .collect()
}

fn is_left(patterns: &[Pattern<'_>], path: &str) -> bool {
    patterns.iter().rev().find(|pattern| pattern.matches(path)).is_none_or(|pattern| pattern.leaves)
}

#[test]
fn files_that_docker_copies_are_a_complete_workspace() {
    let text = fs::read_to_string(Path::new(ROOT).join(".dockerignore")).unwrap();
    let patterns = patterns(&text);
    let mut list = Command::new("git");
    list.current_dir(ROOT).args(["ls-files", "-z"]);
    let listed = String::from_utf8(output_within(list, "", RUN_LIMIT).stdout).unwrap();
    let copy = tempfile::tempdir().unwrap();
    let mut copied = 0;
    for file in listed.split_terminator('\0').filter(|file| is_left(&patterns, file)) {
        copy_file(file, copy.path());
        copied += 1;
    }
    assert!(copied > 100, "{copied} files");
    for needed in ["Cargo.lock", "LICENSE", "hack/image.sh", "src/main.rs"] {
        assert!(copy.path().join(needed).exists(), "the build needs {needed}");
    }
    assert!(!copy.path().join("tests/release.rs").exists(), "a change of a test would compile all anew");
    let mut metadata = Command::new(env!("CARGO"));
    metadata.current_dir(copy.path()).args(["metadata", "--locked", "--offline", "--no-deps"]);
    metadata.args(["--format-version", "1"]);
    let output = output_within(metadata, "", RUN_LIMIT);
    assert!(output.status.success(), "{}", said(&output));
}
