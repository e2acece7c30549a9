//! Names and the keys of the tree: a name is bytes, kept inline while it is short.
//!
//! A directory entry is keyed (directory, name), so a directory is a range of one ordered map and its
//! entries come in byte order. Nothing here knows what a key leads to.
use crate::ids::FileId;
use crate::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX};
use crate::wire::{Refusal, Status};
use core::cmp::Ordering;
use core::fmt;
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::sync::Arc;

/// Bytes of a name that are kept inline.
const INLINE_BYTES: usize = 22;

/// The name of a directory entry: 1 to 255 bytes, neither `.` nor `..`, no NUL and no slash.
#[derive(Clone)]
pub struct Name(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE_BYTES] },
    Shared(Arc<[u8]>),
}

const _: () = assert!(size_of::<Name>() == 24, "a name costs three words");
const _: () = assert!(NAME_BYTES_MAX < 256);

impl Name {
    /// A name from a path's component.
    ///
    /// # Errors
    /// `BadName`, if it cannot be one.
    pub fn new(bytes: &[u8]) -> Result<Self, Refusal> {
        match Self::flaw(bytes) {
            None => Ok(Self::raw(bytes)),
            Some(flaw) => Err(Refusal::new(
                Status::BadName,
                format!("the name {} {flaw}", quoted(bytes)),
            )),
        }
    }
    /// A bound for a range of names, which need not be a name itself.
    pub(crate) fn raw(bytes: &[u8]) -> Self {
        let mut inline = [0; INLINE_BYTES];
        let repr = match (inline.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(start), Ok(len)) => {
                start.copy_from_slice(bytes);
                Repr::Inline { len, bytes: inline }
            }
            _ => Repr::Shared(bytes.into()),
        };
        Self(repr)
    }
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Shared(bytes) => bytes,
        }
    }
    fn flaw(bytes: &[u8]) -> Option<String> {
        match bytes {
            [] => Some("is empty".into()),
            b"." | b".." => Some("is reserved".into()),
            _ if bytes.len() > NAME_BYTES_MAX => Some(format!(
                "has {} bytes, at most {NAME_BYTES_MAX} are allowed",
                bytes.len()
            )),
            _ if bytes.contains(&0) => Some("has a NUL in it".into()),
            _ if bytes.contains(&b'/') => Some("has a slash in it".into()),
            _ => None,
        }
    }
}

/// Bytes as people read them, shortened, in quotes.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    const SHOWN: usize = 80;
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]);
    let more = if bytes.len() > SHOWN { "…" } else { "" };
    format!("'{}{more}'", shown.escape_debug())
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}
impl Eq for Name {}
impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(self.as_bytes()))
    }
}
impl Serialize for Name {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(self.as_bytes())
    }
}
impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Name, E> {
                Name::new(bytes).map_err(|refusal| E::custom(refusal.detail))
            }
        }
        from.deserialize_bytes(Bytes)
    }
}

/// Where an entry stands in the tree.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Key {
    /// The directory.
    pub parent: FileId,
    /// The name in it.
    pub name: Name,
}

/// The names of a path; slashes between them may be repeated.
///
/// # Errors
/// `BadName` if the path is longer than [`PATH_BYTES_MAX`], or one of its names is none.
pub fn components(path: &[u8]) -> Result<Vec<Name>, Refusal> {
    if path.len() > PATH_BYTES_MAX {
        let what = format!(
            "the path has {} bytes, at most {PATH_BYTES_MAX} are allowed",
            path.len()
        );
        return Err(Refusal::new(Status::BadName, what));
    }
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
        .map(Name::new)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_255_bytes_are_names_and_of_256_are_not() {
        assert!(Name::new(&[b'x'; 255]).is_ok());
        for bad in [&[b'x'; 256][..], b"", b".", b"..", b"a\0b", b"a/b"] {
            let refusal = Name::new(bad).unwrap_err();
            assert_eq!(refusal.status, Status::BadName, "{bad:?}");
        }
    }

    #[test]
    fn names_order_as_their_bytes_whether_inline_or_not() {
        let mut names: Vec<Vec<u8>> = (0..60_usize).map(|len| vec![b'a'; len + 1]).collect();
        names.extend((0..60_u8).map(|last| [&[b'a'; 22][..], &[last + 1]].concat()));
        names.push(vec![0xFF, 0xFE]);
        let mut as_names: Vec<Name> = names.iter().map(|name| Name::raw(name)).collect();
        names.sort();
        as_names.sort();
        assert!(
            names
                .iter()
                .zip(&as_names)
                .all(|(bytes, name)| bytes == name.as_bytes())
        );
    }

    #[test]
    fn a_name_in_a_record_is_checked_when_it_is_read() {
        let good = postcard::to_stdvec(&Name::raw(b"good")).unwrap();
        assert_eq!(
            postcard::from_bytes::<Name>(&good).unwrap().as_bytes(),
            b"good"
        );
        let bad = postcard::to_stdvec(&Name::raw(b"..")).unwrap();
        assert!(postcard::from_bytes::<Name>(&bad).is_err());
    }
}
