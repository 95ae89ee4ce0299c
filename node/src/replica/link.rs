//! Links between neighbours: opening them, finding where the logs part, and passing entries on (`protocol.md` 3 and 4).
//!
//! Links open from the head downwards: a replica opens the one to its successor only once it is level itself, so that the
//! log above it is the chain's log. The predecessor is right about what is above the commit, always.
//! Bringing up one that is not in sync goes through `transfer`.

use std::{collections::VecDeque, sync::Arc};

use craq_proto::{
    Entry, Epoch, Incarnation, NodeId, Outcome, Role, Seq, Time,
    planted::{self, Bug},
};

use super::{
    Replica,
    commit::Pending,
    event::{LinkId, LinkKind, Message, Output, Run, StoreWrite},
    transfer::Walk,
};

/// The link from the predecessor or source.
#[derive(Debug, Clone)]
pub(super) struct Up {
    pub(super) link: LinkId,
    pub(super) kind: LinkKind,
    pub(super) stage: UpStage,
    /// Outcomes of a walk, as far as they have come.
    pub(super) outcomes: Vec<Outcome>,
    /// What came after rows that are not durable yet.
    pub(super) held: VecDeque<Message>,
}

/// How far a link from above has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UpStage {
    /// Nothing is said before the gate has passed and earlier rows are in place.
    Waiting,
    /// What this replica holds has been said.
    Greeted,
    /// Entries flow.
    Live,
}

impl Up {
    pub(super) fn is_live(&self) -> bool {
        self.stage == UpStage::Live
    }
}

/// A link to the successor or to a learner.
#[derive(Debug, Clone)]
pub(super) struct Down {
    pub(super) link: LinkId,
    pub(super) stage: DownStage,
}

/// How far a link to below has come.
#[derive(Debug, Clone)]
pub(super) enum DownStage {
    /// The other side has not said what it holds.
    Opening,
    /// It is brought up by the committed log.
    Walking(Walk),
    /// Entries flow.
    Live,
}

impl Down {
    pub(super) fn is_live(&self) -> bool {
        matches!(self.stage, DownStage::Live)
    }

    pub(super) fn walk(&self) -> Option<&Walk> {
        match &self.stage {
            DownStage::Walking(walk) => Some(walk),
            DownStage::Opening | DownStage::Live => None,
        }
    }

    pub(super) fn walk_mut(&mut self) -> Option<&mut Walk> {
        match &mut self.stage {
            DownStage::Walking(walk) => Some(walk),
            DownStage::Opening | DownStage::Live => None,
        }
    }
}

impl Replica {
    /// A new epoch has links of its own.
    pub(super) fn close_links(&mut self, out: &mut Vec<Output>) {
        let is_kept = planted::is(Bug::OlderEpochAccepted);
        let up = self.up.take_if(|_| !is_kept).map(|up| up.link);
        let down = self.down.take().map(|down| down.link);
        let learners = std::mem::take(&mut self.learners).into_values().map(|learner| learner.link);
        out.extend(up.into_iter().chain(down).chain(learners).map(|link| Output::CloseLink { link }));
        self.durable_told = Seq::ZERO;
    }

    pub(super) fn on_link_closed(&mut self, link: LinkId) {
        if self.up.as_ref().is_some_and(|up| up.link == link) {
            self.up = None;
            self.forget_upstream();
        }
        if self.down.as_ref().is_some_and(|down| down.link == link) {
            self.down = None;
            self.durable_told = Seq::ZERO;
        }
        self.learners.retain(|_, learner| learner.link != link);
    }

    /// protocol.md 4: durability upstream starts at nothing when a link opens, and is learnt again.
    pub(super) fn forget_upstream(&mut self) {
        if !planted::is(Bug::UpstreamKept) {
            self.upstream_durable = None;
        }
    }

