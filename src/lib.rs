//! Keeps short-lived OAuth 2.0 access tokens fresh in Kubernetes Secrets.

pub mod cli;
pub mod cluster;
pub mod commands;
pub mod controller;
mod digest;
mod heartbeat;
mod key;
mod leadership;
pub mod metrics;
pub mod operator;
pub mod providers;
pub mod refresh;
pub mod secret;
mod spec;
mod status;
mod time;
mod token_request;
