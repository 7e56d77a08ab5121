//! What is told of a mint, for a person and for machines.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde::Serialize;

use super::outline::{Asked, Member, Shown};
use crate::commands::output::Told;

/// Everything that is known in the end.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// `NAMESPACE/NAME`, or the name alone.
    pub(super) source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) provider: Option<&'static str>,
    /// The issuer whose metadata names the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<Asked>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<Answered>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) schedule: Option<Schedule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<Target>,
    /// The file with the refresh token that came back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) saved_refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) remarks: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Failed>,
}

/// An answer with a token in it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answered {
    pub(super) milliseconds: u64,
    pub(super) access_token: Shown,
    /// `JWT` or `opaque`.
    pub(super) form: &'static str,
    pub(super) token_id: String,
    pub(super) token_type: Shown,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<Shown>,
    /// What `response.values` names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) values: Vec<Member>,
    pub(super) lifetime_seconds: u64,
    /// Who says so.
    pub(super) lifetime_source: &'static str,
    /// The same in words.
    pub(super) lifetime_because: String,
}

/// When the operator would ask again.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Schedule {
    pub(super) issued_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) refresh_after_seconds: u64,
    pub(super) refresh_at: Timestamp,
    pub(super) conditions: Vec<Told>,
}

/// The Secret that pods would mount.
#[derive(Debug, Serialize)]
pub(super) struct Target {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) data: Vec<Member>,
}

/// Why there is no token.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Failed {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    pub(super) message: String,
    pub(super) exit_code: u8,
    /// When the operator would try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) then: Option<String>,
}

impl Report {
    /// What is known before anything is asked.
    pub(super) fn before(&self) -> String {
        let mut text = format!("TokenSource {}", self.source);
        if let Some(provider) = self.provider {
            let _ = write!(text, ", provider {provider}");
        }
        text.push('\n');
        if let Some(asked) = &self.request {
            let _ = writeln!(text, "\nRequest\n  {} {}", asked.method, asked.url);
            if let Some(issuer) = &self.issuer {
                let _ = writeln!(text, "  as the metadata of {issuer} says");
            }
            lines(&mut text, "headers", &asked.headers);
            lines(&mut text, "body", &asked.body);
        }
        text
    }

    /// What is known afterwards.
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
        // Further lines of a value stand below its first.
        let value = member.value.to_string().trim_end().replace('\n', &format!("\n  {:<width$}  ", ""));
        let _ = writeln!(text, "  {:<width$}  {value}", member.name);
    }
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nAnswer: a token, after {} ms", self.milliseconds)?;
        let mut members = vec![
            Member::new("access_token", self.access_token.clone()),
            Member::new("form", Shown::Plain(self.form.to_owned())),
            Member::new("token id", Shown::Plain(self.token_id.clone())),
            Member::new("token_type", self.token_type.clone()),
        ];
        members.extend(self.scope.clone().map(|scope| Member::new("scope", scope)));
        members.extend(self.refresh_token.clone().map(|token| Member::new("refresh_token", token)));
        members.extend(
            self.values.iter().map(|it| Member::new(&format!("value {}", it.name), it.value.clone())),
        );
        let lifetime = format!("{} s: {}", self.lifetime_seconds, self.lifetime_because);
        members.push(Member::new("lifetime", Shown::Plain(lifetime)));
        let mut text = String::new();
        columns(&mut text, &members);
        f.write_str(&text)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nWhat the operator would do and say")?;
        writeln!(f, "  issued           {}", self.issued_at)?;
        writeln!(
            f,
            "  refresh at       {}, {} s after issue at the latest",
            self.refresh_at, self.refresh_after_seconds
        )?;
        writeln!(f, "  expires          {}", self.expires_at)?;
        for told in &self.conditions {
            writeln!(f, "  {:<15}  {}, {}: {}", told.kind, told.status, told.reason, told.message)?;
        }
        Ok(())
    }
}
