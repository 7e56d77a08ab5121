//! `spec.tls`: which certificates of the token endpoint are trusted, and the client certificate.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::reference::{KeyReference, SecretReference};
use super::rules;

/// TLS to the token endpoint. The objects that are named here are read at each token request, in the TokenSource's own namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Certificates in PEM that replace the system's roots: those of authorities, or a server's self-signed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// A Secret that holds a client certificate and its key under tls.crt and tls.key (type kubernetes.io/tls), for mutual TLS (RFC 8705).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<SecretReference>,
}

/// Where the certificates are stored: exactly one member.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(rules::ONE_CA_BUNDLE).message("exactly one of configMapKeyRef and secretKeyRef must be set"))]
pub struct CaBundle {
    /// A key of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyReference>,
    /// A key of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyReference>,
}