    pub(super) fn maybe_open_links(&mut self, out: &mut Vec<Output>) {
        // protocol.md 4: only once level itself.
        let is_level = self.is_level() || planted::is(Bug::LinkBeforeLevel);
        if !self.is_moving() || !self.role().is_member() || !is_level {
            return;
        }
        let Some(view) = self.view.clone() else { return };
        if self.down.is_none()
            && let Some(successor) = view.successor(self.node)
        {
            self.down = Some(self.open_link(successor.node, &successor.address, LinkKind::Chain, out));
        }
        let own = self.node;
        for learner in view.learners.iter().filter(|learner| learner.source == own) {
            if !self.learners.contains_key(&learner.node) {
                let link = self.open_link(learner.node, &learner.address, LinkKind::Transfer, out);
                self.learners.insert(learner.node, link);
            }
        }
    }

    fn open_link(&mut self, to: NodeId, address: &str, kind: LinkKind, out: &mut Vec<Output>) -> Down {
        self.links += 1;
        let link = LinkId(2 * self.links);
        out.push(Output::OpenLink { link, to, address: address.to_owned(), kind, epoch: self.epoch() });
        Down { link, stage: DownStage::Opening }
    }

    /// The predecessor or source has opened a link.
    pub(super) fn on_link_offered(
        &mut self,
        link: LinkId,
        from: NodeId,
        incarnation: Incarnation,
        epoch: Epoch,
        kind: LinkKind,
        out: &mut Vec<Output>,
    ) {
        self.on_newer_epoch(epoch, out);
        let view = self.view.as_ref().filter(|view| view.epoch == epoch);
        let expected = view.and_then(|view| match kind {
            LinkKind::Chain => view.predecessor(self.node).map(|member| member.node),
            LinkKind::Transfer => view.learner(self.node).map(|learner| learner.source),
        });
        let is_same_process = planted::is(Bug::IncarnationIgnored)
            || view.is_some_and(|view| view.incarnation(from) == Some(incarnation));
        if expected != Some(from) || !is_same_process || self.role() == Role::None {
            out.push(Output::CloseLink { link });
            return;
        }
        if let Some(old) = self.up.take() {
            out.push(Output::CloseLink { link: old.link });
        }
        self.forget_upstream();
        self.caught_up = false;
        let (outcomes, held) = (Vec::new(), VecDeque::new());
        self.up = Some(Up { link, kind, stage: UpStage::Waiting, outcomes, held });
        self.maybe_say_hello(out);
    }

    /// What this replica holds: the first thing that is said on a link.
    pub(super) fn maybe_say_hello(&mut self, out: &mut Vec<Output>) {
        let is_waiting = self.up.as_ref().is_some_and(|up| up.stage == UpStage::Waiting);
        if !is_waiting || !self.is_moving() || self.has_rows_under_way() {
            return;
        }
        if !self.holds_the_chains_log() {
            // protocol.md 4: a replica that is not in sync is brought up from its commit.
            self.drop_dirty_suffix(out);
        }
        let epoch = self.epoch();
        let message =
            Message::Hello { commit: self.known_and_held(), last: self.log.last, suffix: self.log.runs() };
        if let Some(up) = &mut self.up {
            up.stage = UpStage::Greeted;
            out.push(Output::Send { link: up.link, epoch, message });
        }
    }

    /// In sync, or level: what it holds above the commit counts. One that has become level in this epoch has said what it
    /// has on disk, and the chain may have committed on the strength of that, or the coordinator called it in sync by now:
    /// it drops nothing when its link opens again.
    fn holds_the_chains_log(&self) -> bool {
        self.is_in_sync() || (self.first_entry.is_some() && !planted::is(Bug::LevelDropsSuffix))
    }

    /// The highest sequence that is known to be committed and held here.
    fn known_and_held(&self) -> Seq {
        self.commit_known.min(self.log.last).max(self.log.commit)
    }

