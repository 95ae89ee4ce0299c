//! Is there an order of all calls, each at a moment between its sending and its answer, that explains every answer?
//!
//! The search of Wing and Gong with Lowe's memo: what has been ordered so far, and the state that it led to, is never
//! tried twice. Keys that no call joins are judged by themselves, since a history is linearizable exactly when the
//! history of each of its objects is. A write whose outcome is unknown may take its place at any time from its call on,
//! or never.
//!
//! Believes nothing that the store tells but what a client asked for and got: versions are part of what is judged. For
//! histories too long to be searched, see [`crate::check::versions`].
//!
//! - `groups`: which calls have to be judged together;
//! - `problem`: a group in numbers; `unseen`: which unknown writes can't matter and are left out;
//! - `search`: the search;
//! - `shrink`: the few calls that make a history illegal.

mod groups;
mod problem;
mod search;
mod shrink;
mod unseen;

use std::{fmt, ops::ControlFlow};

use super::{history::Op, text::line, valid::validate};
use search::Found;

/// Whether a deleted key keeps its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tombstones {
    /// A key's versions are 1, 2, 3 … with its deletions, and every answer is judged by them.
    #[default]
    Kept,
    /// After a deletion they may begin again. A version tells then only which value it is about.
    Collected,
}

/// How to judge.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What versions tell.
    pub tombstones: Tombstones,
    /// How many places for calls may be tried, for each group of keys.
    pub steps_max: u64,
    /// How much memory the memo may take, for each group of keys.
    pub memo_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tombstones: Tombstones::Kept, steps_max: 50_000_000, memo_bytes_max: 1 << 30 }
    }
}

/// What is known of a history.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// An order exists.
    Linearizable,
    /// None does.
    Violation(Box<Violation>),
    /// Nothing is known: never to be taken for a pass.
    Unknown {
        /// What kept it from being judged.
        why: String,
    },
}

impl Verdict {
    /// Whether an order exists.
    #[must_use]
    pub fn is_linearizable(&self) -> bool {
        matches!(self, Self::Linearizable)
    }

    /// Whether none does.
    #[must_use]
    pub fn is_violation(&self) -> bool {
        matches!(self, Self::Violation(_))
    }
}

/// The few calls that no order explains.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Their keys, and those that were judged with them.
    pub keys: Vec<String>,
    /// The calls, in the order of their sending. All others may be left out and there is still no order, even if the
    /// writes among them had taken effect at any time whatever.
    pub ops: Vec<Op>,
    /// The place in `ops` of the call whose answer made it illegal: without it there is an order.
    pub culprit: usize,
    /// How many writes of these keys are left out of `ops`.
    pub hidden: usize,
}

impl Violation {
    /// The call whose answer made it illegal.
    #[must_use]
    pub fn culprit(&self) -> &Op {
        &self.ops[self.culprit]
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "no order of these calls explains their answers (=> marks the one that made it illegal):"
        )?;
        for (number, op) in self.ops.iter().enumerate() {
            let mark = if number == self.culprit { "=>" } else { "  " };
            writeln!(f, "{mark} {}", line(op))?;
        }
        if self.hidden > 0 {
            writeln!(
                f,
                "   ({} more writes of these keys, which may have taken effect at any time)",
                self.hidden
            )?;
        }
        Ok(())
    }
}

/// Judges a history, its calls in any order.
#[must_use]
pub fn check(ops: &[Op], settings: &Settings) -> Verdict {
    if let Err(why) = validate(ops) {
        return Verdict::Unknown { why };
    }
    let mut unknown = None;
    let judged = groups::groups(ops).into_iter().try_for_each(|group| match judge(&group, settings) {
        Found::Order => ControlFlow::Continue(()),
        Found::None => ControlFlow::Break(shrink::shrink(&group, settings)),
        Found::TooMuch(why) => {
            unknown.get_or_insert(why);
            ControlFlow::Continue(())
        }
    });
    match (judged, unknown) {
        (ControlFlow::Break(violation), _) => Verdict::Violation(Box::new(violation)),
        (_, Some(why)) => Verdict::Unknown { why },
        _ => Verdict::Linearizable,
    }
}

fn judge(group: &[&Op], settings: &Settings) -> Found {
    search::search(&problem::Problem::new(group, settings.tombstones), settings)
}
