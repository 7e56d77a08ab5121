//! `probe`: asks the operator of this pod whether it is live or ready, at its Unix socket. The kubelet runs it as an exec
//! probe.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// The timeout of the whole exchange: less than the 5 s after which the kubelet gives up, so that the message is reported.
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);
/// The most bytes of a response that are read.
const MAX_RESPONSE_BYTES: u64 = 16 * 1024;

/// The arguments of `probe`.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// What to ask.
    #[arg(value_enum)]
    pub page: Page,

    /// The socket of run --probe-socket.
    #[arg(
        long,
        value_name = "PATH",
        env = "TOKENSOURCE_PROBE_SOCKET",
        default_value = "/run/tokensource-operator/probe.sock"
    )]
    pub socket: PathBuf,
}

/// A page of the admin server that answers yes or no.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Page {
    /// Whether the process makes progress.
    Livez,
    /// Whether it could act at once.
    Readyz,
}

/// The answer is no, or there is none.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The socket does not answer.
    #[error("{path} does not answer: {error}", path = path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        error: io::Error,
    },
    /// The checks that failed, as the page says them.
    #[error("{0}")]
    Failed(String),
}

/// Asks once.
///
/// # Errors
/// See [`ProbeError`].
pub async fn run(arguments: &ProbeArgs) -> Result<(), ProbeError> {
    let path = match arguments.page {
        Page::Livez => "/livez",
        Page::Readyz => "/readyz",
    };
    let asked = tokio::time::timeout(PROBE_TIMEOUT, ask(&arguments.socket, path)).await;
    let response = asked
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| ProbeError::NoAnswer { path: arguments.socket.clone(), error })?;
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    if head.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(ProbeError::Failed(body.trim().to_owned())) }
}

async fn ask(socket: &Path, path: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut response = String::new();
    stream.take(MAX_RESPONSE_BYTES).read_to_string(&mut response).await?;
    Ok(response)
}
