//! Keys and values: bytes, with limits held where they are made.

use std::fmt;

use bytes::Bytes;

/// Longest key, in bytes. An empty key is none.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// Longest value that a node takes unless it is configured otherwise, in bytes.
pub const VALUE_BYTES_MAX_DEFAULT: usize = 1024 * 1024;
/// Longest value that any configuration allows, in bytes: with its key and its envelope it still fits in a message.
pub const VALUE_BYTES_CEILING: usize = 3 * 1024 * 1024;
/// Longest gRPC message between our processes, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A key or a value is outside the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// A key of no bytes.
    #[error("the key is empty")]
    EmptyKey,
    /// A key of too many bytes.
    #[error("the key has {0} bytes; {KEY_BYTES_MAX} are allowed")]
    KeyTooLong(usize),
    /// A value of too many bytes.
    #[error("the value has {bytes} bytes; {max} are allowed")]
    ValueTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// A key: 1 to [`KEY_BYTES_MAX`] bytes. Cheap to clone, ordered as bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// Takes the bytes, if they are of a legal length.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, SizeError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(SizeError::EmptyKey),
            n if n > KEY_BYTES_MAX => Err(SizeError::KeyTooLong(n)),
            _ => Ok(Self(bytes)),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The same key in memory of its own: for maps that live long, since a decoded key pins the buffer it came in.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Shortened and escaped: what may stand in a log line.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 32;
        write!(f, "{}", self.0[..self.0.len().min(SHOWN)].escape_ascii())?;
        if self.0.len() > SHOWN { write!(f, "…({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

/// A value: 0 to [`VALUE_BYTES_CEILING`] bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Value(Bytes);

impl Value {
    /// Takes the bytes, if they are at most `max` (a node's configured limit) and the ceiling.
    pub fn new(bytes: impl Into<Bytes>, max: usize) -> Result<Self, SizeError> {
        let bytes = bytes.into();
        let max = max.min(VALUE_BYTES_CEILING);
        if bytes.len() > max {
            return Err(SizeError::ValueTooLong { bytes: bytes.len(), max });
        }
        Ok(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// A value never reaches a log; its length may.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_exact() {
        assert_eq!(Key::new(vec![]), Err(SizeError::EmptyKey));
        assert!(Key::new(vec![0; KEY_BYTES_MAX]).is_ok());
        assert_eq!(Key::new(vec![0; KEY_BYTES_MAX + 1]), Err(SizeError::KeyTooLong(KEY_BYTES_MAX + 1)));
        assert!(Value::new(vec![], 0).is_ok());
        assert!(Value::new(vec![0; 10], 10).is_ok());
        assert_eq!(Value::new(vec![0; 11], 10), Err(SizeError::ValueTooLong { bytes: 11, max: 10 }));
        let above = VALUE_BYTES_CEILING + 1;
        assert!(Value::new(vec![0; above], usize::MAX).is_err(), "the ceiling holds whatever is configured");
    }

    #[test]
    fn debug_shows_no_value_and_a_short_key() {
        assert_eq!(format!("{:?}", Value::new("secret", 10).unwrap()), "(6 bytes)");
        assert_eq!(format!("{:?}", Key::new("k\n").unwrap()), "k\\n");
        let long = format!("{:?}", Key::new("x".repeat(100)).unwrap());
        assert_eq!(long, format!("{}…(100 bytes)", "x".repeat(32)));
    }
}
