//! The validation rules that the API server applies (CEL, `x-kubernetes-validations`). Each message says what to write
//! instead. Every list and map is bounded, because the API server limits the estimated cost of a rule.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

pub(super) const NAME_FITS: &str = "size(self.metadata.name) <= 239";

pub(super) const TARGET_IS_NOT_CREDENTIALS: &str = "!has(self.spec.credentials) || !has(self.spec.credentials.secretRef) || (has(self.spec.target) && has(self.spec.target.name) ? self.spec.target.name : self.metadata.name) != self.spec.credentials.secretRef.name";
pub(super) const TARGET_IS_NOT_TLS: &str = "!has(self.spec.tls) || !((has(self.spec.target) && has(self.spec.target.name) ? self.spec.target.name : self.metadata.name) in [has(self.spec.tls.clientCertificateRef) ? self.spec.tls.clientCertificateRef.name : '', has(self.spec.tls.caBundle) && has(self.spec.tls.caBundle.secretKeyRef) ? self.spec.tls.caBundle.secretKeyRef.name : ''])";
pub(super) const TARGET_IS_NOT_REFRESH_TOKEN: &str = "!(has(self.spec.target) && has(self.spec.target.name)) || self.spec.target.name != self.metadata.name + '-refresh-token'";
/// `HELM_NAME_PREFIX` in `permitted`. The name of the TokenSource begins that of `<name>-refresh-token`, too.
pub(super) const NAMES_ARE_NOT_HELMS: &str = "!self.metadata.name.startsWith('sh.helm.release.v1.') && !(has(self.spec.target) && has(self.spec.target.name) && self.spec.target.name.startsWith('sh.helm.release.v1.'))";
pub(super) const CREDENTIALS_ARE_NOT_REFRESH_TOKEN: &str = "!has(self.spec.credentials) || !has(self.spec.credentials.secretRef) || self.spec.credentials.secretRef.name != self.metadata.name + '-refresh-token'";
pub(super) const TARGET_IMMUTABLE: &str = "(has(self.spec.target) && has(self.spec.target.name) ? self.spec.target.name : self.metadata.name) == (has(oldSelf.spec.target) && has(oldSelf.spec.target.name) ? oldSelf.spec.target.name : oldSelf.metadata.name)";

/// Where `self.provider` and `self.credentials` are absent, [`ISSUER_OR_PROVIDER`] says what is missing, and the rules about both
/// say nothing.
pub(super) const VGS_KEY_NEEDS_VGS: &str = "!has(self.credentials) || !has(self.provider) || !has(self.credentials.vgsServiceAccountKey) || has(self.provider.vgs)";
pub(super) const VGS_KEY_NEEDS_VGS_MESSAGE: &str =
    "vgsServiceAccountKey is for provider vgs; write clientIDKey and clientSecretKey, or provider: {vgs: {}}";
pub(super) const ONE_CA_BUNDLE: &str = "has(self.configMapKeyRef) != has(self.secretKeyRef)";
pub(super) const TLS_NEEDS_CERTIFICATE: &str = "!has(self.provider) || !(has(self.provider.oauth2) && has(self.provider.oauth2.clientAuthentication) && has(self.provider.oauth2.clientAuthentication.tls)) || (has(self.tls) && has(self.tls.clientCertificateRef))";
pub(super) const TLS_NEEDS_CERTIFICATE_MESSAGE: &str =
    "clientAuthentication tls is by the client certificate: name its Secret in spec.tls.clientCertificateRef";
pub(super) const VCD_HAS_NO_CLIENT: &str = "!has(self.credentials) || !has(self.provider) || !has(self.provider.vmwareCloudDirector) || !(has(self.credentials.clientID) || has(self.credentials.clientIDKey) || has(self.credentials.clientSecretKey))";

