//! What people run beside the operator. Nothing here uses the controller.

mod caller;
pub mod explain;
pub mod mint;
mod output;
