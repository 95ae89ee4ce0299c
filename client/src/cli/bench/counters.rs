//! What the nodes count themselves: how they answered reads, and what they asked the tail.

use std::collections::BTreeMap;

use craq_client::{Client, Options, ReadCounts};
use serde::Serialize;

/// Counters by node, since each one's start.
pub(super) type Counted = BTreeMap<String, ReadCounts>;

/// What all nodes together counted in a round, whoever asked. The names of the fields are a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(super) struct Questions {
    /// Strong reads of clean keys.
    pub(super) reads_clean: u64,
    /// Strong reads of dirty keys for which the tail was asked.
    pub(super) reads_asked_tail: u64,
    /// Strong reads of dirty keys that were committed before the tail had to be asked.
    pub(super) reads_awaited_commit: u64,
    /// Strong reads of dirty keys by the tail itself.
    pub(super) reads_at_tail: u64,
    /// Eventual and bounded reads.
    pub(super) reads_weak: u64,
    /// Questions sent to the tail; reads that wait together share one.
    pub(super) questions_to_tail: u64,
}

/// Asks every node; none if nobody answers.
pub(super) async fn of_nodes(client: &Client) -> Option<Counted> {
    let head = client.view()?.head()?.address.clone();
    // Asked of a node, each member tells of itself; a coordinator would pass on what it heard lately.
    let status = client.status(&Options::new().node(head)).await.ok()?;
    let members = status.chains.into_iter().flat_map(|chain| chain.members);
    let counted: Counted =
        members.filter_map(|member| member.reads.map(|reads| (member.node, reads))).collect();
    (!counted.is_empty()).then_some(counted)
}

/// What was counted between two moments; none if a node came, went or started again, so that it can't be known.
pub(super) fn between(before: &Counted, after: &Counted) -> Option<Questions> {
    let mut sum = Questions::default();
    for (node, now) in after {
        let then = before.get(node)?;
        sum.reads_clean += now.clean.checked_sub(then.clean)?;
        sum.reads_asked_tail += now.asked_tail.checked_sub(then.asked_tail)?;
        sum.reads_awaited_commit += now.awaited_commit.checked_sub(then.awaited_commit)?;
        sum.reads_at_tail += now.at_tail.checked_sub(then.at_tail)?;
        sum.reads_weak += now.weak.checked_sub(then.weak)?;
        sum.questions_to_tail += now.questions.checked_sub(then.questions)?;
    }
    (before.len() == after.len()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(nodes: &[(&str, u64)]) -> Counted {
        let counts = |clean| ReadCounts { clean, questions: clean / 10, ..ReadCounts::default() };
        nodes.iter().map(|(node, clean)| ((*node).to_owned(), counts(*clean))).collect()
    }

    #[test]
    fn differences_add_up_over_the_nodes() {
        let sum = between(&counted(&[("a", 10), ("b", 20)]), &counted(&[("a", 110), ("b", 50)])).unwrap();
        assert_eq!((sum.reads_clean, sum.questions_to_tail), (130, 13));
    }

    #[test]
    fn a_node_that_started_again_or_left_makes_it_unknown() {
        let before = counted(&[("a", 10), ("b", 20)]);
        assert_eq!(between(&before, &counted(&[("a", 11), ("b", 1)])), None);
        assert_eq!(between(&before, &counted(&[("a", 11)])), None);
        assert_eq!(between(&before, &counted(&[("a", 11), ("b", 21), ("c", 1)])), None);
    }
}
