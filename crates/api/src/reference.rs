//! References to objects in the TokenSource's own namespace.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// A Secret in the TokenSource's own namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct SecretReference {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
}

/// A key of an object in the TokenSource's own namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct KeyReference {
    /// The object's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
    /// The key, for example `ca.crt`.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::SECRET_KEY))]
    pub key: String,
}
