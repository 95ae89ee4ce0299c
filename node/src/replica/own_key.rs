//! Keys as the replica keeps them for long, in the map and in the order of the keys.
//!
//! A short key lies in each of them itself: no allocation, and no way to memory elsewhere when two are compared. A longer one
//! is shared by both. Never here: a key's legal length (see [`craq_proto::Key`]).

use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

/// Longest key that needs no memory of its own, in bytes: with its length and a tag it takes 24.
const SHORT_BYTES_MAX: usize = 22;

/// A key apart from the buffer that it came in. Ordered, compared and hashed as its bytes. Cheap to clone.
#[derive(Clone)]
pub(super) struct OwnKey(Bytes);

#[derive(Clone)]
enum Bytes {
    Short { length: u8, bytes: [u8; SHORT_BYTES_MAX] },
    Long(Arc<[u8]>),
}

impl From<&[u8]> for OwnKey {
    fn from(key: &[u8]) -> Self {
        let mut bytes = [0; SHORT_BYTES_MAX];
        match (bytes.get_mut(..key.len()), u8::try_from(key.len())) {
            (Some(start), Ok(length)) => {
                start.copy_from_slice(key);
                Self(Bytes::Short { length, bytes })
            }
            _ => Self(Bytes::Long(key.into())),
        }
    }
}

impl Deref for OwnKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Short { length, bytes } => &bytes[..usize::from(*length)],
            Bytes::Long(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for OwnKey {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for OwnKey {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for OwnKey {}

impl PartialOrd for OwnKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OwnKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for OwnKey {
    fn hash<H: Hasher>(&self, to: &mut H) {
        (**self).hash(to);
    }
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn own(key: &[u8]) -> OwnKey {
        key.into()
    }

    #[test]
    fn a_key_takes_no_more_than_it_is_said_to() {
        assert_eq!(size_of::<OwnKey>(), 24);
        assert!(matches!(own(&[7; SHORT_BYTES_MAX]).0, Bytes::Short { .. }));
        assert!(matches!(own(&[7; SHORT_BYTES_MAX + 1]).0, Bytes::Long(_)));
    }

    proptest! {
        #[test]
        fn keys_are_ordered_and_found_as_their_bytes(keys in vec(vec(any::<u8>(), 0..40), 2..20)) {
            let set: BTreeSet<OwnKey> = keys.iter().map(|key| own(key)).collect();
            let bytes: BTreeSet<Vec<u8>> = keys.iter().cloned().collect();
            prop_assert!(set.iter().map(|key| key.to_vec()).eq(bytes.into_iter()));
            prop_assert!(keys.iter().all(|key| set.contains(key.as_slice())));
        }
    }
}
