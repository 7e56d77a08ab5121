#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Renders `spec.target.template` with a token into the content of the target Secret.
//!
//! A template is checked, and rendered once with placeholders, before a token is requested. Messages name the key, the
//! line and the remedy. They never contain the engine's own message, which may quote a secret value.

mod grammar;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context, filters, tests as jinja};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};

use tokensource_api as api;
use tokensource_api::permitted::{
    ALLOWED_TYPES, DEFAULT_TYPE, is_permitted_type, refused_metadata, type_violation,
};

/// The data keys of a target Secret without a template.
pub const DEFAULT_KEYS: [&str; 3] = ["access_token", "token_type", "expires_at"];

/// The most bytes of all keys of a Secret together: the limit of Kubernetes.
const MAX_SECRET_BYTES: usize = 1024 * 1024;
/// The most bytes of a token in a template. Servers refuse headers of a quarter of this length.
const MAX_TOKEN_BYTES: usize = 32 * 1024;
/// The most bytes of a filter's result.
const MAX_FILTER_BYTES: usize = 256 * 1024;
/// The most bytes that all filters of all keys take and make together. `~` joins at most as many results as fit into this, and
/// 64 variables (the nesting is bounded).
const MAX_WORK_BYTES: usize = 2 * 1024 * 1024;
/// The most characters that `trim` takes off.
const MAX_TRIMMED: usize = 64;
/// The most bytes of the template of one key.
const MAX_TEMPLATE_BYTES: usize = 16 * 1024;
/// The most tokens of the template language, in all keys together.
const MAX_TEMPLATE_TOKENS: usize = 512;
/// The most instructions for one key. Templates that the grammar permits take fewer: this is a second safeguard.
const MAX_INSTRUCTIONS: u64 = 4096;
/// The characters that `urlencode` escapes: all except the unreserved ones of RFC 3986, section 2.3.
const URL_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A problem of a template: its place in the spec, and the remedy. Contains no secret value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct TemplateError {
    place: String,
    problem: String,
}

impl TemplateError {
    fn new(field: &str, problem: impl Into<String>) -> Self {
        TemplateError { place: format!("spec.target.template{field}"), problem: problem.into() }
    }

    fn key(key: &str, line: Option<usize>, problem: impl Into<String>) -> Self {
        let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
        TemplateError::new(&format!(".data, key {key}{line}"), problem)
    }
}

/// A template that has been checked. Rendering fails only for values that do not fit it.
#[derive(Debug)]
pub struct Template<'a> {
    kind: &'a str,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    /// `None`: the three default keys.
    data: Option<&'a BTreeMap<String, String>>,
}

/// The variables with which a template is rendered.
pub struct Token<'a> {
    /// The access token.
    pub access_token: &'a SecretString,
    /// The token type, usually Bearer.
    pub token_type: &'a str,
    /// When it was requested.
    pub issued_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// The granted scope, or the requested one where the response has none.
    pub scope: Cow<'a, str>,
    /// The members of `response.values` that the response has.
    pub values: &'a BTreeMap<String, SecretString>,
}

/// The content of a target Secret.
pub struct Rendered {
    /// The Secret's type.
    pub kind: String,
    /// Labels, in addition to the operator's own.
    pub labels: BTreeMap<String, String>,
    /// Annotations, in addition to the operator's own.
    pub annotations: BTreeMap<String, String>,
    /// Values by key.
    pub data: BTreeMap<String, SecretString>,
}

impl<'a> Template<'a> {
    /// Checks a template, and renders it once with placeholders. `values` are the names in `response.values`.
    ///
    /// # Errors
    /// The template would fail with every token.
    pub fn of(spec: Option<&'a api::Template>, values: &[&str]) -> Result<Self, TemplateError> {
        let kind = spec.and_then(|spec| spec.kind.as_deref()).unwrap_or(DEFAULT_TYPE);
        let metadata = spec.and_then(|spec| spec.metadata.clone()).unwrap_or_default();
        let template = Template {
            kind,
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            data: spec.and_then(|spec| spec.data.as_ref()),
        };
        if spec.is_some() {
            template.check(values)?;
            template.rehearse(values)?;
        }
        Ok(template)
    }

