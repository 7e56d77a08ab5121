//! Manifests that the API server refuses, each with a part of the message of `kubectl apply`.

use serde_json::{Value, json};

use super::{credentials, named, oauth2, of, source, vcd, vgs, with};

const TOKEN_URL: &str = "write an absolute https URL without user name, password and fragment, for example https://idp.example.com/oauth/token";
const DURATION: &str = "write a duration from 1s to 8760h in whole hours (h), minutes (m) and seconds (s), for example 90s or 1h30m";
const ONE_PROVIDER: &str =
    "exactly one of vgs, vngCloud, vmwareCloudDirector, gitHubApp and oauth2 must be set";
const TENANT: &str = "no slash, backslash or control character, and not `.` or `..`";
const HOST: &str = "write the host alone, with a port if it is not 443";
const RESERVED: &str = "members of the request that have a field of their own";
const ONE_GRANT: &str = "exactly one of clientCredentials, refreshToken, jwtBearer, assertion, tokenExchange and custom must be set";
const ONE_AUTHENTICATION: &str =
    "exactly one of basic, post, privateKeyJWT, assertion, serviceAccountToken, tls and none must be set";
const ISSUER: &str = "write the issuer exactly as its metadata has it";
const ONE_BUNDLE: &str = "exactly one of configMapKeyRef and secretKeyRef must be set";
const HEADERS: &str = "headers of the connection, of proxies and of the operator itself";
const HEADER_NAME: &str = "a header's name must have between 1 and 128 letters";
const POINTER: &str = "write a JSON pointer (RFC 6901)";
const RESOURCES: &str = "write absolute URIs without fragment and spaces (RFC 8707)";
const REPOSITORIES: &str = "write the names of repositories without their owner";
const SCOPES: &str = "one scope per list item, without spaces, quotes and backslashes";
const TYPE: &str = "write one of Opaque, kubernetes.io/dockerconfigjson";
const DATA_KEY: &str = "a key may have at most 253 letters, digits";
const METADATA: &str = "mean something to the cluster or to its tools, and cannot be set here";
const OUT_OF_REACH: &str = "tokens and secrets are out of a template's reach";

