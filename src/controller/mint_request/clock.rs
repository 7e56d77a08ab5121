//! The clock of the token endpoint's host beside the operator's own.

use jiff::SignedDuration;
use token_endpoint::RequestDescription;
use tracing::warn;
use url::Url;

use super::TokenRequest;
use crate::clock::NOTABLE_DIFFERENCE;

impl TokenRequest<'_> {
    /// Shows how far the clock of the endpoint is ahead, which was `before` ahead at its last response.
    pub(super) fn note_clock(&self, endpoint: &Url, before: Option<SignedDuration>) {
        let Some(ahead) = self.context.endpoints(self.spec).transport.clock_difference(endpoint) else {
            return;
        };
        let (host, seconds) = (self.spec.host(), ahead.as_secs());
        self.context.metrics.endpoint_clock_difference(host, seconds);
        let is_notable = |difference: SignedDuration| difference.abs() >= NOTABLE_DIFFERENCE;
        if is_notable(ahead) && !before.is_some_and(is_notable) {
            warn!(host, seconds, "the clock of the token endpoint's host differs from ours");
        }
    }

    /// Servers refuse assertions that are dated by another clock than theirs.
    pub(super) fn clock_remark(&self, description: &RequestDescription) -> Option<String> {
        let (transport, url) = (&self.context.endpoints(self.spec).transport, &description.token_url);
        let dated = transport.clock_offset(url)?.as_secs();
        let offset = transport.clock_difference(url)?.as_secs();
        description.signs().then(|| {
            let dated_so = match dated == offset {
                true => "so assertions are dated by the endpoint's".to_owned(),
                false => format!(
                    "so assertions are dated {} s towards the endpoint's, and no further",
                    dated.unsigned_abs()
                ),
            };
            format!(
                "the clock of {} is {} s {} this one's, {dated_so}: is the node's clock right?",
                url.host_str().unwrap_or_default(),
                offset.unsigned_abs(),
                if offset > 0 { "ahead of" } else { "behind" },
            )
        })
    }
}
