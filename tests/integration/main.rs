//! All tests that need a Kubernetes control plane. One binary, so that they share one; each test works in a namespace of
//! its own.
#![cfg(test)] // so that clippy lets helpers panic, too

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod admission_policy;
mod api_rules;
mod api_shown;
mod assertions;
mod calls;
mod canary;
mod chart_objects;
mod conditions;
mod credentials;
mod deletion;
mod endpoint_limits;
mod examples;
mod explain;
mod failing_webhook;
mod failures;
mod gitops;
mod handover;
mod hanging;
mod harness;
mod helm_test;
mod issuers;
mod keycloak;
mod keyless;
mod known_issuers;
mod logs;
mod main_job;
mod memory;
mod metrics;
mod mint;
mod networks;
mod oauth2;
mod ownership;
mod pernamespace;
mod pictures;
mod pitfalls;
mod plugin;
mod prompt;
mod providers;
mod refresh;
mod replicas;
mod report;
mod restarts;
mod restorations;
mod rights;
mod roles;
mod rotation;
mod samples;
mod secure_metrics;
mod shares;
mod shells;
mod template_samples;
mod templates;
mod tenancy;
mod thief;
mod tls;
mod traces;