    /// The one place that compares epochs: nothing of another one is acted on.
    pub(super) fn on_received(
        &mut self,
        now: Time,
        link: LinkId,
        epoch: Epoch,
        message: Message,
        out: &mut Vec<Output>,
    ) {
        if epoch != self.epoch() && !planted::is(Bug::OlderEpochAccepted) {
            self.on_newer_epoch(epoch, out);
            return;
        }
        if self.up.as_ref().is_some_and(|up| up.link == link) {
            return self.on_message_from_above(message, out);
        }
        if self.down.as_ref().is_some_and(|down| down.link == link) {
            return self.on_message_from_below(now, None, message, out);
        }
        let learner = self.learners.iter().find(|(_, learner)| learner.link == link).map(|(node, _)| *node);
        if learner.is_some() {
            self.on_message_from_below(now, learner, message, out);
        }
    }

    fn on_message_from_above(&mut self, message: Message, out: &mut Vec<Output>) {
        let is_row = matches!(message, Message::Rows { .. });
        if !is_row && self.has_rows_under_way() {
            // Rows come into the map and the log only when they are durable; what follows builds on them.
            if let Some(up) = &mut self.up {
                up.held.push_back(message);
            }
            return;
        }
        match message {
            Message::Rows { rows, through, from_nothing, gc_floor } => {
                self.on_rows(rows, through, from_nothing, gc_floor, out);
            }
            Message::CaughtUp { through, outcomes, more, forgotten_through } => {
                self.on_caught_up(through, outcomes, more, forgotten_through, out);
            }
            Message::Level { commit, truncate_to } => self.on_level(commit, truncate_to, out),
            Message::Append { entries, durable, commit } => self.on_append(entries, durable, commit, out),
            Message::Hello { .. } | Message::RowsAck { .. } | Message::Ack { .. } => self.close_up(out),
        }
    }

    pub(super) fn take_held_messages(&mut self, out: &mut Vec<Output>) {
        while !self.has_rows_under_way() {
            let Some(message) = self.up.as_mut().and_then(|up| up.held.pop_front()) else { break };
            self.on_message_from_above(message, out);
        }
        self.maybe_say_hello(out);
    }

    /// What came makes no sense: the link is closed, and opened again by the other side.
    pub(super) fn close_up(&mut self, out: &mut Vec<Output>) {
        if let Some(up) = self.up.take() {
            out.push(Output::CloseLink { link: up.link });
        }
        self.forget_upstream();
    }

    fn on_level(&mut self, commit: Seq, truncate_to: Seq, out: &mut Vec<Output>) {
        if self.holds_the_chains_log() && commit > self.log.last {
            let last = self.log.last;
            let reason = format!(
                "the chain has committed up to {commit}, but this log ends at {last}: the store lost data"
            );
            return self.halt(reason, out);
        }
        if truncate_to < self.log.commit {
            let own = self.log.commit;
            let reason =
                format!("told to truncate to {truncate_to}, below the commit {own}: two chains have parted");
            return self.halt(reason, out);
        }
        if !planted::is(Bug::TruncationSkipped) {
            self.throw_away_above(truncate_to, "the chain changed and goes on without the write", out);
        }
        self.commit_known = self.commit_known.max(commit);
        if let Some(up) = &mut self.up {
            up.stage = UpStage::Live;
        }
        self.ack_due = true;
        self.advance_commit(out);
    }

