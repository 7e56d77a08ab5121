//! The checker itself, on small sources.

use super::{api_callers, circles, imports_of, upward};
use crate::circles::Circle;
use crate::imports::{Imports, Sources};

fn parse(files: &[(&str, &str)]) -> Imports {
    let sources: Sources =
        files.iter().map(|(file, text)| (format!("src/{file}"), (*text).to_owned())).collect();
    imports_of("src", "library", &sources)
}

/// `file:line: path -> module`, of each import.
fn shown(files: &[(&str, &str)]) -> Vec<String> {
    let show =
        |it: crate::imports::Import| format!("{}:{}: {} -> {}", it.file, it.line, it.path, it.to.join("::"));
    parse(files).internal.into_iter().map(show).collect()
}

fn found(files: &[(&str, &str)]) -> Vec<(String, Vec<String>)> {
    let show = |it: Circle| (it.within.join("::"), it.parts.into_iter().collect());
    circles(&parse(files).internal).into_iter().map(show).collect()
}

fn circle(within: &str, parts: &[&str]) -> Vec<(String, Vec<String>)> {
    vec![(within.to_owned(), parts.iter().map(|part| (*part).to_owned()).collect())]
}

// ------------------------------------------------------------------------------------------------------------ imports

#[test]
fn use_declarations_and_inline_paths_are_imports() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        (
            "a.rs",
            "use crate::{b::{self, B}, c::C as Other};
             fn f() { crate::c::deep::g(); super::b::h(); b::i(); }
             fn g() { println!(\"{}\", crate::c::k(1)); }
             #[serde(default = \"none\", with(crate::b::with))]
             struct S<T: crate::c::Trait>(T);
             fn h() { use crate::b::Local; }",
        ),
        ("b.rs", ""),
        ("c.rs", "mod deep;"),
        ("c/deep.rs", ""),
    ];
    assert_eq!(
        shown(&files),
        [
            "src/a.rs:1: crate::b -> b",
            "src/a.rs:1: crate::b::B -> b",
            "src/a.rs:2: b::i -> b",
            "src/a.rs:2: super::b::h -> b",
            "src/a.rs:4: crate::b::with -> b",
            "src/a.rs:6: crate::b::Local -> b",
            "src/a.rs:1: crate::c::C -> c",
            "src/a.rs:3: crate::c::k -> c",
            "src/a.rs:5: crate::c::Trait -> c",
            "src/a.rs:2: crate::c::deep::g -> c::deep",
        ]
    );
}

#[test]
fn code_for_tests_only_is_ignored() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        (
            "a.rs",
            "#[cfg(test)] use crate::b::A;
             #[cfg(test)] mod tests { use crate::b::B; }
             #[cfg(all(test, unix))] mod more;
             #[cfg(test)] fn f() { crate::b::c(); }
             impl S { #[cfg(test)] fn f() { crate::b::c(); } }
             struct S { #[cfg(test)] d: crate::b::D }
             #[test] fn g() { crate::b::c(); }",
        ),
        ("b.rs", ""),
        ("a/more.rs", "use crate::b::E;"),
    ];
    assert_eq!(shown(&files), [""; 0]);
    let not = [files[0], ("a.rs", "#[cfg(not(test))] use crate::b::A;"), files[2]];
    assert_eq!(shown(&not), ["src/a.rs:1: crate::b::A -> b"]);
}

#[test]
fn re_export_is_followed_to_the_file_that_defines_the_name() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::X; fn f() { crate::b::glob(); }"),
        ("b/mod.rs", "mod x; mod y; pub use x::X; pub use y::*;"),
        ("b/x.rs", "pub struct X;"),
        ("b/y.rs", "pub fn glob() {}"),
    ];
    let imports = shown(&files);
    assert!(imports.contains(&"src/a.rs:1: crate::b::X -> b::x".to_owned()), "{imports:?}");
    assert!(imports.contains(&"src/a.rs:1: crate::b::glob -> b::y".to_owned()), "{imports:?}");
}

#[test]
fn re_export_alone_is_no_import_but_its_use_in_the_same_file_is() {
    let facade = [("lib.rs", "mod b;"), ("b/mod.rs", "mod x; pub use x::X;"), ("b/x.rs", "pub struct X;")];
    assert_eq!(shown(&facade), [""; 0]);
    let user = [facade[0], ("b/mod.rs", "mod x; pub use x::X;\npub fn f() -> X { X }"), facade[2]];
    assert_eq!(shown(&user), ["src/b/mod.rs:2: X -> b::x"]);
}

#[test]
fn variable_with_the_name_of_a_module_is_no_import() {
    let files = [("lib.rs", "mod b;"), ("b/mod.rs", "mod x; fn f(x: u8) -> u8 { x }"), ("b/x.rs", "")];
    assert_eq!(shown(&files), [""; 0]);
}

