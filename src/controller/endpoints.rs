//! The ways to token endpoints.

use token_endpoint::{Discovery, Transport};

/// A way to token endpoints, with what is known of issuers that were reached by it.
pub(super) struct Endpoints {
    pub(super) transport: Transport,
    pub(super) discovery: Discovery,
}

/// Those that share no connection, no roots and no metadata.
pub(super) struct AllEndpoints {
    /// Those that TokenSources choose.
    pub(super) sources: Endpoints,
    /// Those that the platform chose in ClusterTokenIssuers.
    pub(super) issuers: Endpoints,
    /// Likewise, at private addresses too.
    pub(super) private: Endpoints,
}

impl Endpoints {
    fn new(transport: Transport) -> Self {
        Endpoints { discovery: Discovery::new(transport.clone()), transport }
    }
}

impl AllEndpoints {
    pub(super) fn new(transport: Transport) -> Self {
        AllEndpoints {
            issuers: Endpoints::new(transport.for_trusted(false)),
            private: Endpoints::new(transport.for_trusted(true)),
            sources: Endpoints::new(transport),
        }
    }
}
