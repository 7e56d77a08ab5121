//! What a decision leads to: each part ends, and calls the API server at most.

mod attempts;
mod conflict;
mod credentials;
mod metadata;
pub(super) mod token_request;
mod write;
