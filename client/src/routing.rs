//! Where a request goes: the newest view, and which replicas have just failed.
//!
//! Never opens a connection, reads a clock or draws a random number: the time is an argument.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use craq_proto::{Epoch, Time, View};

/// How long a replica that failed is passed over while others are there.
pub(crate) const AVOIDED_FOR: Duration = Duration::from_secs(1);

/// A replica that failed lately.
#[derive(Debug, Clone, Copy)]
struct Avoided {
    until: Time,
    unreachable: bool,
}

/// What the client knows of its chain.
#[derive(Debug, Default)]
pub struct Routes {
    view: Option<Arc<View>>,
    hint: Option<String>,
    turn: usize,
    avoided: BTreeMap<String, Avoided>,
}

impl Routes {
    /// The newest view, if any came yet.
    pub fn view(&self) -> Option<&Arc<View>> {
        self.view.as_ref()
    }

    /// The newest epoch; zero if no view came yet.
    pub fn epoch(&self) -> Epoch {
        self.view.as_ref().map_or(Epoch::ZERO, |view| view.epoch)
    }

    /// Takes a view if it is newer than what is known. A new view forgives: it leaves out what is really gone.
    pub fn install(&mut self, view: View) -> Option<Arc<View>> {
        if view.epoch <= self.epoch() {
            return None;
        }
        self.hint = None;
        self.avoided.clear();
        let view = Arc::new(view);
        self.view = Some(Arc::clone(&view));
        Some(view)
    }

    /// A node says that the head is at `address`; holds until a newer view comes. True if that is news.
    pub fn hint_head(&mut self, address: &str) -> bool {
        let known = self.hint.as_deref().or_else(|| Some(self.view.as_ref()?.head()?.address.as_str()));
        if known == Some(address) {
            return false;
        }
        self.hint = Some(address.to_owned());
        true
    }

    /// The replica at `address` has failed: pass it over for a while.
    pub fn avoid(&mut self, address: &str, now: Time, unreachable: bool) {
        self.avoided.insert(address.to_owned(), Avoided { until: now + AVOIDED_FOR, unreachable });
    }

    /// The replica at `address` has answered.
    pub fn forgive(&mut self, address: &str) {
        if !self.avoided.is_empty() {
            self.avoided.remove(address);
        }
    }

    /// Whom to read from: the in-sync members in turn (every member in turn if `weak`), without those that have just
    /// failed unless there is no other.
    pub fn reader(&mut self, now: Time, weak: bool) -> Option<String> {
        let view = Arc::clone(self.view.as_ref()?);
        let candidates: Vec<&str> = view
            .members
            .iter()
            .filter(|member| weak || member.in_sync)
            .map(|member| member.address.as_str())
            .collect();
        let count = candidates.len().max(1);
        self.turn = (self.turn + 1) % count;
        let in_turn = || (0..candidates.len()).map(|i| candidates[(self.turn + i) % count]);
        let sound = in_turn().find(|address| !self.is_avoided(address, now));
        sound.or_else(|| in_turn().next()).map(ToOwned::to_owned)
    }

    /// Whom to write to: the head. If it can't be connected to from here, another member, which hands the write on.
    pub fn writer(&self, now: Time) -> Option<String> {
        if let Some(hint) = &self.hint
            && !self.is_avoided(hint, now)
        {
            return Some(hint.clone());
        }
        let view = self.view.as_ref()?;
        let head = view.head()?.address.as_str();
        if !self.is_unreachable(head, now) {
            return Some(head.to_owned());
        }
        let others = view.members.iter().skip(1).map(|member| member.address.as_str());
        let other = others.into_iter().find(|address| !self.is_avoided(address, now));
        Some(other.unwrap_or(head).to_owned())
    }

    /// Whether a request for the head that is under way to `address` should be given up, since the head stands
    /// elsewhere by now and `address` has no part in the chain any more or only a lesser one.
    pub fn head_moved(view: &View, sent_in: Epoch, address: &str) -> bool {
        view.epoch > sent_in && view.head().is_none_or(|head| head.address != address)
    }

    /// Every address of the view, members first.
    pub fn addresses(&self) -> Vec<String> {
        let Some(view) = &self.view else { return Vec::new() };
        let members = view.members.iter().map(|member| member.address.clone());
        members.chain(view.learners.iter().map(|learner| learner.address.clone())).collect()
    }

    fn is_avoided(&self, address: &str, now: Time) -> bool {
        self.avoided.get(address).is_some_and(|avoided| now < avoided.until)
    }

    fn is_unreachable(&self, address: &str, now: Time) -> bool {
        self.avoided.get(address).is_some_and(|avoided| avoided.unreachable && now < avoided.until)
    }
}

#[cfg(test)]
mod tests {
    use craq_proto::{ChainId, Incarnation, Member, NodeId};

    use super::*;

