#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The permitted subset of the template language. The operator runs templates of every user who may create a TokenSource,
//! so loops, variables, lists and calls are refused. Time and output are then bounded by the size of the template, and
//! rendering never has to be interrupted.

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};
use minijinja::machinery::{Token, WhitespaceConfig, parse, tokenize};
use minijinja::syntax::SyntaxConfig;

/// The variables of templates, besides `values`.
const NAMES: [&str; 6] =
    ["access_token", "token_type", "expires_at", "expires_at_unix", "issued_at", "scope"];
pub(super) const FILTERS: [&str; 9] =
    ["b64encode", "tojson", "urlencode", "default", "lower", "upper", "trim", "replace", "int"];
pub(super) const TESTS: [&str; 10] =
    ["defined", "undefined", "startingwith", "endingwith", "eq", "ne", "lt", "le", "gt", "ge"];

/// The deepest nesting of expressions and conditions.
const MAX_DEPTH: usize = 64;

/// A syntax problem and its line.
#[derive(Debug)]
pub(super) struct SyntaxProblem {
    pub(super) line: usize,
    pub(super) text: String,
}

/// Keeps trailing newlines, because a YAML block scalar (`|`) includes one on purpose.
pub(super) fn whitespace() -> WhitespaceConfig {
    WhitespaceConfig { keep_trailing_newline: true, ..WhitespaceConfig::default() }
}

/// Counts the tokens of the template language in a template, up to one more than `max`. A template with more must not be
/// parsed, because its nesting could overflow the stack.
pub(super) fn count_tokens(source: &str, max: usize) -> usize {
    tokenize(source, false, SyntaxConfig, whitespace())
        .take_while(Result::is_ok)
        .filter(|token| !matches!(token, Ok((Token::TemplateData(_), _))))
        .take(max.saturating_add(1))
        .count()
}

/// Checks a template. `values` are the names in `response.values`.
pub(super) fn check(source: &str, values: &[&str]) -> Result<(), SyntaxProblem> {
    let parsed = parse(source, "", SyntaxConfig, whitespace()).map_err(|error| SyntaxProblem {
        line: error.line().unwrap_or(1),
        text: "this is not in Jinja's syntax: is a brace, a quote or an endif missing?".to_owned(),
    })?;
    let Stmt::Template(template) = &parsed else { return Ok(()) };
    Checker { values }.statements(&template.children, 0)
}

struct Checker<'a> {
    values: &'a [&'a str],
}

