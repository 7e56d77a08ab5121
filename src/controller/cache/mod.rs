//! What the watches have shown.

pub(crate) mod namespaces;
pub(crate) mod secrets;
pub(crate) mod source;
pub(crate) mod sources;