pub(super) fn refused() -> Vec<(Value, &'static str)> {
    let url = |url: &str| of(json!({"vgs": {"tokenURL": url}}));
    let refresh = |refresh: Value| vgs(json!({"refresh": refresh}));
    let tenant = |tenant: &str| vcd(json!({"host": "vcd.example.com", "tenant": tenant}));
    let host = |host: &str| vcd(json!({"host": host, "tenant": "acme"}));
    let parameters = |parameters: Value| oauth2(json!({"parameters": parameters}));
    let bearer = |bearer: Value| oauth2(json!({"grant": {"jwtBearer": bearer}}));
    let exchange = |exchange: Value| oauth2(json!({"grant": {"tokenExchange": exchange}}));
    let template = |template: Value| vgs(json!({"target": {"template": template}}));
    let labels = |labels: Value| template(json!({"metadata": {"labels": labels}}));
    let annotations = |annotations: Value| template(json!({"metadata": {"annotations": annotations}}));
    let values = |values: Value| oauth2(json!({"response": {"values": values}}));
    let github = |github: Value| of(json!({"gitHubApp": github}));
    let tls = |tls: Value| vgs(json!({"tls": tls}));
    let reference = json!({"name": "roots", "key": "ca.crt"});
    let many = |n: usize| (0..n).map(|n| format!("s{n}")).collect::<Vec<_>>();
    let long = |n: usize| "x".repeat(n);
    [
        // Unions.
        (of(json!({"vgs": null})), "write `vgs: {}`, not `vgs:`"),
        (of(json!({})), ONE_PROVIDER),
        (of(json!({"vgs": {}, "vngCloud": {}})), ONE_PROVIDER),
        (oauth2(json!({"grant": {}})), ONE_GRANT),
        (oauth2(json!({"grant": {"refreshToken": null}})), "write `refreshToken: {}`, not `refreshToken:`"),
        (oauth2(json!({"grant": {"clientCredentials": {}, "refreshToken": {}}})), ONE_GRANT),
        (oauth2(json!({"clientAuthentication": {}})), ONE_AUTHENTICATION),
        (oauth2(json!({"clientAuthentication": {"post": null}})), "write `post: {}`, not `post:`"),
        (oauth2(json!({"clientAuthentication": {"post": {}, "none": {}}})), ONE_AUTHENTICATION),
        (oauth2(json!({"grant": {"jwtBearer": {}, "assertion": {"from": "secretKey"}}})), ONE_GRANT),
        (
            oauth2(json!({"clientAuthentication": {"none": {}, "assertion": {"from": "secretKey"}}})),
            ONE_AUTHENTICATION,
        ),
        (of(json!({"gitHubApp": {"installationID": 1}, "oauth2": {"tokenURL": "https://a"}})), ONE_PROVIDER),
        // Assertions that another program makes.
        (oauth2(json!({"grant": {"assertion": {}}})), "grant.assertion.from: Required value"),
        (oauth2(json!({"grant": {"assertion": {"from": "file"}}})), "supported values: \"secretKey\""),
        (
            oauth2(json!({"clientAuthentication": {"assertion": {"from": "secretKey", "key": "a/b"}}})),
            "clientAuthentication.assertion.key",
        ),
        // GitHub Apps.
        (github(json!({})), "spec.provider.gitHubApp.installationID: Required value"),
        (github(json!({"installationID": 0})), "should be greater than or equal to 1"),
        (github(json!({"installationID": 1, "host": "https://github.example.com"})), HOST),
        (github(json!({"installationID": 1, "host": "github.example.com/api/v3"})), HOST),
        (github(json!({"installationID": 1, "repositories": ["acme/website"]})), REPOSITORIES),
        (github(json!({"installationID": 1, "repositories": [".."]})), REPOSITORIES),
        (github(json!({"installationID": 1, "repositories": []})), "should have at least 1 items"),
        (github(json!({"installationID": 1, "permissions": {"contents": "all"}})), "supported values: \"read\""),
        (
            github(json!({"installationID": 1, "permissions": {"Pull Requests": "read"}})),
            "write permissions as GitHub's API names them",
        ),
// Required fields.
        (json!({"provider": {"vgs": {}}, "credentials": {}}), super::keyless::ONE_CREDENTIALS),
        (
            json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {}}}),
            "spec.credentials.secretRef.name: Required value",
        ),
        (of(json!({"oauth2": {}})), "exactly one of tokenURL and issuer must be set"),
        (oauth2(json!({"issuer": "https://a"})), "exactly one of tokenURL and issuer must be set"),
        (of(json!({"oauth2": {"issuer": "https://a?b"}})), ISSUER),
        (of(json!({"oauth2": {"issuer": "https://a#b"}})), ISSUER),
        (of(json!({"oauth2": {"issuer": "https://me@a"}})), ISSUER),
        (of(json!({"oauth2": {"issuer": "idp.example.com"}})), ISSUER),
        (vcd(json!({"tenant": "acme"})), "spec.provider.vmwareCloudDirector.host: Required value"),
        // URLs.
        (url("idp.example.com/oauth/token"), TOKEN_URL),
        (url("ftp://idp.example.com/token"), TOKEN_URL),
        (url("https://me:secret@idp.example.com/token"), TOKEN_URL),
        (url("http://me@idp.example.com/token"), TOKEN_URL),
        (url("https://idp.example.com/token#here"), TOKEN_URL),
        (url("https:///token"), TOKEN_URL),
        (url(""), "spec.provider.vgs.tokenURL"),
        (url(&format!("https://idp.example.com/{}", long(2048))), "Too long: may not be more than 2048"),
        (of(json!({"vngCloud": {"tokenURL": "https://a#b"}})), TOKEN_URL),
        (oauth2(json!({"tokenURL": "https://a@b"})), TOKEN_URL),
        (vcd(json!({"host": "vcd.example.com", "tenant": "a", "tokenURL": "https://a#b"})), TOKEN_URL),
        // VMware Cloud Director.
        (tenant("a/b"), TENANT),
        (tenant("a\\b"), TENANT),
        (tenant("a\nb"), TENANT),
        (tenant(".."), TENANT),
        (tenant("."), TENANT),
        (tenant(&long(129)), "Too long: may not be more than 128"),
        (
            vcd(json!({"host": "vcd.example.com", "tenant": "acme", "system": true})),
            "exactly one of `tenant: NAME` and `system: true` must be set",
        ),
        (
            vcd(json!({"host": "vcd.example.com"})),
            "exactly one of `tenant: NAME` and `system: true` must be set",
        ),
        (
            vcd(json!({"host": "vcd.example.com", "system": false})),
            "exactly one of `tenant: NAME` and `system: true` must be set",
        ),
        (host("https://vcd.example.com"), HOST),
        (host("vcd.example.com/cloud"), HOST),
        (host("me@vcd.example.com"), HOST),
        (host("vcd.example.com:https"), HOST),
        (host("vcd.example.com:99999"), HOST),
        (host("vcd..example.com"), HOST),
        (host(""), "spec.provider.vmwareCloudDirector.host"),
        (
            with(tenant("acme"), json!({"credentials": {"secretRef": {"name": "c"}, "clientIDKey": "id"}})),
            "provider vmwareCloudDirector authenticates by its API token alone",
        ),
        // Scopes and parameters.
        (oauth2(json!({"scopes": ["read write"]})), SCOPES),
        (oauth2(json!({"scopes": ["re\"ad"]})), SCOPES),
        (oauth2(json!({"scopes": []})), "spec.provider.oauth2.scopes"),
        (oauth2(json!({"scopes": [""]})), "spec.provider.oauth2.scopes[0]"),
        (oauth2(json!({"scopes": [long(257)]})), "Too long: may not be more than 256"),
        (oauth2(json!({"scopes": many(65)})), "must have at most 64 items"),
        (of(json!({"vngCloud": {"scopes": ["e mail"]}})), SCOPES),
        (of(json!({"vgs": {"scopes": ["cards:read cards:write"]}})), SCOPES),
        (oauth2(json!({"resources": ["00000003-0000-0000-c000-00000000000"]})), RESOURCES),
        (oauth2(json!({"resources": ["00000003-0000-0000-c000-000000000000/x"]})), RESOURCES),
        (parameters(json!({"grant_type": "password"})), RESERVED),
        (parameters(json!({"Client_Secret": "s"})), RESERVED),
        (parameters(json!({"scope": "a"})), RESERVED),
        (parameters(json!({"": "a"})), "a parameter's name must have between 1 and 128 characters"),
        (parameters(json!({long(129): "a"})), "a parameter's name must have between 1 and 128 characters"),
        (parameters(json!({"a": long(4097)})), "Too long: may not be more than 4096"),
        (
            parameters(Value::Object(many(33).into_iter().map(|name| (name, json!("a"))).collect())),
            "must have at most 32 items",
        ),
        (
            parameters((0..9).map(|n| (format!("p{n}"), json!(long(4096)))).collect::<serde_json::Map<_, _>>().into()),
            "all values together may have at most 32768 characters",
        ),
        (oauth2(json!({"secretParameters": {"client_secret": "k"}})), RESERVED),
        (oauth2(json!({"secretParameters": {"apikey": "a/b"}})), "secretParameters.apikey"),
        (
            oauth2(json!({"parameters": {"a": "1"}, "secretParameters": {"a": "k"}})),
            "parameters and secretParameters must not name the same member",
        ),
        (
            oauth2(json!({"grant": {"custom": {}}})),
            "spec.provider.oauth2.grant.custom.grantType: Required value",
        ),
        (
            oauth2(json!({"grant": {"custom": {"grantType": "refresh_token"}}})),
            "this grant has a member of its own beside custom",
        ),
        (
            oauth2(
                json!({"grant": {"custom": {"grantType": "urn:ietf:params:oauth:grant-type:jwt-bearer"}}}),
            ),
            "this grant has a member of its own beside custom",
        ),
