//! Namespace and name of an object.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// An object's namespace and name. Clones share them: a key takes one pointer in each of the tables that have it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<Parts>);

/// The parts of a [`Key`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Parts {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl Deref for Key {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Key {
    /// The key of `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self::from_parts(namespace.into(), name.into())
    }

    /// The same, in memory that others share.
    #[must_use]
    pub fn from_parts(namespace: Arc<str>, name: Arc<str>) -> Self {
        Key(Arc::new(Parts { namespace, name }))
    }

    /// The key of an object.
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Self {
        let text = |value: &Option<String>| value.as_deref().unwrap_or_default().into();
        Key::from_parts(text(&metadata.namespace), text(&metadata.name))
    }

    /// The key of `name` in the same namespace.
    #[must_use]
    pub fn sibling(&self, name: impl Into<Arc<str>>) -> Self {
        Key::from_parts(Arc::clone(&self.namespace), name.into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
