//! Objects as the watches have shown them.

pub(crate) mod namespaces;
pub(crate) mod secrets;
pub(crate) mod source;
mod source_limit;
pub(crate) mod sources;
