//! What is kept of the objects that are read, each part with its bound. An API server accepts objects of some 1.5 MB, most of
//! it labels, annotations and managedFields of others.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::reduce::Keep;

/// The most bytes of a spec, in JSON: more than the schema permits to write.
pub(crate) const MAX_SPEC_BYTES: usize = 256 << 10;
/// The most bytes of the managedFields of a Secret (the managers, and the names of data keys), and of its ownerReferences.
pub(crate) const MAX_MANAGED_FIELDS_BYTES: usize = 128 << 10;
/// The most bytes of a status. What the operator writes has a tenth of it.
const MAX_STATUS_BYTES: usize = 64 << 10;
/// The most bytes of the operator's record.
const MAX_RECORD_BYTES: usize = 16 << 10;
/// The most bytes of what is kept of a pod's volumes or containers.
const MAX_ELEMENTS_BYTES: usize = 64 << 10;
/// The most bytes of the data of a Secret or ConfigMap: 1 MiB in base64, or as JSON escapes it.
const MAX_DATA_BYTES: usize = 3 << 20;
/// The most bytes of the token of a ServiceAccount. One that an RSA key of 4,096 bits signs has some 1,500.
pub(crate) const MAX_ISSUED_TOKEN: usize = 8 << 10;
/// The most bytes of the token for the next page.
const MAX_CONTINUE_BYTES: usize = 16 << 10;

/// A name, and what is as short: 253 characters, and escapes.
const NAME: Keep = Keep::Value(1024);
/// A number, a time, a word.
const WORD: Keep = Keep::Value(64);
/// A text that the operator or its users wrote.
const TEXT: Keep = Keep::Value(4096);

/// What is kept of the responses about a kind.
#[derive(Debug)]
pub(crate) struct Responses {
    /// Of one object.
    pub(crate) object: Keep,
    /// Of a list: each item, and the list without its items.
    pub(crate) list: Keep,
    /// Of an event of a watch, a line of JSON.
    pub(crate) event: Keep,
}

/// The responses for an object of which this is kept; of a Status `code` and `message`.
macro_rules! responses {
    ($($member:expr),+ $(,)?) => {
        Responses {
            object: Keep::Members(&[$($member),+]),
            list: Keep::Members(&[
                ("metadata", Keep::Members(&[("resourceVersion", WORD), ("continue", Keep::Value(MAX_CONTINUE_BYTES))])),
                ("items", Keep::Items(&Keep::Members(&[$($member),+]))),
            ]),
            event: Keep::Members(&[
                ("type", WORD),
                ("object", Keep::Members(&[$($member),+, ("code", WORD), ("message", TEXT)])),
            ]),
        }
    };
}

/// The metadata that tells which object it is, and in which state.
macro_rules! identity {
    ($($member:expr),* $(,)?) => {
        ("metadata", Keep::Members(&[
            ("name", NAME),
            ("namespace", NAME),
            ("uid", NAME),
            ("resourceVersion", WORD),
            ("generation", WORD),
            ("creationTimestamp", WORD),
            ("deletionTimestamp", WORD),
            $($member),*
        ]))
    };
}

const SECRET_METADATA: (&str, Keep) = identity!(
    (
        "labels",
        Keep::Members(&[("app.kubernetes.io/managed-by", NAME), ("tokensource.dev/credentials", NAME)])
    ),
    (
        "annotations",
        Keep::Members(&[
            ("tokensource.dev/record", Keep::Value(MAX_RECORD_BYTES)),
            ("tokensource.dev/refresh-token-of", NAME),
            ("tokensource.dev/refresh-token-sent", TEXT),
            ("tokensource.dev/adopt", NAME),
        ])
    ),
    (
        "ownerReferences",
        Keep::Elements(
            &Keep::Members(&[
                ("apiVersion", NAME),
                ("kind", NAME),
                ("name", NAME),
                ("uid", NAME),
                ("controller", WORD)
            ]),
            MAX_MANAGED_FIELDS_BYTES
        )
    ),
    (
        "managedFields",
        Keep::Elements(
            &Keep::Members(&[
                ("manager", NAME),
                ("operation", WORD),
                ("time", WORD),
                ("fieldsV1", Keep::Members(&[("f:data", Keep::Value(MAX_MANAGED_FIELDS_BYTES))])),
            ]),
            MAX_MANAGED_FIELDS_BYTES
        )
    ),
);

/// The metadata of a Secret.
pub(super) static SECRET_FACTS: Responses = responses!(SECRET_METADATA);

/// A Secret.
pub(super) static SECRET: Responses =
    responses!(SECRET_METADATA, ("type", NAME), ("immutable", WORD), ("data", Keep::Value(MAX_DATA_BYTES)));

/// A ConfigMap.
pub(super) static CONFIG_MAP: Responses = responses!(
    identity!(),
    ("data", Keep::Value(MAX_DATA_BYTES)),
    ("binaryData", Keep::Value(MAX_DATA_BYTES)),
);

/// A Secret with a stored refresh token, without the token.
pub(super) static STORED_REFRESH_TOKEN: Responses = responses!(
    identity!(("annotations", Keep::Members(&[("tokensource.dev/refresh-token-of", NAME)]))),
    ("data", Keep::Members(&[("seed_sha256", NAME)])),
);

/// A TokenSource.
pub(super) static SOURCE: Responses = responses!(
    identity!(("annotations", Keep::Members(&[("tokensource.dev/refresh-requested-at", TEXT)]))),
    ("spec", Keep::Value(MAX_SPEC_BYTES)),
    ("status", Keep::Value(MAX_STATUS_BYTES)),
);

