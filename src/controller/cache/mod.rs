//! Objects as the watches have shown them.

pub(crate) mod bindings;
mod by_namespace;
mod crowds;
pub(crate) mod issuer_answers;
pub(crate) mod issuers;
pub(crate) mod namespaces;
pub(crate) mod secrets;
mod shared_reads;
pub(crate) mod source;
mod source_limit;
pub(crate) mod sources;
