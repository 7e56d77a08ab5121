//! Reduces JSON while it arrives. Whatever an object holds and however large it is, only what a [`Keep`] names is stored, each
//! part of it up to a bound. That the JSON is well-formed is left to its writer, the API server, and to the parser of the result.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// The most bytes of a member's name that is compared.
const MAX_NAME_BYTES: usize = 64;
/// The most bytes of a result. The bounds of its parts keep it smaller, unless an object has a member many times.
const MAX_RESULT_BYTES: usize = 4 << 20;
/// The most bytes of memory that stay for the next result.
const MAX_IDLE_BYTES: usize = 16 << 10;
/// The most members that are named as too large.
const MAX_TOO_LARGE: usize = 4;

/// What is kept of a JSON value. A value of another kind than expected becomes `null`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keep {
    /// The value as it is; `null` where it has more bytes than this.
    Value(usize),
    /// These members of an object.
    Members(&'static [(&'static str, Keep)]),
    /// The elements of an array; `null` where what is kept of them has more bytes than this.
    Elements(&'static Keep, usize),
    /// The elements of an array, each as a result of its own.
    Items(&'static Keep),
}

/// What was kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reduced {
    /// JSON.
    pub(crate) json: Vec<u8>,
    /// Whether it is an element of [`Keep::Items`]; else it is a whole document.
    pub(crate) is_item: bool,
    /// The paths of the first members that are `null` because they are too large.
    pub(crate) too_large: Vec<String>,
}

/// The input is not JSON, or repeats a member.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the response is not the JSON that was expected")]
pub(super) struct Malformed;

/// Reduces a sequence of documents.
#[derive(Debug)]
pub(super) struct Reducer {
    root: Keep,
    /// The containers around the present place, of which something is kept.
    open: Vec<Open>,
    place: Place,
    /// The name that is being read, as far as it may be one that is kept.
    name: Vec<u8>,
    out: Vec<u8>,
    too_large: Vec<String>,
}

/// A container that is open.
#[derive(Debug)]
struct Open {
    keep: Keep,
    /// Its name in the container around it.
    name: &'static str,
    /// Where it begins in the result.
    start: usize,
    is_empty: bool,
    /// It was too large.
    is_dropped: bool,
}

/// A value that is expected, and what is kept of it.
type Expected = Option<(&'static str, Keep)>;

#[derive(Debug)]
enum Place {
    /// Before a value.
    Value(Expected),
    /// Before the first member or element, or after a comma.
    Within,
    Name {
        escaped: bool,
    },
    Colon(Expected),
    /// In a value that is stored or skipped as a whole.
    Whole(Whole),
    /// After a member or element.
    Next,
}

#[derive(Debug, Default)]
struct Whole {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Where it begins in the result, its bound and its name; `None` where it is skipped.
    stored: Option<(usize, usize, &'static str)>,
}

impl Whole {
    /// How many bytes of the input belong to the value, and whether it ends with them.
    fn advance(&mut self, input: &[u8]) -> (usize, bool) {
        for (at, byte) in input.iter().enumerate() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' if self.in_string => {
                    self.in_string = false;
                    if self.depth == 0 {
                        return (at + 1, true);
                    }
                }
                _ if self.in_string => {}
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                // After a number or a word.
                b'}' | b']' | b',' if self.depth == 0 => return (at, true),
                _ if self.depth == 0 && byte.is_ascii_whitespace() => return (at, true),
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return (at + 1, true);
                    }
                }
                _ => {}
            }
        }
        (input.len(), false)
    }
}

impl Reducer {
    pub(super) fn new(root: Keep) -> Self {
        let place = Place::Value(Some(("", root)));
        Reducer { root, open: vec![], place, name: vec![], out: vec![], too_large: vec![] }
    }

    /// Whether the input so far ends with a document, and not within one.
    pub(super) fn is_complete(&self) -> bool {
        self.open.is_empty() && matches!(self.place, Place::Value(_))
    }

    /// How many bytes are stored of what is not complete.
    pub(super) fn stored(&self) -> usize {
        self.out.len()
    }

