//! Keys and values are bytes: how they stand on the command line and in the output.

use std::ffi::OsStr;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{args::Globals, exit::usage};

/// How bytes are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As they are.
    Plain,
    /// Two digits a byte.
    Hex,
    /// Base64 with padding.
    Base64,
}

impl Encoding {
    pub(crate) fn of(globals: &Globals) -> Self {
        match (globals.hex, globals.base64) {
            (true, _) => Self::Hex,
            (_, true) => Self::Base64,
            _ => Self::Plain,
        }
    }

    /// The bytes that an argument stands for. Blanks between digits do not count.
    pub(crate) fn decode(self, text: &OsStr) -> anyhow::Result<Vec<u8>> {
        let bytes = text.as_encoded_bytes();
        let digits = || bytes.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect::<Vec<u8>>();
        match self {
            Self::Plain => Ok(bytes.to_vec()),
            Self::Hex => {
                unhex(&digits()).ok_or_else(|| usage("with --hex, keys and values are pairs of hex digits"))
            }
            Self::Base64 => STANDARD
                .decode(digits())
                .map_err(|error| usage(format!("with --base64, keys and values are base64: {error}"))),
        }
    }

    /// How the bytes stand in plain output.
    pub(crate) fn plain(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => bytes.to_vec(),
            Self::Hex => hex(bytes).into_bytes(),
            Self::Base64 => STANDARD.encode(bytes).into_bytes(),
        }
    }

    /// How the bytes stand in a JSON string, and the name of the encoding.
    pub(crate) fn json(self, bytes: &[u8]) -> (String, &'static str) {
        match (self, std::str::from_utf8(bytes)) {
            (Self::Hex, _) => (hex(bytes), "hex"),
            (Self::Plain, Ok(text)) => (text.to_owned(), "utf8"),
            (Self::Base64, _) | (Self::Plain, Err(_)) => (STANDARD.encode(bytes), "base64"),
        }
    }

    /// How the bytes stand in a table: what can't be shown is escaped.
    pub(crate) fn table(self, bytes: &[u8]) -> String {
        match (self, std::str::from_utf8(bytes)) {
            (Self::Plain, Ok(text)) if !text.chars().any(char::is_control) => text.to_owned(),
            (Self::Plain, _) => bytes.escape_ascii().to_string(),
            _ => String::from_utf8_lossy(&self.plain(bytes)).into_owned(),
        }
    }
}

/// A key in a message: escaped, and shortened if it is long.
pub(crate) fn shown(key: &[u8]) -> String {
    const SHOWN_MAX: usize = 64;
    match std::str::from_utf8(key) {
        Ok(text) if key.len() <= SHOWN_MAX && !text.chars().any(char::is_control) => text.to_owned(),
        _ if key.len() <= SHOWN_MAX => key.escape_ascii().to_string(),
        _ => format!("{}… ({} bytes)", key[..SHOWN_MAX].escape_ascii(), key.len()),
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| u8::try_from(digit(pair[0])? * 16 + digit(*pair.get(1)?)?).ok();
    digits.chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_each_encoding() {
        let bytes: Vec<u8> = (0..=255).collect();
        for encoding in [Encoding::Hex, Encoding::Base64] {
            let text = String::from_utf8(encoding.plain(&bytes)).unwrap();
            assert_eq!(encoding.decode(OsStr::new(&text)).unwrap(), bytes);
        }
        for bad in ["f", "0g", "0"] {
            assert!(Encoding::Hex.decode(OsStr::new(bad)).is_err(), "{bad:?} was taken");
        }
        assert!(Encoding::Base64.decode(OsStr::new("=")).is_err());
    }

    #[test]
    fn json_says_how_bytes_are_encoded() {
        assert_eq!(Encoding::Plain.json("grüße".as_bytes()), ("grüße".to_owned(), "utf8"));
        assert_eq!(Encoding::Plain.json(b"\xff\x00"), ("/wA=".to_owned(), "base64"));
        assert_eq!(Encoding::Hex.json(b"\xff"), ("ff".to_owned(), "hex"));
    }

    #[test]
    fn a_key_in_a_message_is_short_and_escaped() {
        assert_eq!(shown(b"a b"), "a b");
        assert_eq!(shown(b"a\n\xff"), "a\\n\\xff");
        assert_eq!(shown(&[b'x'; 100]), format!("{}… (100 bytes)", "x".repeat(64)));
    }
}
