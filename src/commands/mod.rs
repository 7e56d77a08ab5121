//! The commands for users. None of them uses the controller.

pub mod bindings;
pub mod explain;
pub mod mint;
mod output;
pub mod probe;
