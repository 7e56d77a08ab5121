//! The tests' authorization server (the certified oidc-provider), which also serves the resource that verifies tokens.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    command::{Result, output},
    process::{self, first_line},
    settings::Settings,
};

const START_LIMIT: Duration = Duration::from_secs(60);

pub struct Issuer {
    process: Child,
    url: String,
}

impl Issuer {
    pub fn start(settings: &Settings) -> Result<Self> {
        let mut process = Command::new("node")
            .args(["tests/authorization-server/server.mjs", "--until-stdin-closes", "--host", &settings.host])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("the authorization server: {error}"))?;
        let stdout = process.stdout.take().ok_or("the authorization server has no output")?;
        let line = first_line(stdout, START_LIMIT).unwrap_or_default();
        let ready: Value =
            serde_json::from_str(&line).map_err(|_| "the authorization server did not start")?;
        Ok(Self { process, url: ready["url"].as_str().unwrap_or_default().to_owned() })
    }

    pub fn token_url(&self) -> String {
        format!("{}/auth/realms/vgs/protocol/openid-connect/token", self.url)
    }

    /// Address and port of the resource server.
    pub fn resource(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// A client whose tokens are JWTs, so that readers know when they were issued and when they expire.
    pub fn register(&self, client: &str, lifetime: u32) -> Result<()> {
        let members =
            json!({"client_secret": "secret", "access_token_ttl": lifetime, "access_token_format": "jwt"});
        self.control("PUT", &format!("clients/{client}"), &members).map(drop)
    }

    /// Lets every token request of a client fail, or no longer.
    pub fn fail(&self, client: &str, begin: bool) -> Result<()> {
        let behaviour = if begin { json!({"status": 503}) } else { Value::Null };
        self.control("PATCH", &format!("clients/{client}"), &json!({"behaviour": behaviour})).map(drop)
    }

    /// The token requests of a client that succeeded.
    pub fn succeeded(&self, client: &str) -> Result<u64> {
        let requests = self.control("GET", &format!("clients/{client}/requests"), &Value::Null)?;
        Ok(requests["succeeded"].as_u64().unwrap_or_default())
    }

    fn control(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let url = format!("{}/control/{path}", self.url);
        let mut arguments = vec!["-sS", "--fail", "--noproxy", "*", "--max-time", "20", "-X", method, &url];
        let text = body.to_string();
        if !body.is_null() {
            arguments.extend(["-H", "content-type: application/json", "-d", &text]);
        }
        Ok(serde_json::from_str(&output("curl", &arguments, "")?)?)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        process::kill(&mut self.process);
    }
}