    /// The template, if it sets only these labels and annotations; none given: any.
    ///
    /// # Errors
    /// It sets another one.
    pub fn limited_to(self, only: &[String]) -> Result<Self, TemplateError> {
        let is_refused = |key: &&String| !only.is_empty() && !only.contains(key);
        let refused = |field, keys: &BTreeMap<String, String>| {
            keys.keys().find(is_refused).map(|key| {
                TemplateError::new(
                    &format!(".metadata.{field}"),
                    format!("{key} is not among the keys that the platform permits: remove it, or have the platform add it to --template-metadata-only"),
                )
            })
        };
        let error = refused("labels", &self.labels).or_else(|| refused("annotations", &self.annotations));
        error.map_or(Ok(self), Err)
    }

    fn check(&self, values: &[&str]) -> Result<(), TemplateError> {
        if !is_permitted_type(self.kind) {
            let allowed = ALLOWED_TYPES.join(", ");
            return Err(TemplateError::new(
                ".type",
                format!("{} is refused: write one of {allowed}, or a type of your own", self.kind),
            ));
        }
        if let Some((field, key)) = refused_metadata(&self.labels, &self.annotations) {
            return Err(TemplateError::new(
                &format!(".metadata.{field}"),
                format!("{key} means something to the cluster or to its tools, and cannot be set: remove it"),
            ));
        }
        let mut tokens = MAX_TEMPLATE_TOKENS;
        for (key, source) in self.data.into_iter().flatten() {
            if source.len() > MAX_TEMPLATE_BYTES {
                return Err(TemplateError::key(
                    key,
                    None,
                    format!("a template may have at most {MAX_TEMPLATE_BYTES} bytes"),
                ));
            }
            let left = tokens.checked_sub(grammar::count_tokens(source, tokens));
            tokens = left.ok_or_else(|| {
                TemplateError::key(key, None, format!("all templates together may have at most {MAX_TEMPLATE_TOKENS} words and signs inside of braces"))
            })?;
            grammar::check(source, values)
                .map_err(|problem| TemplateError::key(key, Some(problem.line), problem.text))?;
        }
        Ok(())
    }

    /// Renders with placeholders. An error that occurs here would occur with a token too.
    fn rehearse(&self, values: &[&str]) -> Result<(), TemplateError> {
        self.render(&Token {
            access_token: &"rehearsal".into(),
            token_type: "Bearer",
            issued_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::UNIX_EPOCH,
            scope: "".into(),
            // Valid as a string and as a number, because the type of the value is not known yet.
            values: &values.iter().map(|name| ((*name).to_owned(), "1".into())).collect(),
        })
        .map(drop)
    }

    /// Renders the content of the Secret.
    ///
    /// # Errors
    /// A value is missing, or the result does not fit the Secret's type or is too large.
    pub fn render(&self, token: &Token<'_>) -> Result<Rendered, TemplateError> {
        let data = match self.data {
            None => [
                ("access_token", token.access_token.clone()),
                ("token_type", token.token_type.into()),
                ("expires_at", token.expires_at.to_string().into()),
            ]
            .map(|(key, value)| (key.to_owned(), value))
            .into(),
            Some(templates) => render_all(templates, token)?,
        };
        let text = |key: &str| data.get(key).map(ExposeSecret::expose_secret);
        if let Some((key, problem)) = type_violation(self.kind, text) {
            return Err(TemplateError::key(key, None, problem));
        }
        Ok(Rendered {
            kind: self.kind.to_owned(),
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            data,
        })
    }
}

