//! Batches with numbers, for tests that break a store off in the middle of writing.
//!
//! Batch n touches two tables, puts several keys, replaces one and deletes those of an older batch. After any crash the
//! store must hold the batches up to some n, each whole, and no trace of a further one; [`check`] says which n that is.

use craq_node::store::{Backend, Batch};

use crate::rows::{all, delete, put};

const ROWS: u32 = 0;
const LAST: u32 = 1;
const KEPT: u64 = 10;

/// Batch n, counted from 1.
#[must_use]
pub fn batch(n: u64) -> Batch {
    let mut batch: Batch = keys(n).map(|key| put(ROWS, &key, value(n, &key))).collect();
    if let Some(old) = n.checked_sub(KEPT).filter(|old| *old > 0) {
        batch.extend(keys(old).map(|key| delete(ROWS, key)));
    }
    // Last, so that a batch that is done in part is missed here or there.
    batch.push(put(LAST, b"last", n.to_be_bytes()));
    batch
}

/// The number of the newest batch, after all of the store has been found to be as that batch left it.
pub fn check(backend: &dyn Backend) -> u64 {
    let last = match all(backend, LAST).as_slice() {
        [] => 0,
        [(key, number)] if key == b"last" => {
            u64::from_be_bytes(number.as_slice().try_into().expect("a number"))
        }
        other => panic!("{} keys stand where there is one", other.len()),
    };
    let kept = (last.saturating_sub(KEPT) + 1)..=last;
    let expected: Vec<_> = kept.flat_map(|n| keys(n).map(move |key| (key.clone(), value(n, &key)))).collect();
    assert!(all(backend, ROWS) == expected, "batch {last} is the newest, and what it left has changed");
    last
}

/// A few keys, rising with n.
fn keys(n: u64) -> impl Iterator<Item = Vec<u8>> {
    (0..2 + n % 4).map(move |i| [&n.to_be_bytes()[..], &[i as u8]].concat())
}

/// Of a length that varies, now and then longer than a page.
fn value(n: u64, key: &[u8]) -> Vec<u8> {
    let long = if n.is_multiple_of(5) { 6000 } else { 40 };
    key.iter().cycle().take(long + (n % 37) as usize).copied().collect()
}
