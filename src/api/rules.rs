//! The validation rules that the API server applies (CEL, `x-kubernetes-validations`), so that `kubectl apply`
//! says what to write instead. Every list and map is bounded, so that the cost of a rule is bounded too.

use schemars::{Schema, SchemaGenerator, json_schema};

pub(super) const NAME_FITS: &str = "size(self.metadata.name) <= 239";

pub(super) const TARGET_IS_NOT_CREDENTIALS: &str = "(has(self.spec.target) && has(self.spec.target.name) ? self.spec.target.name : self.metadata.name) != self.spec.credentials.secretRef.name";
pub(super) const TARGET_IS_NOT_REFRESH_TOKEN: &str = "!(has(self.spec.target) && has(self.spec.target.name)) || self.spec.target.name != self.metadata.name + '-refresh-token'";
pub(super) const CREDENTIALS_ARE_NOT_REFRESH_TOKEN: &str =
    "self.spec.credentials.secretRef.name != self.metadata.name + '-refresh-token'";
pub(super) const TARGET_IMMUTABLE: &str = "(has(self.spec.target) && has(self.spec.target.name) ? self.spec.target.name : self.metadata.name) == (has(oldSelf.spec.target) && has(oldSelf.spec.target.name) ? oldSelf.spec.target.name : oldSelf.metadata.name)";

pub(super) const VGS_KEY_NEEDS_VGS: &str =
    "!has(self.credentials.vgsServiceAccountKey) || has(self.provider.vgs)";
pub(super) const VCD_HAS_NO_CLIENT: &str = "!has(self.provider.vmwareCloudDirector) || !(has(self.credentials.clientID) || has(self.credentials.clientIDKey) || has(self.credentials.clientSecretKey))";

pub(super) const ONE_PROVIDER: &str = "[has(self.vgs), has(self.vngCloud), has(self.vmwareCloudDirector), has(self.oauth2)].filter(x, x).size() == 1";
pub(super) const ONE_GRANT: &str =
    "[has(self.clientCredentials), has(self.refreshToken)].filter(x, x).size() == 1";
pub(super) const ONE_CLIENT_AUTHENTICATION: &str =
    "[has(self.basic), has(self.post), has(self.none)].filter(x, x).size() == 1";
pub(super) const TENANT_OR_SYSTEM: &str = "has(self.tenant) != (has(self.system) && self.system)";
pub(super) const ONE_CLIENT_ID: &str = "!(has(self.clientID) && has(self.clientIDKey))";
pub(super) const VGS_KEY_ALONE: &str = "!has(self.vgsServiceAccountKey) || !(has(self.clientID) || has(self.clientIDKey) || has(self.clientSecretKey))";

pub(super) const TOKEN_URL: &str = "isURL(self) && url(self).getScheme() in ['https', 'http'] && url(self).getHost() != '' && !self.contains('#') && !self.matches('^[a-zA-Z]+://[^/?]*@')";
pub(super) const TOKEN_URL_MESSAGE: &str = "write an absolute https URL without user name, password and fragment, for example https://idp.example.com/oauth/token";

/// A name or an address, and a port from 1 to 65535.
pub(super) const HOST: &str = "self.matches('^([a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?(\\\\.[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*|\\\\[[0-9a-fA-F:.]+\\\\])(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?$')";
pub(super) const TENANT: &str =
    "!(self in ['.', '..']) && self.matches('^[^/\\\\\\\\\\\\x00-\\\\x1f\\\\x7f]+$')";

/// RFC 6749, section 3.3: scope-token.
pub(super) const SCOPES: &str = "self.all(s, s.matches('^[\\\\x21\\\\x23-\\\\x5b\\\\x5d-\\\\x7e]+$'))";
pub(super) const SCOPES_MESSAGE: &str =
    "write one scope per list item, without spaces, quotes and backslashes";

pub(super) const DURATION: &str = "self.matches('^([0-9]{1,9}(h|m|s))+$') && duration(self) >= duration('1s') && duration(self) <= duration('8760h')";
pub(super) const DURATION_MESSAGE: &str = "write a duration from 1s to 8760h in whole hours (h), minutes (m) and seconds (s), for example 90s or 1h30m";

pub(super) const OBJECT_NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
pub(super) const SECRET_KEY: &str = "^[-._a-zA-Z0-9]+$";

/// At most 32 parameters, none of them reserved.
pub(super) fn parameters_schema(_: &mut SchemaGenerator) -> Schema {
    let reserved: Vec<String> = crate::oauth::RESERVED.iter().map(|name| format!("'{name}'")).collect();
    let reserved = reserved.join(", ");
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 4096},
        "x-kubernetes-validations": [
            {
                "rule": "self.all(name, size(name) > 0 && size(name) <= 128)",
                "message": "a parameter's name must have between 1 and 128 characters",
            },
            {
                "rule": format!("self.all(name, !(name.lowerAscii() in [{reserved}]))"),
                "message": "members of the request that have a field of their own (grant_type, client_id, scope, ...) cannot be set here; use that field, or a key of the credentials Secret",
            },
        ],
    })
}