fn render_all(
    templates: &BTreeMap<String, String>,
    token: &Token<'_>,
) -> Result<BTreeMap<String, SecretString>, TemplateError> {
    let length = token.access_token.expose_secret().len();
    if length > MAX_TOKEN_BYTES {
        return Err(TemplateError::new(
            ".data",
            format!(
                "the token has {length} bytes, and a template takes at most {MAX_TOKEN_BYTES}: remove the template"
            ),
        ));
    }
    let environment = environment();
    let values = token.values.iter().map(|(name, value)| (name.as_str(), Value::from(value.expose_secret())));
    let names = context! {
        access_token => token.access_token.expose_secret(),
        token_type => token.token_type,
        expires_at => token.expires_at.to_string(),
        expires_at_unix => token.expires_at.as_second(),
        issued_at => token.issued_at.to_string(),
        scope => &token.scope,
        values => values.collect::<Value>(),
    };
    let mut left = MAX_SECRET_BYTES;
    let mut data = BTreeMap::new();
    for (key, source) in templates {
        let text = render(&environment, source, &names, left)
            .map_err(|error| TemplateError::key(key, error.line(), message(&error)))?;
        left = left.saturating_sub(text.len());
        data.insert(key.clone(), text.into());
    }
    Ok(data)
}

fn render(
    environment: &Environment<'_>,
    source: &str,
    names: &Value,
    max_bytes: usize,
) -> Result<String, Error> {
    let mut output = BoundedWriter { text: vec![], max_bytes };
    environment.template_from_str(source)?.render_captured_to(names, &mut output)?;
    String::from_utf8(output.text).map_err(|_| Error::from(ErrorKind::BadSerialization))
}

/// The engine with the permitted filters and tests: those of [`grammar::FILTERS`] and [`grammar::TESTS`].
fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_keep_trailing_newline(true);
    environment.set_fuel(Some(MAX_INSTRUCTIONS));
    let work = Work(Arc::new(AtomicUsize::new(MAX_WORK_BYTES)));
    let spend = work.clone();
    environment.add_filter("b64encode", move |text: Cow<'_, str>| {
        spend.filter(text.len(), text.len().div_ceil(3) * 4)?;
        Ok(STANDARD.encode(&*text))
    });
    let spend = work.clone();
    environment.add_filter("tojson", move |value: Value| to_json(&value, &spend));
    let spend = work.clone();
    environment.add_filter("urlencode", move |text: Cow<'_, str>| {
        let encoded = || utf8_percent_encode(&text, URL_ESCAPED);
        spend.filter(text.len(), encoded().map(str::len).sum())?;
        Ok(encoded().to_string())
    });
    let spend = work.clone();
    environment.add_filter("lower", move |text: Cow<'_, str>| {
        spend.filter(text.len(), in_another_case(&text))?;
        Ok(text.to_lowercase())
    });
    let spend = work.clone();
    environment.add_filter("upper", move |text: Cow<'_, str>| {
        spend.filter(text.len(), in_another_case(&text))?;
        Ok(text.to_uppercase())
    });
    let spend = work.clone();
    environment.add_filter("trim", move |text: Cow<'_, str>, characters: Option<Cow<'_, str>>| {
        spend.filter(text.len(), text.len())?;
        let characters = characters.map(|all| all.chars().take(MAX_TRIMMED + 1).collect::<Vec<char>>());
        match characters {
            // Each character of the text is compared with each of these.
            Some(many) if many.len() > MAX_TRIMMED => Err(Error::from(ErrorKind::InvalidOperation)),
            Some(characters) => Ok(text.trim_matches(&*characters).to_owned()),
            None => Ok(text.trim().to_owned()),
        }
    });
    environment.add_filter("replace", move |text: Cow<'_, str>, from: Cow<'_, str>, to: Cow<'_, str>| {
        replace(&text, &from, &to, &work)
    });
    environment.add_filter("default", filters::default);
    environment.add_filter("int", filters::int);
    environment.add_test("defined", jinja::is_defined);
    environment.add_test("undefined", jinja::is_undefined);
    environment.add_test("startingwith", jinja::is_startingwith);
    environment.add_test("endingwith", jinja::is_endingwith);
    environment.add_test("eq", jinja::is_eq);
    environment.add_test("ne", jinja::is_ne);
    environment.add_test("lt", jinja::is_lt);
    environment.add_test("le", jinja::is_le);
    environment.add_test("gt", jinja::is_gt);
    environment.add_test("ge", jinja::is_ge);
    environment
}

