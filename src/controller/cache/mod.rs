//! Objects as the watches have shown them.

pub(crate) mod bindings;
pub(crate) mod namespaces;
pub(crate) mod secrets;
mod shared_reads;
pub(crate) mod source;
mod source_limit;
pub(crate) mod sources;