#[test]
fn inline_module_belongs_to_its_file() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "pub struct S; mod inner { use super::S; use crate::b::B; }"),
        ("b.rs", ""),
    ];
    assert_eq!(shown(&files), ["src/a.rs:1: crate::b::B -> b"]);
}

// ------------------------------------------------------------------------------------------------------------- layers

#[test]
fn upward_import_is_reported_with_its_file() {
    let files = [
        ("lib.rs", "mod controller; mod secret; mod time;"),
        ("controller.rs", "use crate::secret::Facts;"),
        ("secret.rs", "use crate::time::plus;\nuse crate::controller::run;"),
        ("time.rs", ""),
    ];
    let found: Vec<_> =
        upward(&parse(&files)).into_iter().map(|(it, to)| (it.file, it.line, it.path, to)).collect();
    let expected =
        ("src/secret.rs".to_owned(), 2, "crate::controller::run".to_owned(), "controller".to_owned());
    assert_eq!(found, [expected]);
}

#[test]
fn import_within_a_layer_is_upward() {
    let files = [
        ("lib.rs", "mod key; mod heartbeat;"),
        ("key.rs", "fn f() { crate::heartbeat::beat(); }"),
        ("heartbeat.rs", ""),
    ];
    assert_eq!(upward(&parse(&files)).len(), 1);
}

#[test]
fn program_may_import_what_commands_must_not() {
    let controller = ("controller.rs", "");
    let below = [("lib.rs", "mod commands; mod controller;"), ("commands.rs", ""), controller];
    let main = [("main.rs", "use library::controller::run;"), below[0], below[1], below[2]];
    assert_eq!(upward(&parse(&main)).len(), 0);
    let commands = [below[0], ("commands.rs", "use crate::controller::run;"), controller];
    assert_eq!(upward(&parse(&commands)).len(), 1);
}

// ------------------------------------------------------------------------------------------------------------ circles

#[test]
fn circle_of_two_files_is_reported() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B;"),
        ("b.rs", "use crate::a::A; use crate::c::C;"),
        ("c.rs", ""),
    ];
    assert_eq!(found(&files), circle("", &["a", "b"]));
    let circle = circles(&parse(&files).internal).remove(0);
    let steps: Vec<_> = circle.steps.iter().map(|it| (it.file.as_str(), it.path.as_str())).collect();
    assert_eq!(steps, [("src/a.rs", "crate::b::B"), ("src/b.rs", "crate::a::A")]);
}

#[test]
fn circle_of_folders_without_a_circle_of_files_is_reported() {
    let files = [
        ("lib.rs", "mod x;"),
        ("x/mod.rs", "mod a; mod b;"),
        ("x/a/mod.rs", "mod one; mod two;"),
        ("x/a/one.rs", "use super::super::b::three::T;"),
        ("x/a/two.rs", ""),
        ("x/b/mod.rs", "mod three; mod four;"),
        ("x/b/three.rs", ""),
        ("x/b/four.rs", "fn f() { crate::x::a::two::f(); }"),
    ];
    assert_eq!(found(&files), circle("x", &["a", "b"]));
}

#[test]
fn circle_of_a_module_and_its_child_is_reported() {
    let files = [
        ("lib.rs", "mod a;"),
        ("a.rs", "mod child; pub struct S; fn f() { child::g(); }"),
        ("a/child.rs", "use super::S;"),
    ];
    assert_eq!(found(&files), circle("a", &["child", "mod.rs"]));
}

#[test]
fn folder_whose_files_import_each_other_one_way_has_no_circle() {
    let files = [
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "mod run; mod state; pub use run::run;"),
        ("a/run/mod.rs", "mod step; use super::state::State; use step::step; pub fn run() {}"),
        ("a/run/step.rs", "use crate::a::state::State;"),
        ("a/state.rs", "pub struct State;"),
    ];
    assert_eq!(found(&files), []);
}

// ---------------------------------------------------------------------------------------------------------- kube::Api

#[test]
fn kube_api_is_found_under_any_name() {
    for text in [
        "use kube::Api;",
        "use kube::{Client, api::{Api, ListParams}};",
        "use kube::Api as Calls;",
        "fn f(it: kube::Api<Secret>) {}",
        "use kube as k; fn f() { k::Api::<Secret>::all(c); }",
        "fn f() { vec![kube::Api::all(c)]; }",
    ] {
        assert!(!api_callers(&parse(&[("lib.rs", text)])).is_empty(), "{text}");
    }
    for text in [
        "use kube::Client;",
        "fn f() { matches!(it, kube::Error::Api(_)); }",
        "use other::Api;",
        "struct Api; fn f(it: Api) {}",
    ] {
        assert!(api_callers(&parse(&[("lib.rs", text)])).is_empty(), "{text}");
    }
}