    fn view(epoch: u64, members: &[(&str, bool)]) -> View {
        let member = |(address, in_sync): &(&str, bool)| Member {
            node: NodeId(uuid::Uuid::from_u128(u128::from(address.as_bytes()[0]))),
            incarnation: Incarnation(1),
            in_sync: *in_sync,
            address: (*address).to_owned(),
        };
        View {
            chain: ChainId::default_chain(),
            epoch: Epoch(epoch),
            members: members.iter().map(member).collect(),
            learners: vec![],
            rebuilt_in: Epoch::ZERO,
            expelled: Vec::new(),
            reason: String::new(),
        }
    }

    fn routes(members: &[(&str, bool)]) -> Routes {
        let mut routes = Routes::default();
        routes.install(view(1, members));
        routes
    }

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn the_newest_epoch_wins() {
        let mut routes = routes(&[("a:1", true)]);
        assert!(routes.install(view(3, &[("b:1", true)])).is_some());
        assert!(routes.install(view(2, &[("c:1", true)])).is_none());
        assert!(routes.install(view(3, &[("c:1", true)])).is_none());
        assert_eq!(routes.writer(at(0)).unwrap(), "b:1");
    }

    #[test]
    fn without_a_view_there_is_no_route() {
        let mut routes = Routes::default();
        assert_eq!(routes.reader(at(0), false), None);
        assert_eq!(routes.writer(at(0)), None);
        assert_eq!(routes.epoch(), Epoch::ZERO);
    }

    #[test]
    fn reads_go_round_the_in_sync_members() {
        let mut routes = routes(&[("a:1", true), ("b:1", false), ("c:1", true)]);
        let mut seen: Vec<_> = (0..4).map(|_| routes.reader(at(0), false).unwrap()).collect();
        seen.sort();
        assert_eq!(seen, ["a:1", "a:1", "c:1", "c:1"]);
        let weak: std::collections::BTreeSet<_> =
            (0..3).map(|_| routes.reader(at(0), true).unwrap()).collect();
        assert_eq!(weak.len(), 3, "weak reads go to every member");
    }

    #[test]
    fn a_replica_that_failed_is_passed_over_for_a_while() {
        let mut routes = routes(&[("a:1", true), ("b:1", true)]);
        routes.avoid("a:1", at(0), false);
        for _ in 0..4 {
            assert_eq!(routes.reader(at(999), false).unwrap(), "b:1");
        }
        let later: std::collections::BTreeSet<_> =
            (0..4).map(|_| routes.reader(at(1000), false).unwrap()).collect();
        assert_eq!(later.len(), 2, "after a second it gets its turn again");
    }

    #[test]
    fn the_last_replica_is_asked_though_it_failed() {
        let mut routes = routes(&[("a:1", true)]);
        routes.avoid("a:1", at(0), true);
        assert_eq!(routes.reader(at(1), false).unwrap(), "a:1");
        assert_eq!(routes.writer(at(1)).unwrap(), "a:1");
    }

    #[test]
    fn an_answer_forgives_and_so_does_a_new_view() {
        let mut routes = routes(&[("a:1", true), ("b:1", true)]);
        routes.avoid("a:1", at(0), true);
        routes.forgive("a:1");
        assert_eq!(routes.writer(at(1)).unwrap(), "a:1");
        routes.avoid("a:1", at(0), true);
        routes.install(view(2, &[("a:1", true), ("b:1", true)]));
        assert_eq!(routes.writer(at(1)).unwrap(), "a:1");
    }

    #[test]
    fn a_head_that_is_not_connected_to_is_reached_through_another_member() {
        let mut routes = routes(&[("a:1", true), ("b:1", true)]);
        routes.avoid("a:1", at(0), false);
        assert_eq!(routes.writer(at(1)).unwrap(), "a:1", "an answering head stays the head");
        routes.avoid("a:1", at(0), true);
        assert_eq!(routes.writer(at(1)).unwrap(), "b:1");
        assert_eq!(routes.writer(at(1000)).unwrap(), "a:1");
    }

    #[test]
    fn a_hint_is_followed_until_a_newer_view_comes() {
        let mut routes = routes(&[("a:1", true), ("b:1", true)]);
        assert!(!routes.hint_head("a:1"), "the head is known already");
        assert!(routes.hint_head("b:1"));
        assert!(!routes.hint_head("b:1"));
        assert_eq!(routes.writer(at(0)).unwrap(), "b:1");
        routes.install(view(2, &[("c:1", true)]));
        assert_eq!(routes.writer(at(0)).unwrap(), "c:1");
    }

    #[test]
    fn a_write_under_way_is_given_up_when_the_head_moves() {
        let moved = view(2, &[("b:1", true)]);
        assert!(Routes::head_moved(&moved, Epoch(1), "a:1"));
        assert!(!Routes::head_moved(&moved, Epoch(1), "b:1"), "it is at the new head already");
        assert!(
            !Routes::head_moved(&moved, Epoch(2), "a:1"),
            "sent elsewhere in that very epoch, on purpose"
        );
    }
}
