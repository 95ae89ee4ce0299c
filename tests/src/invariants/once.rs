//! Invariant 6: a retried request takes effect at most once. Also keeps count of the outcomes that may be asked for.

use std::collections::BTreeMap;

use craq_proto::{ClientId, Entry, Seq};

use super::{Checked, ensure};

const NAME: &str = "once";

/// Every request that is committed.
#[derive(Debug, Default)]
pub(super) struct Requests {
    made: BTreeMap<(ClientId, u64), Seq>,
    /// Those that a client may still repeat, and that are not forgotten.
    kept: BTreeMap<(ClientId, u64), Seq>,
    kept_by_seq: BTreeMap<Seq, (ClientId, u64)>,
}

impl Requests {
    pub(super) fn committed(&mut self, entry: &Entry) -> Checked {
        if let Some(request) = &entry.request {
            let (name, seq) = ((request.client, request.number), entry.seq);
            let before = self.made.insert(name, seq);
            let (client, number) = name;
            ensure!(
                before.is_none(),
                NAME,
                "request {number} of {client} made entry {seq}, and {} before",
                before.unwrap_or_default()
            );
            self.kept.insert(name, seq);
            self.kept_by_seq.insert(seq, name);
            let given_up: Vec<_> =
                self.kept.range((client, 0)..(client, request.floor)).map(|(n, s)| (*n, *s)).collect();
            for (name, seq) in given_up {
                self.kept.remove(&name);
                self.kept_by_seq.remove(&seq);
            }
        }
        if entry.forget_through > Seq::ZERO {
            let left = self.kept_by_seq.split_off(&entry.forget_through.next());
            for name in std::mem::replace(&mut self.kept_by_seq, left).into_values() {
                self.kept.remove(&name);
            }
        }
        Ok(())
    }

    /// How many outcomes a replica has to keep.
    pub(super) fn outcomes(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{entry, request};
    use super::*;

    #[test]
    fn a_request_that_makes_two_entries_is_refused() {
        let mut requests = Requests::default();
        let of = |seq, number, floor| Entry { request: request(1, number, floor), ..entry(seq, 1, "k", seq) };
        requests.committed(&of(1, 1, 1)).unwrap();
        requests.committed(&Entry { request: request(2, 1, 1), ..entry(2, 1, "k", 2) }).unwrap();
        requests.committed(&of(3, 2, 2)).unwrap();
        assert_eq!(requests.outcomes(), 2, "one was given up");
        requests.committed(&Entry { request: None, forget_through: Seq(2), ..entry(4, 1, "k", 4) }).unwrap();
        assert_eq!(requests.outcomes(), 1, "one was forgotten");
        assert_eq!(requests.committed(&of(5, 1, 1)).unwrap_err().invariant, NAME);
    }
}
