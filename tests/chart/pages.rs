//! The values that pages of the documentation show.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::support::chart::{CHART, NAMESPACE, helm, template, template_with_tests};

/// The pages of `docs/`, and both READMEs.
fn pages() -> Vec<(PathBuf, String)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), PathBuf::from(CHART).join("README.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages.into_iter().map(|page| (page.clone(), std::fs::read_to_string(page).unwrap())).collect()
}

/// The code blocks of a language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn each_fragment_of_values_is_accepted_and_changes_what_is_rendered() {
    let plain = template_with_tests(&json!({}));
    let mut rendered = 0;
    for (page, text) in pages() {
        for block in
            blocks(&text, "yaml").into_iter().filter(|it| it.starts_with("# fragment of values.yaml"))
        {
            let values: Value = serde_saphyr::from_str(block).unwrap();
            if let Err(said) = template(NAMESPACE, &values) {
                panic!("{}: {said}\n{block}", page.display());
            }
            assert!(template_with_tests(&values) != plain, "{}: no effect: {block}", page.display());
            rendered += 1;
        }
    }
    assert!(rendered >= 6, "{rendered}");
}

#[test]
fn each_setting_of_a_helm_command_is_accepted() {
    let mut rendered = 0;
    for (page, text) in pages() {
        for block in blocks(&text, "bash") {
            for command in block.replace("\\\n", " ").lines().filter(|line| line.trim().starts_with("helm "))
            {
                let words: Vec<&str> = command.split('#').next().unwrap().split_whitespace().collect();
                let settings = words.windows(2).filter(|pair| pair[0].starts_with("--set"));
                let settings: Vec<String> =
                    settings.flatten().map(|word| word.trim_matches(['\'', '"']).to_owned()).collect();
                if settings.is_empty() {
                    continue;
                }
                let mut arguments = vec!["template", "a", CHART];
                arguments.extend(settings.iter().map(String::as_str));
                helm(None, &arguments, "")
                    .unwrap_or_else(|said| panic!("{}: {command}: {said}", page.display()));
                rendered += 1;
            }
        }
    }
    assert!(rendered >= 2, "{rendered}");
}