pub(super) const ONE_CREDENTIALS: &str = "has(self.secretRef) != has(self.serviceAccountToken)";
pub(super) const ONE_CREDENTIALS_MESSAGE: &str = "exactly one of secretRef and serviceAccountToken must be set: a Secret that holds credentials, or a ServiceAccount whose tokens are sent in place of them";
pub(super) const SERVICE_ACCOUNT_TOKEN_HAS_NO_KEYS: &str = "!has(self.serviceAccountToken) || !(has(self.clientIDKey) || has(self.clientSecretKey) || has(self.refreshTokenKey) || has(self.privateKeyKey) || has(self.vgsServiceAccountKey))";
pub(super) const SERVICE_ACCOUNT_TOKEN_IS_USED: &str = "!has(self.credentials) || !has(self.provider) || has(self.credentials.serviceAccountToken) == (has(self.provider.oauth2) && (has(self.provider.oauth2.clientAuthentication) && has(self.provider.oauth2.clientAuthentication.serviceAccountToken) || has(self.provider.oauth2.grant) && (has(self.provider.oauth2.grant.assertion) && self.provider.oauth2.grant.assertion.from == 'serviceAccountToken' || has(self.provider.oauth2.grant.tokenExchange) && has(self.provider.oauth2.grant.tokenExchange.subject) && self.provider.oauth2.grant.tokenExchange.subject == 'serviceAccountToken' || has(self.provider.oauth2.grant.custom) && has(self.provider.oauth2.grant.custom.serviceAccountTokenParameter))))";
pub(super) const SERVICE_ACCOUNT_TOKEN_IS_USED_MESSAGE: &str = "credentials.serviceAccountToken belongs to provider oauth2 with clientAuthentication.serviceAccountToken, or with a grant that sends it: assertion {from: serviceAccountToken}, tokenExchange {subject: serviceAccountToken}, custom {serviceAccountTokenParameter}; write it together with one of them";
pub(super) const SERVICE_ACCOUNT_TOKEN_IS_ALONE: &str = "!has(self.credentials) || !has(self.provider) || !has(self.credentials.serviceAccountToken) || !has(self.provider.oauth2) || !(has(self.provider.oauth2.clientAuthentication) && (has(self.provider.oauth2.clientAuthentication.basic) || has(self.provider.oauth2.clientAuthentication.post) || has(self.provider.oauth2.clientAuthentication.privateKeyJWT) || has(self.provider.oauth2.clientAuthentication.assertion)) || has(self.provider.oauth2.grant) && (has(self.provider.oauth2.grant.refreshToken) || has(self.provider.oauth2.grant.jwtBearer) || has(self.provider.oauth2.grant.assertion) && self.provider.oauth2.grant.assertion.from != 'serviceAccountToken' || has(self.provider.oauth2.grant.tokenExchange) && (!has(self.provider.oauth2.grant.tokenExchange.subject) || self.provider.oauth2.grant.tokenExchange.subject != 'serviceAccountToken' || has(self.provider.oauth2.grant.tokenExchange.actorTokenKey))) || has(self.provider.oauth2.secretParameters) || has(self.provider.oauth2.secretHeaders))";
pub(super) const SERVICE_ACCOUNT_TOKEN_IS_ALONE_MESSAGE: &str = "with credentials.serviceAccountToken there is no credentials Secret: use clientAuthentication serviceAccountToken, tls or none, no grant refreshToken or jwtBearer, and no secretParameters, secretHeaders and actorTokenKey";
pub(super) const SERVICE_ACCOUNT_TOKEN_HAS_AUDIENCE: &str = "!has(self.credentials) || !has(self.provider) || !has(self.credentials.serviceAccountToken) || has(self.credentials.serviceAccountToken.audience) || has(self.provider.oauth2) && has(self.provider.oauth2.issuer)";
pub(super) const SERVICE_ACCOUNT_TOKEN_HAS_AUDIENCE_MESSAGE: &str = "write the audience that the endpoint expects in credentials.serviceAccountToken.audience; it has a default, the issuer, only where provider.oauth2.issuer is set";
pub(super) const SERVICE_ACCOUNT_TOKEN_HAS_CLIENT: &str = "!has(self.credentials) || !has(self.provider) || !has(self.credentials.serviceAccountToken) || has(self.credentials.clientID) || !has(self.provider.oauth2) || !has(self.provider.oauth2.clientAuthentication) || !(has(self.provider.oauth2.clientAuthentication.tls) || has(self.provider.oauth2.clientAuthentication.serviceAccountToken) && has(self.provider.oauth2.clientAuthentication.serviceAccountToken.sendClientID) && self.provider.oauth2.clientAuthentication.serviceAccountToken.sendClientID)";
pub(super) const SERVICE_ACCOUNT_TOKEN_HAS_CLIENT_MESSAGE: &str =
    "sendClientID and clientAuthentication tls need credentials.clientID";
