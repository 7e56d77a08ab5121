//! The tests wait for processes by `tests/support/process.rs` only, where each wait has a limit.

use syn::visit::{self, Visit};

/// Methods of processes and channels that return only when the other side does something.
const UNLIMITED: [&str; 4] = ["wait", "wait_with_output", "output", "recv"];

/// The file that may call them.
const ALLOWED: &str = "tests/support/process.rs";

struct Calls {
    file: String,
    found: Vec<String>,
}

impl<'ast> Visit<'ast> for Calls {
    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let method = call.method.to_string();
        if call.args.is_empty() && UNLIMITED.contains(&method.as_str()) {
            self.found.push(format!("{}:{}: .{method}()", self.file, call.method.span().start().line));
        }
        visit::visit_expr_method_call(self, call);
    }
}

#[test]
fn tests_wait_for_no_process_without_a_limit() {
    let mut wrong = Vec::new();
    for (file, text) in super::read("tests") {
        if file == ALLOWED {
            continue;
        }
        let mut calls = Calls { file, found: Vec::new() };
        calls.visit_file(&syn::parse_file(&text).unwrap());
        wrong.extend(calls.found);
    }
    assert!(
        wrong.is_empty(),
        "use tests/support/process.rs, whose waits have a limit:\n{}",
        wrong.join("\n")
    );
}
