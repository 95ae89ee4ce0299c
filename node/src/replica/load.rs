//! Rebuilding a replica from its store at the start of a process, by one walk of the log.
//!
//! The process is a new one: it takes part in no epoch before one names its incarnation, and it takes itself as having
//! promised, just now, to all whom a promise of the one before may still bind (`protocol.md` 4 and 6).

use std::{collections::VecDeque, sync::Arc};

use craq_proto::{
    Entry, Epoch, Incarnation, NodeId, Row, Seq, Time,
    planted::{self, Bug},
};

use super::{
    Config, Replica, event::StoredView, lease::Leases, log::Log, outcomes::Outcomes, question::Questions,
    sweep::Sweep, versions::Versions,
};
use crate::store::Meta;

/// Takes the rows of a store's log, rising, and makes a replica of them.
#[derive(Debug)]
pub struct Loader {
    replica: Replica,
    stored: Option<Box<StoredView>>,
    /// Rows of the entry that is being put together, above the commit.
    partial: Vec<Row>,
}

impl Loader {
    /// Begins with what the store says of the chain; the rows follow.
    #[must_use]
    pub fn new(config: Config, node: NodeId, incarnation: Incarnation, meta: Meta) -> Self {
        let mut outcomes = Outcomes::at(meta.forgotten_through);
        for outcome in meta.outcomes {
            outcomes.keep(outcome, true);
        }
        let replica = Replica {
            config,
            node,
            incarnation,
            versions: Arc::new(Versions::new()),
            view: None,
            view_durable: true,
            gate: None,
            first_entry: None,
            log: Log::at(meta.commit),
            commit_known: meta.commit,
            upstream_durable: None,
            outcomes,
            sweep: Sweep::at(meta.gc_floor),
            persisting: VecDeque::new(),
            persists: 0,
            saved_commit: meta.commit,
            saved_forgotten: meta.forgotten_through,
            up: None,
            down: None,
            learners: std::collections::BTreeMap::new(),
            links: 0,
            durable_told: Seq::ZERO,
            ack_due: false,
            caught_up: false,
            transfer_rows: 0,
            transfer_bytes: 0,
            waiters: std::collections::BTreeMap::new(),
            questions: Questions::default(),
            leases: Leases::default(),
            reported: (Epoch::ZERO, false, false),
            halted: false,
        };
        Self { replica, stored: meta.view, partial: Vec::new() }
    }

    /// The next row.
    pub fn row(&mut self, row: Row) {
        let replica = &mut self.replica;
        if row.seq > replica.log.commit {
            self.partial.push(row);
            if self.partial.last().is_some_and(|row| row.index + 1 == row.count) {
                let entry = Arc::new(entry(std::mem::take(&mut self.partial)));
                replica.hold(&entry);
            }
            return;
        }
        replica.outcomes.row(&row);
        let commits = replica.versions.begin_commits();
        replica.sweep.row_committed(&row, |key, position| commits.load(key, position));
    }

    /// All rows have come.
    #[must_use]
    pub fn finish(self, now: Time) -> Replica {
        assert!(self.partial.is_empty(), "the log ends in the middle of an entry");
        let mut replica = self.replica;
        replica.versions.put_in_order();
        replica.versions.begin_commits().reached(replica.log.commit);
        replica.log.durable = replica.log.last;
        if let Some(StoredView { view, bound }) = self.stored.map(|stored| *stored) {
            let until = now + replica.config.promise();
            let members = view.members.iter().map(|member| member.node);
            let members = members.filter(|_| !planted::is(Bug::PromisesForgotten));
            let bound = bound.into_iter().filter(|_| !planted::is(Bug::BoundForgotten));
            for node in members.chain(bound).filter(|node| *node != replica.node) {
                replica.leases.promise(node, until);
            }
            if planted::is(Bug::IncarnationIgnored) {
                replica.gate = Some(replica.leases.bound_outside(&view, now).1.unwrap_or_default());
            }
            replica.view = Some(Arc::new(view));
        }
        replica.publish(now);
        replica
    }
}

/// The entry that these rows are.
fn entry(rows: Vec<Row>) -> Entry {
    let first = rows.first().expect("an entry has a row");
    let (seq, count) = (first.seq, first.count as usize);
    let whole = rows.len() == count
        && rows.iter().enumerate().all(|(i, row)| row.seq == seq && row.index as usize == i);
    assert!(whole, "entry {seq} is not whole in the log above the commit");
    Entry {
        seq,
        origin_epoch: first.origin_epoch,
        request: first.request,
        forget_through: first.forget_through,
        mutations: rows.into_iter().filter_map(|row| row.mutation).collect(),
    }
}