/// Commas separate audiences in the annotation of a ServiceAccount and in the operator's flag.
pub(super) const AUDIENCE: &str = "self.matches('^[!-+\\\\x2d-~]+$')";
pub(super) const AUDIENCE_MESSAGE: &str = "write one audience in printable ASCII, without spaces and commas";
pub(super) const SERVICE_ACCOUNT_TOKEN_EXPIRATION: &str = "self.matches('^([0-9]{1,9}(h|m|s))+$') && duration(self) >= duration('10m') && duration(self) <= duration('1h')";
pub(super) const SERVICE_ACCOUNT_TOKEN_EXPIRATION_MESSAGE: &str = "write a duration from 10m to 1h, for example 10m: Kubernetes makes no tokens that live for less, and this operator none for more";

pub(super) const ISSUER_OR_PROVIDER: &str = "has(self.issuerRef) ? !(has(self.provider) || has(self.credentials) || has(self.tls)) : has(self.provider) && has(self.credentials)";
pub(super) const REQUEST_NEEDS_ISSUER: &str = "!has(self.request) || has(self.issuerRef)";

/// The name is the value of a label.
pub(super) const ISSUER_NAME_FITS: &str =
    "size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')";
pub(super) const ISSUER_PROVIDER: &str =
    "!(has(self.provider.gitHubApp) || has(self.provider.vmwareCloudDirector))";
pub(super) const ISSUER_ASKS_NOTHING: &str = "!(has(self.provider.oauth2) && (has(self.provider.oauth2.scopes) || has(self.provider.oauth2.audience) || has(self.provider.oauth2.resources)) || has(self.provider.vgs) && has(self.provider.vgs.scopes) || has(self.provider.vngCloud) && has(self.provider.vngCloud.scopes))";
pub(super) const ISSUER_HAS_NO_REFRESH_TOKEN: &str = "!(has(self.provider.oauth2) && has(self.provider.oauth2.grant) && has(self.provider.oauth2.grant.refreshToken))";
pub(super) const ISSUER_TOKEN_HAS_NO_KEYS: &str = "!has(self.serviceAccountToken) || !(has(self.clientIDKey) || has(self.clientSecretKey) || has(self.privateKeyKey) || has(self.vgsServiceAccountKey))";
pub(super) const ONE_CONSENT: &str =
    "[has(self.names), has(self.selector), has(self.all) && self.all].filter(x, x).size() == 1";
pub(super) const DEFAULT_SCOPES_ARE_ALLOWED: &str =
    "!has(self.defaultScopes) || has(self.scopes) && self.defaultScopes.all(scope, scope in self.scopes)";
pub(super) const IMMUTABLE: &str = "self == oldSelf";

pub(super) const ONE_PROVIDER: &str = "[has(self.vgs), has(self.vngCloud), has(self.vmwareCloudDirector), has(self.gitHubApp), has(self.oauth2)].filter(x, x).size() == 1";
pub(super) const ONE_GRANT: &str = "[has(self.clientCredentials), has(self.refreshToken), has(self.jwtBearer), has(self.assertion), has(self.tokenExchange), has(self.custom)].filter(x, x).size() == 1";
/// A custom grant `refresh_token` would not be treated as rotating, and the new refresh token would be lost.
pub(super) const CUSTOM_GRANT: &str = "!(self in ['client_credentials', 'refresh_token', 'urn:ietf:params:oauth:grant-type:jwt-bearer', 'urn:ietf:params:oauth:grant-type:token-exchange'])";
pub(super) const SUBJECT_HAS_NO_KEY: &str =
    "!has(self.subject) || self.subject != 'serviceAccountToken' || !has(self.subjectTokenKey)";
pub(super) const ASSERTION_HAS_NO_KEY: &str = "self.from != 'serviceAccountToken' || !has(self.key)";
pub(super) const ACTOR: &str = "has(self.actorTokenKey) == has(self.actorTokenType)";
pub(super) const ONE_CLIENT_AUTHENTICATION: &str = "[has(self.basic), has(self.post), has(self.privateKeyJWT), has(self.assertion), has(self.serviceAccountToken), has(self.tls), has(self.none)].filter(x, x).size() == 1";
pub(super) const TENANT_OR_SYSTEM: &str = "has(self.tenant) != (has(self.system) && self.system)";
pub(super) const ONE_CLIENT_ID: &str = "!(has(self.clientID) && has(self.clientIDKey))";
pub(super) const ONE_CLIENT_ID_MESSAGE: &str =
    "clientID is the id itself, clientIDKey the key of the Secret that holds it: write one of them";