// Assertions and token exchange.
        (bearer(json!({"lifetime": "61m"})), "write a duration from 1s to 1h"),
        (bearer(json!({"algorithm": "HS256"})), "supported values: \"RS256\""),
        (bearer(json!({"claims": {"iss": "me"}})), "claims that the operator writes by itself"),
        (bearer(json!({"claims": {"": "me"}})), "a claim's name must have between 1 and 128 characters"),
        (bearer(json!({"claims": {"a": 1}})), "spec.provider.oauth2.grant.jwtBearer.claims.a"),
        (bearer(json!({"issuer": ""})), "spec.provider.oauth2.grant.jwtBearer.issuer"),
        (
            oauth2(json!({"clientAuthentication": {"privateKeyJWT": {"certificateKey": "a/b"}}})),
            "clientAuthentication.privateKeyJWT.certificateKey",
        ),
        (exchange(json!({})), "subjectTokenType: Required value"),
        (
            exchange(json!({"subjectTokenType": "urn:t", "actorTokenKey": "actor"})),
            "actorTokenKey and actorTokenType belong together",
        ),
        (credentials(json!({"privateKeyKey": "a/b"})), "spec.credentials.privateKeyKey"),
// Audience, resources, headers and the response.
        (oauth2(json!({"audience": ""})), "spec.provider.oauth2.audience"),
        (oauth2(json!({"resources": []})), "spec.provider.oauth2.resources"),
        (oauth2(json!({"resources": ["api.example.com"]})), RESOURCES),
        (oauth2(json!({"resources": ["https://api.example.com/#a"]})), RESOURCES),
        (oauth2(json!({"headers": {"Authorization": "Basic x"}})), HEADERS),
        (oauth2(json!({"headers": {"content-LENGTH": "1"}})), HEADERS),
        (oauth2(json!({"headers": {"te": "trailers"}})), HEADERS),
        (oauth2(json!({"headers": {"Metadata-Flavor": "Google"}})), HEADERS),
        (oauth2(json!({"secretHeaders": {"Cookie": "k"}})), HEADERS),
        (oauth2(json!({"secretHeaders": {"X-Forwarded-For": "k"}})), HEADERS),
        (oauth2(json!({"headers": {"X Tenant": "a"}})), HEADER_NAME),
        (oauth2(json!({"headers": {"": "a"}})), HEADER_NAME),
        (oauth2(json!({"headers": {"X-Tenant": "a\nb"}})), "spec.provider.oauth2.headers.X-Tenant"),
        (
            oauth2(json!({"headers": {"X-Tenant": "a"}, "secretHeaders": {"x-tenant": "k"}})),
            "headers and secretHeaders must not name the same header",
        ),
        (oauth2(json!({"response": {"accessToken": "data.token"}})), POINTER),
        (oauth2(json!({"response": {"refreshToken": "/a~2"}})), POINTER),
        (oauth2(json!({"response": {"expiresIn": ""}})), "spec.provider.oauth2.response.expiresIn"),
        (
            oauth2(json!({"response": {"expiresIn": "/a", "expiresAt": "/b"}})),
            "expiresIn is a number of seconds, expiresAt a point in time: write one of them",
        ),
        (oauth2(json!({"requestEncoding": "XML"})), "supported values: \"Form\", \"JSON\""),
        (
            oauth2(json!({"clientAuthentication": {"basic": {"encoding": "raw"}}})),
            "supported values: \"Percent\", \"Raw\"",
        ),
        // Durations.
        (refresh(json!({"before": "0s"})), DURATION),
        (refresh(json!({"before": "-5m"})), DURATION),
        (refresh(json!({"before": "5"})), DURATION),
        (refresh(json!({"before": "soon"})), DURATION),
        (refresh(json!({"before": "500ms"})), DURATION),
        (refresh(json!({"before": "1d"})), DURATION),
        (refresh(json!({"before": "9000h"})), DURATION),
        (refresh(json!({"before": "999999999h999999999h"})), DURATION),
        (refresh(json!({"before": ""})), "spec.refresh.before"),
        (refresh(json!({"defaultLifetime": "59s"})), "write a duration from 1m to 8760h"),
        (refresh(json!({"maxInterval": "29s"})), "write a duration from 30s to 8760h"),
        (refresh(json!({"maxInterval": "often"})), "write a duration from 30s to 8760h"),
        (refresh(json!({"propagationDelay": "0m"})), "write a duration from 1s to 1h"),
        (refresh(json!({"propagationDelay": "1h1s"})), "write a duration from 1s to 1h"),
        // Credentials.
        (
            credentials(json!({"clientID": "a", "clientIDKey": "b"})),
            "clientID is the id itself, clientIDKey the key of the Secret that holds it: write one of them",
        ),
        (
            credentials(json!({"vgsServiceAccountKey": "a", "clientSecretKey": "b"})),
            "vgsServiceAccountKey holds both id and secret: remove clientID, clientIDKey and clientSecretKey",
        ),
        (
            with(
                oauth2(json!({})),
                json!({"credentials": {"secretRef": {"name": "c"}, "vgsServiceAccountKey": "k"}}),
            ),
            "vgsServiceAccountKey is for provider vgs",
        ),
        (credentials(json!({"clientID": ""})), "spec.credentials.clientID"),
        (credentials(json!({"clientIDKey": "a/b"})), "spec.credentials.clientIDKey"),
        (credentials(json!({"clientSecretKey": "a b"})), "spec.credentials.clientSecretKey"),
        (credentials(json!({"refreshTokenKey": ""})), "spec.credentials.refreshTokenKey"),
        (credentials(json!({"vgsServiceAccountKey": "a/b"})), "spec.credentials.vgsServiceAccountKey"),
        (credentials(json!({"secretRef": {"name": "Credentials"}})), "spec.credentials.secretRef.name"),
        // TLS.
        (tls(json!({"caBundle": {}})), ONE_BUNDLE),
        (tls(json!({"caBundle": {"configMapKeyRef": reference, "secretKeyRef": reference}})), ONE_BUNDLE),
        (tls(json!({"caBundle": {"configMapKeyRef": {"name": "roots"}}})), "configMapKeyRef.key: Required value"),
        (tls(json!({"caBundle": {"secretKeyRef": {"name": "Roots", "key": "ca.crt"}}})), "secretKeyRef.name"),
        (
            oauth2(json!({"clientAuthentication": {"tls": {}}})),
            "clientAuthentication tls is by the client certificate: name its Secret in spec.tls.clientCertificateRef",
        ),
        (tls(json!({"clientCertificateRef": {"name": "source"}})), "must not be a Secret that spec.tls names"),
        (
            with(tls(json!({"caBundle": {"secretKeyRef": reference}})), json!({"target": {"name": "roots"}})),
            "must not be a Secret that spec.tls names",
        ),
        // Templates.
        (template(json!({"type": "kubernetes.io/service-account-token"})), TYPE),
        (template(json!({"type": "Kubernetes.io/service-account-token"})), TYPE),
        (template(json!({"type": "bootstrap.kubernetes.io/token"})), TYPE),
        (template(json!({"type": "kubernetes.io/tls"})), TYPE),
        (template(json!({"type": "helm.sh/release.v1"})), TYPE),
        (template(json!({"type": "a b"})), "spec.target.template.type"),
        (template(json!({"type": ""})), "spec.target.template.type"),
        (template(json!({"type": "kubernetes.io/dockerconfigjson"})), "needs the key .dockerconfigjson in data"),
        (template(json!({"type": "kubernetes.io/dockercfg", "data": {"a": "b"}})), "needs the key .dockercfg in data"),
        (template(json!({"type": "kubernetes.io/basic-auth", "data": {"a": "b"}})), "needs the key username or password"),
        (template(json!({"data": {}})), "spec.target.template.data"),
        (template(json!({"data": {"a/b": "c"}})), DATA_KEY),
        (template(json!({"data": {"..a": "c"}})), DATA_KEY),
        (template(json!({"data": {".": "c"}})), DATA_KEY),
        (template(json!({"data": {"a": long(16385)}})), "Too long: may not be more than 16384"),
        (
            template(json!({"data": many(33).into_iter().map(|name| (name, json!("a"))).collect::<serde_json::Map<_, _>>()})),
            "must have at most 32 items",
        ),
        (labels(json!({"app.kubernetes.io/managed-by": "me"})), METADATA),
        (labels(json!({"Kubernetes.io/a": "me"})), METADATA),
        (labels(json!({"tokensource.dev/record": "a"})), METADATA),
        (labels(json!({"argocd.argoproj.io/secret-type": "cluster"})), METADATA),
        (labels(json!({"argocd.argoproj.io/instance": "a"})), METADATA),
        (labels(json!({"owner": "helm"})), "makes a Secret a release of Helm's"),
        (labels(json!({"a": "b c"})), "spec.target.template.metadata.labels"),
        (labels(json!({"a b": "c"})), "write keys as Kubernetes has them"),
        (annotations(json!({"kubernetes.io/service-account.name": "default"})), METADATA),
        (annotations(json!({"sub.k8s.io/a": "b"})), METADATA),
        (annotations(json!({"meta.helm.sh/release-name": "b"})), METADATA),
        (annotations(json!({"argocd.argoproj.io/secret-type": "repository"})), METADATA),
        (annotations(json!({"tokensource.dev/adopt": "b"})), METADATA),
        (annotations(json!({"multicluster.x-k8s.io/a": "b"})), METADATA),
        (annotations(json!({"reflector.v1.k8s.emberstack.com/reflects": "b"})), METADATA),
        (annotations(json!({"replicator.v1.mittwald.de/replicate-to": "*"})), METADATA),
        (labels(json!({"istio/multiCluster": "true"})), METADATA),
        (labels(json!({"sealedsecrets.bitnami.com/sealed-secrets-key": "active"})), METADATA),
        (annotations(json!({"/a": "b"})), "write keys as Kubernetes has them"),
        (
            annotations((0..5).map(|n| (format!("a{n}"), json!(long(4096)))).collect::<serde_json::Map<_, _>>().into()),
            "all values together may have at most 16384 characters",
        ),
        (
            template(json!({"data": (0..5).map(|n| (format!("k{n}"), json!(long(16384)))).collect::<serde_json::Map<_, _>>()})),
            "all values together may have at most 65536 characters",
        ),
        (values(json!({"url": "instance_url"})), POINTER),
        (values(json!({"a-b": "/a"})), "a value's name must have between 1 and 64 letters"),
        (values(json!({"a": "/refresh_token"})), OUT_OF_REACH),
        (values(json!({"a": "/data/refreshToken"})), OUT_OF_REACH),
        (values(json!({"a": "/access-token/x"})), OUT_OF_REACH),
        (values(json!({"a": "/id_token"})), OUT_OF_REACH),
        (values(json!({"a": "/client_secret"})), OUT_OF_REACH),
