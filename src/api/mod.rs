//! The Kubernetes API of this project: types, schema, validation rules and the words of its conditions.
//! Pure: no client, no clock.

mod reason;

pub use reason::Reason;