pub(super) const VGS_KEY_ALONE: &str = "!has(self.vgsServiceAccountKey) || !(has(self.clientID) || has(self.clientIDKey) || has(self.clientSecretKey))";
pub(super) const VGS_KEY_ALONE_MESSAGE: &str =
    "vgsServiceAccountKey holds both id and secret: remove clientID, clientIDKey and clientSecretKey";

pub(super) const TOKEN_URL: &str = "isURL(self) && url(self).getScheme() in ['https', 'http'] && url(self).getHost() != '' && !self.contains('#') && !self.matches('^[a-zA-Z]+://[^/?]*@')";
/// RFC 8414, section 2.
pub(super) const ISSUER: &str = "isURL(self) && url(self).getScheme() in ['https', 'http'] && url(self).getHost() != '' && !self.contains('#') && !self.matches('^[a-zA-Z]+://[^/?]*@') && !self.contains('?')";
pub(super) const ENDPOINT_OR_ISSUER: &str = "has(self.tokenURL) != has(self.issuer)";
pub(super) const TOKEN_URL_MESSAGE: &str = "write an absolute https URL without user name, password and fragment, for example https://idp.example.com/oauth/token";

/// A host name or an IP address, and optionally a port from 1 to 65535.
pub(super) const HOST: &str = "self.matches('^([a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?(\\\\.[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*|\\\\[[0-9a-fA-F:.]+\\\\])(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?$')";
/// [`HOST`], of each item.
pub(super) const HOSTS: &str = "self.all(host, host.matches('^([a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?(\\\\.[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*|\\\\[[0-9a-fA-F:.]+\\\\])(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?$'))";
/// Not `.` and `..`, and no owner.
pub(super) const REPOSITORIES: &str =
    "self.all(name, name.matches('^[-._a-zA-Z0-9]+$') && !(name in ['.', '..']))";
pub(super) const TENANT: &str =
    "!(self in ['.', '..']) && self.matches('^[^/\\\\\\\\\\\\x00-\\\\x1f\\\\x7f]+$')";

/// RFC 6749, section 3.3: scope-token.
pub(super) const SCOPES: &str = "self.all(s, s.matches('^[\\\\x21\\\\x23-\\\\x5b\\\\x5d-\\\\x7e]+$'))";
pub(super) const SCOPES_MESSAGE: &str =
    "write one scope per list item, without spaces, quotes and backslashes";

/// RFC 8707, section 2; and the GUID of an application.
pub(super) const RESOURCES: &str = "self.all(r, r.matches('^([a-zA-Z][-+.a-zA-Z0-9]*:[^#\\\\s]+|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$'))";
pub(super) const RESOURCES_MESSAGE: &str = "write absolute URIs without fragment and spaces (RFC 8707), for example https://api.example.com, or the bare GUID of an application";

/// RFC 6901, section 3.
pub(super) const POINTER: &str = "self.matches('^(/([^~/]|~[01])*)+$')";
pub(super) const POINTER_MESSAGE: &str =
    "write a JSON pointer (RFC 6901): a slash before each name, for example /data/accessToken";
pub(super) const ONE_EXPIRY: &str = "!(has(self.expiresIn) && has(self.expiresAt))";

pub(super) const PARAMETER_ONCE: &str = "!has(self.parameters) || !has(self.secretParameters) || self.parameters.all(name, !(name in self.secretParameters))";
pub(super) const HEADER_ONCE: &str = "!has(self.headers) || !has(self.secretHeaders) || self.headers.all(name, self.secretHeaders.all(other, name.lowerAscii() != other.lowerAscii()))";

