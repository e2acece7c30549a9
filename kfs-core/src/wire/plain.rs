//! Bytes in a message, all at once: the encoding is that of a list of them, which serde would take one by one.
use core::fmt;
use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;

#[allow(clippy::ptr_arg, reason = "serde hands over the field")]
pub(super) fn serialize<S: Serializer>(bytes: &Vec<u8>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(bytes)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    struct Bytes;
    impl Visitor<'_> for Bytes {
        type Value = Vec<u8>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }
        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }
    from.deserialize_bytes(Bytes)
}

#[cfg(test)]
mod tests {
    use crate::wire::client_meta::At;

    #[test]
    fn bytes_all_at_once_are_encoded_as_a_list_of_them() {
        for len in [0, 1, 127, 128, 4_096] {
            let path: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
            let at = At::root(path.clone());
            let bytes = postcard::to_allocvec(&at).unwrap();
            assert_eq!(bytes, postcard::to_allocvec(&(at.dir, path)).unwrap());
            assert_eq!(postcard::from_bytes::<At>(&bytes).unwrap(), at);
        }
    }
}