/// What the filters of a template may still take and make, in bytes. It is spent before a text is made.
#[derive(Clone)]
struct Work(Arc<AtomicUsize>);

/// The most bytes of a text in another case: one character may become three.
fn in_another_case(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.len().saturating_mul(3) }
}

impl Work {
    fn filter(&self, takes: usize, makes: usize) -> Result<(), Error> {
        let spend =
            |left: usize| left.checked_sub(takes.saturating_add(makes)).filter(|_| makes <= MAX_FILTER_BYTES);
        let spent = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
        spent.map(drop).map_err(|_| Error::from(ErrorKind::WriteFailure))
    }
}

fn to_json(value: &Value, work: &Work) -> Result<String, Error> {
    if matches!(value.kind(), ValueKind::Undefined) {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let mut output = BoundedWriter { text: vec![], max_bytes: MAX_FILTER_BYTES };
    serde_json::to_writer(&mut output, value).map_err(|_| Error::from(ErrorKind::WriteFailure))?;
    work.filter(value.as_str().map_or(0, str::len), output.text.len())?;
    String::from_utf8(output.text).map_err(|_| Error::from(ErrorKind::BadSerialization))
}

fn replace(text: &str, from: &str, to: &str, work: &Work) -> Result<String, Error> {
    if from.is_empty() {
        return Err(Error::from(ErrorKind::InvalidOperation));
    }
    let count = text.matches(from).count();
    let makes = (text.len() - count * from.len()).saturating_add(count.saturating_mul(to.len()));
    work.filter(text.len(), makes)?;
    Ok(text.replace(from, to))
}

/// A message for an error of the engine, whose own message may quote a secret value.
fn message(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::UndefinedError => {
            "a value is not defined, because the endpoint's answer does not have it: write {{ values.NAME | default('') }} where it may be missing"
        }
        ErrorKind::OutOfFuel | ErrorKind::WriteFailure => {
            "this makes too much: a Secret holds 1 MiB in all its keys together"
        }
        ErrorKind::SyntaxError => "this is not in Jinja's syntax: is a brace, a quote or an endif missing?",
        ErrorKind::InvalidOperation => {
            "something is done with a value that is not made for it: texts are joined with ~, and (TEXT | int) is a number"
        }
        ErrorKind::MissingArgument | ErrorKind::TooManyArguments => {
            "a filter or test has too many arguments, or too few"
        }
        _ => "this cannot be worked out: are the filters, their arguments and the braces right?",
    }
}

/// A writer that fails where the result would not fit into a Secret.
struct BoundedWriter {
    text: Vec<u8>,
    max_bytes: usize,
}

impl io::Write for BoundedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len().saturating_add(bytes.len()) > self.max_bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A digest of a template; `None` for one that is equal to the default. The same template gives the same digest in every
/// build, because absent fields are left out.
#[must_use]
pub fn template_digest(spec: Option<&api::Template>) -> Option<String> {
    let mut spec = spec?.clone();
    spec.kind = spec.kind.filter(|kind| kind != DEFAULT_TYPE);
    spec.metadata = spec.metadata.map(|metadata| api::TemplateMetadata {
        labels: metadata.labels.filter(|labels| !labels.is_empty()),
        annotations: metadata.annotations.filter(|annotations| !annotations.is_empty()),
    });
    spec.metadata = spec.metadata.filter(|metadata| *metadata != api::TemplateMetadata::default());
    // Cannot fail: strings only.
    (spec != api::Template::default())
        .then(|| crate::digest::short_digest(&[&serde_json::to_string(&spec).unwrap_or_default()]))
}

/// The data keys of a target Secret with this template.
#[must_use]
pub fn template_keys(spec: Option<&api::Template>) -> super::KeySet {
    template_key_names(spec).into_iter().collect()
}

/// The same, as names.
#[must_use]
pub fn template_key_names(spec: Option<&api::Template>) -> Vec<&str> {
    match spec.and_then(|spec| spec.data.as_ref()) {
        Some(data) => data.keys().map(String::as_str).collect(),
        None => DEFAULT_KEYS.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests;
