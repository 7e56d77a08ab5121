//! Keeps the tokens of all TokenSources fresh.
//!
//! ```text
//! watches ─▶ work queue ─▶ reconcile: observe ─▶ decide ─▶ act ─▶ report        calls the API server, and nothing else
//!                              ▲                            │
//!                              │ result                     ▼ request (key, deadline)
//!                          mint queue ─▶ endpoint permit ─▶ TLS material, credentials, discovery ─▶ client permit
//!                                                       ─▶ token request ─▶ save a rotated refresh token
//! ```
//!
//! A file here imports only from files further down this list: `run` and `watch`, `served/`, `issuer_watch`, `issuer_status`, `secret_events`, `clock_check`, `reconcile/`, `mint`,
//! `mint_request`, `issuing`, `context`, `endpoints`, `issue_times`, the queues and caches, `state`, `failed_attempts`, `expiry_events`, `report_rate`, `event_rate`,
//! `attempt_memory`, `refresh_token_saver`, `refresh_token`, `outcome`.

pub mod api_permits; // these two are public for benches/micro
mod attempt_memory;
mod cache;
mod clock_check;
mod context;
mod credentials;
mod endpoints;
mod event_rate;
mod expiry_events;
mod failed_attempts;
mod issue_times;
mod issuer_status;
mod issuer_watch;
mod issuing;
mod mint;
mod mint_queue;
mod mint_request;
mod outcome;
mod propagation;
mod reconcile;
mod refresh_token;
mod refresh_token_saver;
mod report_rate;
mod run;
mod secret_events;
mod served;
#[cfg(test)]
mod simulation;
mod spans;
mod state;
mod watch;
pub mod work_queue;

pub use cache::issuers::IssuerSettings;
pub use context::{Context, Parts};
pub use run::run;
pub(crate) use spans::TARGET as SPANS;
pub use watch::Followed;
