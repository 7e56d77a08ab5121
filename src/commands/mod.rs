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
pub mod probe;
mod readers;
pub mod refresh;
pub mod suspend;