/// A ClusterTokenIssuer.
pub(super) static ISSUER: Responses = responses!(
    identity!(),
    ("spec", Keep::Value(MAX_SPEC_BYTES)),
    ("status", Keep::Value(MAX_STATUS_BYTES)),
);

/// The labels of a namespace. Without them, no selector selects it.
pub(super) static LABELS: Responses = responses!(identity!(("labels", Keep::Value(MAX_RECORD_BYTES))));

/// An object of which only its identity matters: a namespace, the TokenSource whose status was written.
pub(super) static IDENTITY: Responses = responses!(identity!());

/// A ServiceAccount, and the annotation by which it consents to tokens. One that is longer is no consent.
pub(super) static ACCOUNT: Keep = Keep::Members(&[identity!((
    "annotations",
    Keep::Members(&[("tokensource.dev/audiences", Keep::Value(MAX_RECORD_BYTES))])
))]);

/// A TokenRequest that was answered.
pub(super) static ISSUED_TOKEN: Keep = Keep::Members(&[(
    "status",
    Keep::Members(&[("token", Keep::Value(MAX_ISSUED_TOKEN)), ("expirationTimestamp", WORD)]),
)]);

/// A SelfSubjectReview that was answered.
pub(super) static REVIEWED: Keep =
    Keep::Members(&[("status", Keep::Members(&[("userInfo", Keep::Members(&[("username", NAME)]))]))]);

/// A ServiceCIDR.
pub(super) static SERVICE_CIDR: Responses = responses!(("spec", Keep::Members(&[("cidrs", TEXT)])));

const CONTAINERS: Keep = Keep::Elements(
    &Keep::Members(&[
        ("name", NAME),
        ("restartPolicy", WORD),
        (
            "volumeMounts",
            Keep::Elements(
                &Keep::Members(&[("name", NAME), ("subPath", TEXT), ("subPathExpr", TEXT)]),
                MAX_ELEMENTS_BYTES,
            ),
        ),
        (
            "env",
            Keep::Elements(
                &Keep::Members(&[(
                    "valueFrom",
                    Keep::Members(&[("secretKeyRef", Keep::Members(&[("name", NAME)]))]),
                )]),
                MAX_ELEMENTS_BYTES,
            ),
        ),
        (
            "envFrom",
            Keep::Elements(
                &Keep::Members(&[("secretRef", Keep::Members(&[("name", NAME)]))]),
                MAX_ELEMENTS_BYTES,
            ),
        ),
    ]),
    MAX_ELEMENTS_BYTES,
);

const CONTAINER_STATUSES: Keep = Keep::Elements(
    &Keep::Members(&[
        ("name", NAME),
        ("state", Keep::Members(&[("running", Keep::Members(&[("startedAt", WORD)]))])),
    ]),
    MAX_ELEMENTS_BYTES,
);

const VOLUMES: Keep = Keep::Elements(
    &Keep::Members(&[
        ("name", NAME),
        ("secret", Keep::Members(&[("secretName", NAME)])),
        (
            "projected",
            Keep::Members(&[(
                "sources",
                Keep::Elements(
                    &Keep::Members(&[("secret", Keep::Members(&[("name", NAME)]))]),
                    MAX_ELEMENTS_BYTES,
                ),
            )]),
        ),
    ]),
    MAX_ELEMENTS_BYTES,
);

/// A pod: how it uses Secrets, without the values of its environment.
pub(super) static POD: Responses = responses!(
    identity!(("annotations", Keep::Members(&[("tokensource.dev/refreshed", NAME)]))),
    (
        "spec",
        Keep::Members(&[
            ("volumes", VOLUMES),
            ("containers", CONTAINERS),
            ("initContainers", CONTAINERS),
            ("ephemeralContainers", CONTAINERS),
        ])
    ),
    (
        "status",
        Keep::Members(&[
            ("phase", WORD),
            ("startTime", WORD),
            ("containerStatuses", CONTAINER_STATUSES),
            ("initContainerStatuses", CONTAINER_STATUSES),
        ])
    ),
);

#[cfg(test)]
mod tests {
    use crate::secret::{
        ADOPT_ANNOTATION, CREDENTIALS_LABEL, MANAGED_BY_LABEL, RECORD_ANNOTATION, REFRESH_REQUEST_ANNOTATION,
        REFRESH_TOKEN_ANNOTATION, REFRESH_TOKEN_SENT_ANNOTATION, REFRESHED_ANNOTATION,
    };

    /// The names are literals above, and in the types that are parsed.
    #[test]
    fn kept_names_are_those_of_labels_and_annotations() {
        let names = [
            MANAGED_BY_LABEL.0,
            CREDENTIALS_LABEL.0,
            RECORD_ANNOTATION,
            REFRESH_TOKEN_ANNOTATION,
            REFRESH_TOKEN_SENT_ANNOTATION,
            ADOPT_ANNOTATION,
            REFRESH_REQUEST_ANNOTATION,
            REFRESHED_ANNOTATION,
        ];
        let kept = format!(
            "{:?} {:?} {:?} {:?}",
            super::SECRET_FACTS,
            super::STORED_REFRESH_TOKEN,
            super::SOURCE,
            super::POD
        );
        for name in names {
            assert!(kept.contains(&format!("\"{name}\"")), "{name}");
        }
    }
}
