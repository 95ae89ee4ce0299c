//! What happened, one line for each event: when, where, what, and the particulars, in fixed columns.

use std::fmt::{self, Write};

use super::{place::Place, time::At};

/// What becomes of the lines.
#[derive(Debug)]
pub(super) enum Trace {
    /// Nothing: they are not even made.
    Off,
    /// They are kept.
    Lines(Vec<String>),
    /// Only a number that stands for all of them.
    Digest(u64),
}

impl Trace {
    /// Whether lines are wanted.
    #[must_use]
    pub(super) fn is_on(&self) -> bool {
        !matches!(self, Self::Off)
    }

    /// One line.
    pub(super) fn line(&mut self, at: At, place: Place, what: &str, rest: fmt::Arguments<'_>) {
        match self {
            Self::Off => {}
            Self::Lines(lines) => lines.push(format!("{at}  {place:<3} {what:<10} {rest}")),
            Self::Digest(digest) => {
                let mut sum = Fnv(*digest);
                // Writing into a number does not fail.
                let _ = writeln!(sum, "{at} {place} {what} {rest}");
                *digest = sum.0;
            }
        }
    }
}

/// FNV-1a, which is the same in every process.
struct Fnv(u64);

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
