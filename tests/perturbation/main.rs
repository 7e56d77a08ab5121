//! Perturbations: every call of the operator is spoiled once (the method of Sieve, OSDI '22), and random paths lead to a
//! spec (the method of Acto, SOSP '23). A seeded sample of both is in `make test`, all of it in `make test-long`.
#![cfg(test)] // so that clippy lets helpers panic, too
#![allow(clippy::print_stderr, reason = "what ran, how long it took, and how a failure is repeated")]

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod random;
mod specs;
