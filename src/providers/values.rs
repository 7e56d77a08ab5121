//! Values of fields.

use jiff::SignedDuration;
use url::Url;

use super::spec_error::SpecError;

/// Parses a duration into whole seconds.
///
/// # Errors
/// The value is not a duration or is negative.
pub fn parse_seconds(field: &'static str, value: &str) -> Result<u64, SpecError> {
    let parsed =
        value.parse::<SignedDuration>().ok().and_then(|duration| u64::try_from(duration.as_secs()).ok());
    parsed.ok_or_else(|| SpecError::Duration { field, value: value.to_owned() })
}

pub(super) fn parse_url(field: &'static str, value: &str) -> Result<Url, SpecError> {
    Url::parse(value).map_err(|problem| SpecError::Url { field, value: value.to_owned(), problem })
}
