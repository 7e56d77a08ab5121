//! The report of `mint`, as text and as JSON.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde::Serialize;

use super::redacted::{Member, RequestView};
use crate::commands::output::ConditionReport;
use crate::commands::redacted::RedactedValue;

/// The result of `mint`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MintReport {
    /// `NAMESPACE/NAME`, or the name alone.
    pub(super) source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) provider: Option<&'static str>,
    /// The issuer whose metadata names the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service_account_token: Option<ServiceAccountTokenReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<RequestView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<ResponseReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) schedule: Option<SchedulePreview>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<TargetPreview>,
    /// The file in which the new refresh token was saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) saved_refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) remarks: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<ErrorReport>,
}

/// What the token of a ServiceAccount says of itself, to be compared with what the issuer was told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceAccountTokenReport {
    pub(super) subject: String,
    pub(super) audience: String,
    pub(super) issuer: String,
    pub(super) expires_at: Timestamp,
}

/// A response with a token.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResponseReport {
    pub(super) milliseconds: u64,
    pub(super) access_token: RedactedValue,
    /// `JWT` or `opaque`.
    pub(super) form: &'static str,
    pub(super) token_id: String,
    pub(super) token_type: RedactedValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<RedactedValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<RedactedValue>,
    /// The members of `response.values`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) values: Vec<Member>,
    pub(super) lifetime_seconds: u64,
    /// `answer`, `token`, `default` or `assumed`.
    pub(super) lifetime_source: &'static str,
    /// The source of the lifetime as a sentence.
    pub(super) lifetime_because: String,
}

/// When the operator would refresh the token, and the conditions that it would report.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SchedulePreview {
    pub(super) issued_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) refresh_after_seconds: u64,
    pub(super) refresh_at: Timestamp,
    pub(super) conditions: Vec<ConditionReport>,
}

/// The target Secret that the operator would write.
#[derive(Debug, Serialize)]
pub(super) struct TargetPreview {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) data: Vec<Member>,
}

/// The error because of which there is no token.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ErrorReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    pub(super) message: String,
    pub(super) exit_code: u8,
    /// When the operator would make the next attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) then: Option<String>,
}

impl MintReport {
    /// The text before the request is sent.
    pub(super) fn before(&self) -> String {
        let mut text = format!("TokenSource {}", self.source);
        if let Some(provider) = self.provider {
            let _ = write!(text, ", provider {provider}");
        }
        text.push('\n');
        if let Some(token) = &self.service_account_token {
            let _ = writeln!(text, "\nToken of the ServiceAccount\n  subject   {}", token.subject);
            let _ = writeln!(text, "  audience  {}\n  issuer    {}", token.audience, token.issuer);
            let _ = writeln!(text, "  expires   {}", token.expires_at);
        }
        if let Some(request) = &self.request {
            let _ = writeln!(text, "\nRequest\n  {} {}", request.method, request.url);
            if let Some(issuer) = &self.issuer {
                let _ = writeln!(text, "  as the metadata of {issuer} says");
            }
            lines(&mut text, "headers", &request.headers);
            lines(&mut text, "body", &request.body);
        }
        text
    }

    /// The text after the response.
    pub(super) fn after(&self) -> String {
        let mut text = String::new();
        if let Some(answer) = &self.answer {
            let _ = write!(text, "{answer}");
        }
        if let Some(schedule) = &self.schedule {
            let _ = write!(text, "{schedule}");
        }
        if let Some(target) = &self.target {
            let _ = writeln!(text, "\nTarget Secret {} ({})", target.name, target.kind);
            columns(&mut text, &target.data);
        }
        if let Some(file) = &self.saved_refresh_token {
            let _ = writeln!(
                text,
                "\nRefresh token\n  saved in {file}: it may be the only valid one from now on"
            );
        }
        if !self.remarks.is_empty() {
            text.push_str("\nRemarks\n");
            for remark in &self.remarks {
                let _ = writeln!(text, "  - {remark}");
            }
        }
        text
    }
}

fn lines(text: &mut String, title: &str, members: &[Member]) {
    for (at, member) in members.iter().enumerate() {
        let title = if at == 0 { title } else { "" };
        let _ = writeln!(text, "  {title:<8} {}: {}", member.name, member.value);
    }
}

fn columns(text: &mut String, members: &[Member]) {
    let width = members.iter().map(|member| member.name.len()).max().unwrap_or_default();
    for member in members {
        // Align further lines of a value with its first.
        let value = member.value.to_string().trim_end().replace('\n', &format!("\n  {:<width$}  ", ""));
        let _ = writeln!(text, "  {:<width$}  {value}", member.name);
    }
}

impl fmt::Display for ResponseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nAnswer: a token, after {} ms", self.milliseconds)?;
        let mut members = vec![
            Member::new("access_token", self.access_token.clone()),
            Member::new("form", RedactedValue::Plain(self.form.to_owned())),
            Member::new("token id", RedactedValue::Plain(self.token_id.clone())),
            Member::new("token_type", self.token_type.clone()),
        ];
        members.extend(self.scope.clone().map(|scope| Member::new("scope", scope)));
        members.extend(self.refresh_token.clone().map(|token| Member::new("refresh_token", token)));
        members.extend(
            self.values.iter().map(|it| Member::new(&format!("value {}", it.name), it.value.clone())),
        );
        let lifetime = format!("{} s: {}", self.lifetime_seconds, self.lifetime_because);
        members.push(Member::new("lifetime", RedactedValue::Plain(lifetime)));
        let mut text = String::new();
        columns(&mut text, &members);
        f.write_str(&text)
    }
}

impl fmt::Display for SchedulePreview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nWhat the operator would do and say")?;
        writeln!(f, "  issued           {}", self.issued_at)?;
        writeln!(
            f,
            "  refresh at       {}, {} s after issue at the latest",
            self.refresh_at, self.refresh_after_seconds
        )?;
        writeln!(f, "  expires          {}", self.expires_at)?;
        for it in &self.conditions {
            writeln!(f, "  {:<15}  {}, {}: {}", it.kind, it.status, it.reason, it.message)?;
        }
        Ok(())
    }
}
