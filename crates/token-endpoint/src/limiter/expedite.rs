//! Why a rejection need not hold a request back to the end.

/// Why a request that was rejected is tried again before the wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expedite {
    /// Other credentials than the client's own have changed: secret parameters, for example.
    ChangedValues,
    /// A person has changed something, or asks for a token.
    Asked,
}