// Names that collide.
        (vgs(json!({"target": {"name": "sh.helm.release.v1.a.v1"}})), "belong to Helm"),
        (vgs(json!({"target": {"name": "credentials"}})), "must not be the credentials Secret"),
        (
            credentials(json!({"secretRef": {"name": "source"}})),
            "must not be the credentials Secret: the token would overwrite the credentials",
        ),
        (
            vgs(json!({"target": {"name": "source-refresh-token"}})),
            "is where the operator keeps a refresh token that rotates; write another spec.target.name",
        ),
        (
            credentials(json!({"secretRef": {"name": "source-refresh-token"}})),
            "belongs to the operator; write another spec.credentials.secretRef.name",
        ),
        (vgs(json!({"target": {"name": "Token"}})), "spec.target.name"),
        (vgs(json!({"target": {"name": "a..b"}})), "spec.target.name"),
        (vgs(json!({"target": {"deletionPolicy": "Keep"}})), "supported values: \"Delete\", \"Retain\""),
        (vgs(json!({"target": {"nmae": "token"}})), "unknown field \"spec.target.nmae\""),
        (vgs(json!({"suspend": "yes"})), "spec.suspend"),
    ]
    .into_iter()
    .chain(super::keyless::refused())
    .chain(super::issuers::refused_sources())
    .map(|(spec, sentence)| (source(spec), sentence))
    .chain([(named(&"n".repeat(240), vgs(json!({}))), "the name may have at most 239 characters")])
    .chain([(named("sh.helm.release.v1.a.v1", vgs(json!({}))), "belong to Helm")])
    .collect()
}
