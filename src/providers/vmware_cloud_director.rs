//! VMware Cloud Director (Hi GIO Cloud and others), with an API token.
//! <https://techdocs.broadcom.com/us/en/vmware-cis/cloud-director/vmware-cloud-director/10-6.html>, "Generate an API Access Token"

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::description::Description;
use super::spec_error::SpecError;
use super::values::parse_url;
use token_endpoint::{ClientAuthentication, Grant, RequestDescription};
use tokensource_api::VmwareCloudDirector;

/// `refresh.maxInterval` in seconds. Idle sessions end usually after 30 minutes, also where `expires_in` is longer.
const MAX_INTERVAL: u64 = 15 * 60;

/// The characters that are escaped in a path segment: all except the unreserved ones of RFC 3986, section 2.3.
const PATH_SEGMENT_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A form with the API token as refresh token; no client authentication and no client id.
pub(super) fn describe(spec: &VmwareCloudDirector) -> Result<Description, SpecError> {
    let own;
    let token_url = match (&spec.token_url, &spec.tenant) {
        (Some(token_url), _) => token_url,
        // The System organization is the provider. Its name is not case-sensitive.
        (None, Some(tenant)) if !tenant.eq_ignore_ascii_case("system") => {
            own = format!(
                "https://{}/oauth/tenant/{}/token",
                spec.host,
                utf8_percent_encode(tenant, PATH_SEGMENT_ESCAPED)
            );
            &own
        }
        _ => {
            own = format!("https://{}/oauth/provider/token", spec.host);
            &own
        }
    };
    let field = if spec.token_url.is_some() {
        "spec.provider.vmwareCloudDirector.tokenURL"
    } else {
        "spec.provider.vmwareCloudDirector.host"
    };
    let request = RequestDescription::new(
        parse_url(field, token_url)?,
        Grant::RefreshToken,
        ClientAuthentication::None,
    );
    Ok(Description { max_interval: MAX_INTERVAL, ..Description::new("vmwareCloudDirector", request) })
}
