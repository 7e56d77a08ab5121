//! Keeps short-lived OAuth 2.0 access tokens fresh in Kubernetes Secrets.
//!
//! The data's way is one line, and each step knows only what stands left of it:
//!
//! ```text
//! watch ─▶ gather ─▶ resolve ─▶ decide ─▶ mint ─▶ render ─▶ apply ─▶ report
//! (kube)   (reads)   (pure)     (pure)    (HTTP)  (pure)    (writes)  (status, events)
//! ```

pub mod api;
mod caller;
pub mod cli;
pub mod controller;
pub mod explain;
pub mod metrics;
pub mod mint;
pub mod oauth;
pub mod operator;
mod output;
pub mod providers;
pub mod refresh;
pub mod target;
