//! Keeps short-lived OAuth 2.0 access tokens fresh in Kubernetes Secrets.
//!
//! ```text
//! watches ─▶ work queue ─▶ reconcile: observe ─▶ decide ─▶ act ─▶ report
//!                              ▲                            │
//!                              │ result                     ▼
//!                          mint queue ─▶ credentials ─▶ token request ─▶ save a rotated refresh token
//! ```
//!
//! [`operator`] starts and stops the process. [`controller`] is the flow above. What it decides by is pure: [`providers`] and
//! `spec` say what a TokenSource asks for, [`refresh`] what to do now, [`secret`] what the target holds, `status` what people
//! read. `cluster` alone calls the API server, the crate `token_endpoint` alone connects to token endpoints, and the crate
//! `tokensource_api` is the kind TokenSource. [`commands`] are what people run beside the operator.
//!
//! A file imports only from its own folder or from modules further down this list, and none in a circle; `tests/layout` holds
//! that: [`cli`]; [`commands`]; [`operator`]; [`controller`]; `token_request`; [`cluster`]; [`metrics`]; `heartbeat`,
//! `leadership`, `restorations`; `clock`; and, pure, `spec`; `status`; [`providers`]; [`refresh`]; [`secret`]; `key`, `time`,
//! `digest`, `text`, `binding`, `uid`.

// The operator runs on Linux, and for development on any Unix; on Windows this is the plugin of kubectl alone, and what both share
// is used in part.
#![cfg_attr(not(unix), allow(dead_code, unused_imports))]

mod binding;
pub mod cli;
mod clock;
pub mod cluster;
pub mod commands;
#[cfg(unix)]
pub mod controller;
mod digest;
mod heartbeat;
pub mod key;
mod leadership;
pub mod metrics;
#[cfg(unix)]
pub mod operator;
pub mod providers;
pub mod refresh;
mod restorations;
pub mod secret;
mod spec;
mod status;
mod text;
mod time;
mod token_request;
pub mod uid;