pub(super) const DURATION: &str = "self.matches('^([0-9]{1,9}(h|m|s))+$') && duration(self) >= duration('1s') && duration(self) <= duration('8760h')";
/// `MAX_ASSERTION_LIFETIME` of the crate `token-endpoint`.
pub(super) const ASSERTION_LIFETIME: &str = "self.matches('^([0-9]{1,9}(h|m|s))+$') && duration(self) >= duration('1s') && duration(self) <= duration('1h')";
pub(super) const DURATION_MESSAGE: &str = "write a duration from 1s to 8760h in whole hours (h), minutes (m) and seconds (s), for example 90s or 1h30m";

/// `MIN_REFRESH_INTERVAL` of the operator's schedule: a shorter interval has no effect.
pub(super) const MAX_INTERVAL: &str = "self.matches('^([0-9]{1,9}(h|m|s))+$') && duration(self) >= duration('30s') && duration(self) <= duration('8760h')";
pub(super) const MAX_INTERVAL_MESSAGE: &str = "write a duration from 30s to 8760h in whole hours (h), minutes (m) and seconds (s), for example 15m; no token that lives for a minute or longer is refreshed more often than every 30s";
/// With a shorter lifetime, tokens would be requested continuously.
pub(super) const DEFAULT_LIFETIME: &str = "self.matches('^([0-9]{1,9}(h|m|s))+$') && duration(self) >= duration('1m') && duration(self) <= duration('8760h')";
pub(super) const DEFAULT_LIFETIME_MESSAGE: &str = "write a duration from 1m to 8760h in whole hours (h), minutes (m) and seconds (s), for example 15m: what is assumed to live for seconds would be asked for again and again";
pub(super) const PROPAGATION_DELAY: &str = "self.matches('^([0-9]{1,9}(h|m|s))+$') && duration(self) >= duration('1s') && duration(self) <= duration('1h')";
pub(super) const PROPAGATION_DELAY_MESSAGE: &str = "write a duration from 1s to 1h in whole hours (h), minutes (m) and seconds (s), for example 2m: the kubelet's sync period and the time-to-live of its cache, some 90s unless it was configured otherwise";

pub(super) const OBJECT_NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
pub(super) const SECRET_KEY: &str = "^[-._a-zA-Z0-9]+$";

/// The bounds of all values of a map together, in characters: what fits into each alone would be 512 kB of templates.
pub(super) const TOTALS: [(&str, u64); 5] = [
    ("spec.target.template.data", MAX_TEMPLATES),
    ("spec.target.template.metadata.annotations", MAX_ANNOTATIONS),
    ("spec.provider.oauth2.parameters", MAX_PARAMETERS),
    ("spec.provider.oauth2.headers", MAX_HEADERS),
    ("spec.provider.oauth2.grant.jwtBearer.claims", MAX_CLAIMS),
];
pub(super) const MAX_TEMPLATES: u64 = 64 * 1024;
pub(super) const MAX_ANNOTATIONS: u64 = 16 * 1024;
pub(super) const MAX_PARAMETERS: u64 = 32 * 1024;
pub(super) const MAX_HEADERS: u64 = 16 * 1024;
pub(super) const MAX_CLAIMS: u64 = 16 * 1024;

/// The rule of the API server for such a map.
pub(super) fn total_rule(max: u64) -> Value {
    json!({
        "rule": format!("self.map(name, size(self[name])).sum() <= {max}"),
        "message": format!("all values together may have at most {max} characters"),
    })
}

/// A parameter that is not reserved.
pub(super) fn service_account_token_parameter() -> String {
    format!("!(self.lowerAscii() in [{}])", reserved_parameters())
}

fn reserved_parameters() -> String {
    let reserved: Vec<String> =
        crate::reserved::RESERVED_PARAMETERS.iter().map(|name| format!("'{name}'")).collect();
    reserved.join(", ")
}

/// At most 32 parameters, none of them reserved.
pub(super) fn parameters_schema(_: &mut SchemaGenerator) -> Schema {
    parameters(&json!({"type": "string", "maxLength": 4096}), Some(total_rule(MAX_PARAMETERS)))
}

/// As [`parameters_schema`], with keys of the credentials Secret as values.
pub(super) fn secret_parameters_schema(_: &mut SchemaGenerator) -> Schema {
    parameters(&key(), None)
}

/// At most 32 headers, none of them refused.
pub(super) fn headers_schema(_: &mut SchemaGenerator) -> Schema {
    // Printable ASCII, without leading and trailing spaces.
    let value = json!({"type": "string", "maxLength": 4096, "pattern": "^([!-~]([ !-~]*[!-~])?)?$"});
    headers(&value, Some(total_rule(MAX_HEADERS)))
}