impl Checker<'_> {
    fn statements(&self, statements: &[Stmt<'_>], depth: usize) -> Result<(), SyntaxProblem> {
        statements.iter().try_for_each(|statement| self.statement(statement, depth))
    }

    fn statement(&self, statement: &Stmt<'_>, depth: usize) -> Result<(), SyntaxProblem> {
        let refused =
            |line: u16| problem(line, "templates have expressions and {% if %}, and no other statements");
        match statement {
            Stmt::EmitRaw(_) => Ok(()),
            Stmt::EmitExpr(emit) => self.expression(&emit.expr, depth),
            Stmt::IfCond(condition) => {
                check_depth(depth, condition.span().start_line)?;
                self.expression(&condition.expr, depth)?;
                self.statements(&condition.true_body, depth + 1)?;
                self.statements(&condition.false_body, depth + 1)
            }
            Stmt::Template(it) => refused(it.span().start_line),
            Stmt::ForLoop(it) => refused(it.span().start_line),
            Stmt::WithBlock(it) => refused(it.span().start_line),
            Stmt::Set(it) => refused(it.span().start_line),
            Stmt::SetBlock(it) => refused(it.span().start_line),
            Stmt::AutoEscape(it) => refused(it.span().start_line),
            Stmt::FilterBlock(it) => refused(it.span().start_line),
            Stmt::Do(it) => refused(it.span().start_line),
        }
    }

    fn expression(&self, expression: &Expr<'_>, depth: usize) -> Result<(), SyntaxProblem> {
        let line = expression.span().start_line;
        check_depth(depth, line)?;
        let deeper = |expression: &Expr<'_>| self.expression(expression, depth + 1);
        match expression {
            Expr::Const(_) => Ok(()),
            Expr::Var(name) => check_name(name.id, line),
            Expr::GetAttr(attribute) => self.attribute(&attribute.expr, attribute.name, line),
            Expr::UnaryOp(operation) => deeper(&operation.expr),
            Expr::BinOp(operation) => {
                let (left, right) = (&operation.left, &operation.right);
                match operation.op {
                    BinOpKind::Mul if !is_number(left) || !is_number(right) => {
                        return problem(line, "only numbers can be multiplied");
                    }
                    BinOpKind::Pow => return problem(line, "there is no operator **"),
                    _ => {}
                }
                deeper(left).and_then(|()| deeper(right))
            }
            Expr::Compare(compare) => {
                deeper(&compare.expr)?;
                compare.ops.iter().try_for_each(|operand| deeper(&operand.expr))
            }
            Expr::IfExpr(choice) => {
                deeper(&choice.test_expr)?;
                deeper(&choice.true_expr)?;
                choice.false_expr.as_ref().map_or(Ok(()), deeper)
            }
            Expr::Filter(filter) => {
                check_known("filter", filter.name, &FILTERS, line)?;
                filter.expr.as_ref().map_or(Ok(()), deeper)?;
                arguments(&filter.args, line, deeper)
            }
            Expr::Test(test) => {
                check_known("test", test.name, &TESTS, line)?;
                deeper(&test.expr)?;
                arguments(&test.args, line, deeper)
            }
            Expr::Slice(_) | Expr::GetItem(_) | Expr::Call(_) | Expr::List(_) | Expr::Map(_) => problem(
                line,
                "templates have no functions, lists and subscripts; a value is {{ values.NAME }}",
            ),
        }
    }

    fn attribute(&self, of: &Expr<'_>, name: &str, line: u16) -> Result<(), SyntaxProblem> {
        match of {
            Expr::Var(variable) if variable.id == "values" => {
                if self.values.contains(&name) {
                    return Ok(());
                }
                let known = self.values.join(", ");
                let known = if known.is_empty() { "nothing".to_owned() } else { known };
                problem(
                    line,
                    &format!(
                        "values.{} is not defined: spec.provider.oauth2.response.values names {known}",
                        shown(name)
                    ),
                )
            }
            _ => problem(line, &format!("there is no {} of that; only values has members", shown(name))),
        }
    }
}

/// Whether an expression is a number for every token.
fn is_number(expression: &Expr<'_>) -> bool {
    match expression {
        Expr::Const(constant) => constant.value.is_number(),
        Expr::Var(name) => name.id == "expires_at_unix",
        Expr::UnaryOp(operation) => is_number(&operation.expr),
        Expr::BinOp(operation) => is_number(&operation.left) && is_number(&operation.right),
        Expr::Filter(filter) => filter.name == "int",
        _ => false,
    }
}

fn check_name(name: &str, line: u16) -> Result<(), SyntaxProblem> {
    match name {
        "values" => problem(line, "write {{ values.NAME }}"),
        _ => check_known("name", name, &NAMES, line),
    }
}

fn check_known(what: &str, name: &str, known: &[&str], line: u16) -> Result<(), SyntaxProblem> {
    if known.contains(&name) {
        return Ok(());
    }
    problem(line, &format!("the {what} {} is not defined; there are {}", shown(name), known.join(", ")))
}

fn check_depth(depth: usize, line: u16) -> Result<(), SyntaxProblem> {
    if depth < MAX_DEPTH { Ok(()) } else { problem(line, "this is nested too deep") }
}

fn arguments(
    arguments: &[CallArg<'_>],
    line: u16,
    check: impl Fn(&Expr<'_>) -> Result<(), SyntaxProblem>,
) -> Result<(), SyntaxProblem> {
    arguments.iter().try_for_each(|argument| match argument {
        CallArg::Pos(expression) => check(expression),
        _ => problem(line, "filters and tests take plain arguments alone"),
    })
}

/// A name from the template, shortened. It is no secret: it comes from the spec.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

fn problem(line: u16, text: &str) -> Result<(), SyntaxProblem> {
    Err(SyntaxProblem { line: usize::from(line).max(1), text: text.to_owned() })
}
