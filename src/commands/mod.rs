//! The commands for users. None of them uses the controller.

pub mod bindings;
pub mod change;
pub mod check;
pub mod completion;
pub mod explain;
pub mod get;
pub mod installation;
pub mod kubectl;
pub mod mint;
mod operator;
mod output;
mod private_file;
#[cfg(unix)]
pub mod probe;
mod readers;
mod redacted;
pub mod refresh;
pub mod report;
pub mod suspend;
