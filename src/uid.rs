#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The uid of an object.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// `metadata.uid`. To a client it is text; every API server gives UUIDs, which take 16 bytes in place of 60. There are several for
/// each TokenSource.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Uid(Form);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Form {
    Uuid(Uuid),
    Other(Box<str>),
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        // Only what is written in the same way again.
        let uuid = Uuid::try_parse(text).ok();
        let same = uuid.filter(|uuid| uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text);
        Uid(same.map_or_else(|| Form::Other(text.into()), Form::Uuid))
    }
}

impl Default for Uid {
    fn default() -> Self {
        Uid::from("")
    }
}

impl From<String> for Uid {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<Uid> for String {
    fn from(uid: Uid) -> Self {
        uid.to_string()
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Uuid(uuid) => fmt::Display::fmt(uuid, f),
            Form::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_is_the_text_that_it_was_made_of() {
        let uuid = "0b9a7c1e-6f3d-4a52-9c1b-2f60a8d4e7f1";
        let others =
            ["", "u", "0B9A7C1E-6F3D-4A52-9C1B-2F60A8D4E7F1", "0b9a7c1e6f3d4a529c1b2f60a8d4e7f1", "{x}"];
        for text in others.into_iter().chain([uuid]) {
            let uid = Uid::from(text);
            let json = serde_json::to_string(&uid).unwrap();
            assert_eq!((uid.to_string().as_str(), json), (text, format!("{text:?}")));
            assert_eq!(serde_json::from_str::<Uid>(&format!("{text:?}")).unwrap(), uid);
            assert_eq!(matches!(uid.0, Form::Uuid(_)), text == uuid, "{text}");
        }
        assert!(size_of::<Option<Uid>>() <= 24);
    }
}