    /// Takes from `input` until something is complete; `None` where the input is used up before.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Reduced>, Malformed> {
        while let Some((&byte, rest)) = input.split_first() {
            if self.out.len() > MAX_RESULT_BYTES {
                return Err(Malformed);
            }
            if let Place::Whole(whole) = &mut self.place {
                let (length, ends) = whole.advance(input);
                let (part, rest) = input.split_at(length);
                *input = rest;
                self.store(part);
                if ends && let Some(reduced) = self.ended() {
                    return Ok(Some(reduced));
                }
                continue;
            }
            if let Place::Name { escaped } = self.place {
                *input = rest;
                self.name_byte(byte, escaped);
                continue;
            }
            if byte.is_ascii_whitespace() {
                *input = rest;
                continue;
            }
            match self.place {
                Place::Value(_) if matches!(byte, b'}' | b']' | b',' | b':') => return Err(Malformed),
                Place::Value(expected) => {
                    if self.begin(expected, byte) {
                        *input = rest;
                    }
                }
                Place::Colon(expected) if byte == b':' => {
                    *input = rest;
                    self.place = Place::Value(expected);
                }
                Place::Next if byte == b',' => {
                    *input = rest;
                    self.place = Place::Within;
                }
                Place::Within | Place::Next if matches!(byte, b'}' | b']') => {
                    *input = rest;
                    if let Some(reduced) = self.close(byte)? {
                        return Ok(Some(reduced));
                    }
                }
                Place::Within => match self.open.last().map(|open| (open.keep, open.is_dropped)) {
                    Some((Keep::Members(_), _)) if byte == b'"' => {
                        *input = rest;
                        self.name.clear();
                        self.place = Place::Name { escaped: false };
                    }
                    Some((Keep::Elements(keep, _) | Keep::Items(keep), is_dropped)) => {
                        self.place = Place::Value((!is_dropped).then_some(("", *keep)));
                    }
                    _ => return Err(Malformed),
                },
                _ => return Err(Malformed),
            }
        }
        Ok(None)
    }

    fn name_byte(&mut self, byte: u8, escaped: bool) {
        if byte == b'"' && !escaped {
            let members = match self.open.last() {
                Some(Open { keep: Keep::Members(members), .. }) => *members,
                _ => &[],
            };
            // The API server escapes nothing in the names that are kept.
            let found = members.iter().find(|(name, _)| name.as_bytes() == self.name);
            self.place = Place::Colon(found.copied());
            return;
        }
        self.place = Place::Name { escaped: byte == b'\\' && !escaped };
        if self.name.len() <= MAX_NAME_BYTES {
            self.name.push(byte);
        }
    }

    /// A value begins with this byte. Returns whether the byte is used up.
    fn begin(&mut self, expected: Expected, byte: u8) -> bool {
        let Some((name, keep)) = expected else {
            self.place = Place::Whole(Whole::default());
            return false;
        };
        if let Some(around) = self.open.last_mut() {
            let is_first = std::mem::replace(&mut around.is_empty, matches!(around.keep, Keep::Items(_)));
            if !is_first {
                self.out.push(b',');
            }
            if matches!(around.keep, Keep::Members(_)) {
                self.out.push(b'"');
                self.out.extend_from_slice(name.as_bytes());
                self.out.extend_from_slice(b"\":");
            }
        }
        let start = self.out.len();
        match (keep, byte) {
            (Keep::Members(_), b'{') | (Keep::Elements(..) | Keep::Items(_), b'[') => {
                self.out.push(byte);
                self.open.push(Open { keep, name, start, is_empty: true, is_dropped: false });
                self.place = Place::Within;
                true
            }
            (Keep::Value(bound), _) => {
                self.place = Place::Whole(Whole { stored: Some((start, bound, name)), ..Whole::default() });
                false
            }
            _ => {
                self.out.extend_from_slice(b"null");
                self.place = Place::Whole(Whole::default());
                false
            }
        }
    }

    /// Stores a part of the present value, unless it is skipped or becomes too large.
    fn store(&mut self, part: &[u8]) {
        let Place::Whole(whole) = &mut self.place else { return };
        let Some((start, bound, name)) = whole.stored else { return };
        if self.out.len() - start + part.len() > bound {
            whole.stored = None;
            self.drop_from(start, name);
        } else {
            self.out.extend_from_slice(part);
        }
    }

    /// The member `name` of the present container is too large.
    fn drop_from(&mut self, start: usize, name: &'static str) {
        self.out.truncate(start);
        self.out.extend_from_slice(b"null");
        if self.too_large.len() < MAX_TOO_LARGE {
            let names = self.open.iter().rev().take_while(|open| !matches!(open.keep, Keep::Items(_)));
            let around: Vec<_> = names.map(|open| open.name).collect();
            let path = around.into_iter().rev().chain([name]).filter(|name| !name.is_empty());
            self.too_large.push(path.collect::<Vec<_>>().join("."));
        }
    }

    fn close(&mut self, byte: u8) -> Result<Option<Reduced>, Malformed> {
        match self.open.pop() {
            Some(Open { keep, is_dropped, .. }) if matches!(keep, Keep::Members(_)) == (byte == b'}') => {
                if !is_dropped {
                    self.out.push(byte);
                }
                Ok(self.ended())
            }
            _ => Err(Malformed),
        }
    }

    /// A value has ended. Returns it where it is complete as a result.
    fn ended(&mut self) -> Option<Reduced> {
        self.place = Place::Next;
        let Some(around) = self.open.last_mut() else {
            self.place = Place::Value(Some(("", self.root)));
            return Some(self.result(0, false));
        };
        let start = around.start;
        match around.keep {
            Keep::Items(_) => Some(self.result(start + 1, true)),
            Keep::Elements(_, bound) if !around.is_dropped && self.out.len() - start > bound => {
                around.is_dropped = true;
                let name = around.name;
                // Named below the containers around it.
                let dropped = self.open.pop();
                self.drop_from(start, name);
                self.open.extend(dropped);
                None
            }
            _ => None,
        }
    }

    fn result(&mut self, start: usize, is_item: bool) -> Reduced {
        let json = if start == 0 { std::mem::take(&mut self.out) } else { self.out.split_off(start) };
        if self.out.capacity() > MAX_IDLE_BYTES {
            self.out.shrink_to(MAX_IDLE_BYTES);
        }
        Reduced { json, is_item, too_large: std::mem::take(&mut self.too_large) }
    }
}

#[cfg(test)]
mod tests;