/// As [`headers_schema`], with keys of the credentials Secret as values.
pub(super) fn secret_headers_schema(_: &mut SchemaGenerator) -> Schema {
    headers(&key(), None)
}

/// Between 1 and 16 labels.
pub(super) fn match_labels_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

/// At most 32 claims, none of them reserved.
pub(super) fn claims_schema(_: &mut SchemaGenerator) -> Schema {
    let reserved: Vec<String> =
        crate::reserved::RESERVED_CLAIMS.iter().map(|name| format!("'{name}'")).collect();
    let reserved = reserved.join(", ");
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 4096},
        "x-kubernetes-validations": [
            {
                "rule": "self.all(name, size(name) > 0 && size(name) <= 128)",
                "message": "a claim's name must have between 1 and 128 characters",
            },
            {
                "rule": format!("self.all(name, !(name in [{reserved}]))"),
                "message": "claims that the operator writes by itself (iss, sub, aud, exp, iat, nbf, jti) cannot be set here; for the first three there are issuer, subject and audience",
            },
            total_rule(MAX_CLAIMS),
        ],
    })
}

/// At most 16 names with JSON pointers, none of which leads to a token or a secret.
pub(super) fn values_schema(_: &mut SchemaGenerator) -> Schema {
    let secret = crate::reserved::SECRET_MEMBERS.join("|");
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 16,
        "additionalProperties": {
            "type": "string",
            "minLength": 1,
            "maxLength": 256,
            "x-kubernetes-validations": [
                {"rule": POINTER, "message": POINTER_MESSAGE},
                {
                    "rule": format!("!self.replace('_', '').replace('-', '').lowerAscii().matches('/({secret})(/|$)')"),
                    "message": "tokens and secrets are out of a template's reach; the access token is {{ access_token }}, see response.accessToken",
                },
            ],
        },
        "x-kubernetes-validations": [{
            "rule": "self.all(name, name.matches('^[a-zA-Z_][a-zA-Z0-9_]{0,63}$'))",
            "message": "a value's name must have between 1 and 64 letters, digits and underscores, and not begin with a digit",
        }],
    })
}

fn key() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 253, "pattern": SECRET_KEY})
}

fn parameters(value: &Value, total: Option<Value>) -> Schema {
    let reserved = reserved_parameters();
    let rules = [
        json!({
            "rule": "self.all(name, size(name) > 0 && size(name) <= 128)",
            "message": "a parameter's name must have between 1 and 128 characters",
        }),
        json!({
            "rule": format!("self.all(name, !(name.lowerAscii() in [{reserved}]))"),
            "message": "members of the request that have a field of their own (grant_type, client_id, scope, ...) cannot be set here; use that field, or a key of the credentials Secret",
        }),
    ];
    let rules: Vec<Value> = rules.into_iter().chain(total).collect();
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": value,
        "x-kubernetes-validations": rules,
    })
}

fn headers(value: &Value, total: Option<Value>) -> Schema {
    let refused: Vec<String> = crate::reserved::REFUSED_HEADERS
        .iter()
        .map(|name| name.strip_suffix('*').map_or_else(|| format!("{name}$"), str::to_owned))
        .collect();
    let refused = refused.join("|");
    let rules = [
        json!({
            // RFC 9110, section 5.6.2: token.
            "rule": "self.all(name, name.matches('^[-!#$%&*+.^_`|~0-9a-zA-Z]{1,128}$'))",
            "message": "a header's name must have between 1 and 128 letters, digits and -_.",
        }),
        json!({
            "rule": format!("self.all(name, !name.lowerAscii().matches('^({refused})'))"),
            "message": "headers of the connection, of proxies and of the operator itself (Authorization, Cookie, Host, Content-*, Connection, Transfer-Encoding, Proxy-*, Forwarded, X-Forwarded-*, Metadata*, X-aws-*, Impersonate-* and the like) cannot be set; for Authorization use clientAuthentication",
        }),
    ];
    let rules: Vec<Value> = rules.into_iter().chain(total).collect();
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": value,
        "x-kubernetes-validations": rules,
    })
}