    fn on_append(&mut self, entries: Vec<Arc<Entry>>, durable: Seq, commit: Seq, out: &mut Vec<Output>) {
        let Some(up) = self.up.as_ref().filter(|up| up.is_live()) else { return self.close_up(out) };
        let kind = up.kind;
        let mut new = Vec::with_capacity(entries.len());
        for entry in entries {
            // protocol.md 3.5: a gap closes the link, a duplicate is skipped only if it is the same entry.
            if entry.seq > self.log.last.next() {
                return self.close_up(out);
            }
            if entry.seq <= self.log.last {
                let held = self.log.entry(entry.seq);
                let is_other = held.is_some_and(|held| held.origin_epoch != entry.origin_epoch);
                if is_other && !planted::is(Bug::TruncationSkipped) {
                    return self.close_up(out);
                }
                continue;
            }
            self.hold(&entry);
            new.push(entry);
        }
        if !new.is_empty() {
            let through = self.log.last;
            let write = StoreWrite { entries: new.clone(), ..StoreWrite::default() };
            self.persist(write, Pending::Entries { through }, out);
        }
        self.commit_known = self.commit_known.max(commit);
        if kind == LinkKind::Chain {
            self.upstream_durable = self.upstream_durable.max(Some(durable));
            if !new.is_empty() {
                self.forward(new, out);
            }
        }
        self.advance_commit(out);
    }

    fn on_message_from_below(
        &mut self,
        now: Time,
        learner: Option<NodeId>,
        message: Message,
        out: &mut Vec<Output>,
    ) {
        match message {
            Message::Hello { commit, last, suffix } => self.on_hello(learner, commit, last, &suffix, out),
            Message::RowsAck { .. } => self.on_rows_ack(learner, out),
            Message::Ack { commit } if learner.is_none() => self.on_ack(now, commit, out),
            // A learner's commit follows the own one and decides nothing.
            Message::Ack { .. } => {}
            _ => self.close_below(learner, out),
        }
    }

    pub(super) fn below(&mut self, learner: Option<NodeId>) -> Option<&mut Down> {
        match learner {
            None => self.down.as_mut(),
            Some(node) => self.learners.get_mut(&node),
        }
    }

    pub(super) fn close_below(&mut self, learner: Option<NodeId>, out: &mut Vec<Output>) {
        if let Some(down) = self.below(learner) {
            let link = down.link;
            self.on_link_closed(link);
            out.push(Output::CloseLink { link });
        }
    }

    /// The other side says what it holds: it is in sync and the logs are joined, or it is brought up.
    fn on_hello(
        &mut self,
        learner: Option<NodeId>,
        commit: Seq,
        last: Seq,
        suffix: &[Run],
        out: &mut Vec<Output>,
    ) {
        let Some(view) = self.view.clone() else { return };
        let has_first_entry = self.first_entry.is_some_and(|first| commit >= first)
            || suffix.iter().any(|run| run.origin_epoch == view.epoch);
        let is_in_sync = view.successor(self.node).is_some_and(|successor| successor.in_sync);
        if learner.is_some() || !(is_in_sync || has_first_entry) {
            return self.begin_walk(learner, commit, out);
        }
        if commit > self.log.last {
            let own = self.log.last;
            let reason = format!(
                "the successor has committed up to {commit}, but this log ends at {own}: the store lost data"
            );
            return self.halt(reason, out);
        }
        // protocol.md 4: both raise their commit to the larger of the two.
        let commit = self.known_and_held().max(commit);
        self.commit_known = self.commit_known.max(commit);
        // If the successor does not reach it, it is the one that has lost data, and will say so.
        let truncate_to = self.log.common_prefix(commit, suffix).min(last.max(commit));
        self.go_live(commit, truncate_to, Vec::new(), out);
    }

    /// From here on entries flow to the successor: those that were committed while it was walked for, then the dirty ones.
    pub(super) fn go_live(
        &mut self,
        commit: Seq,
        truncate_to: Seq,
        meanwhile: Vec<Arc<Entry>>,
        out: &mut Vec<Output>,
    ) {
        let epoch = self.epoch();
        let mut entries = meanwhile;
        entries.extend(self.log.above(truncate_to.max(self.log.commit)).cloned());
        if let Some(down) = &mut self.down {
            down.stage = DownStage::Live;
            out.push(Output::Send {
                link: down.link,
                epoch,
                message: Message::Level { commit, truncate_to },
            });
        }
        self.forward(entries, out);
        self.advance_commit(out);
    }
}
