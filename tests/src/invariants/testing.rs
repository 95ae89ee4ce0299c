//! A stage on which the tests of the invariants let things happen.

use std::{collections::BTreeMap, sync::Arc};

use craq_node::replica::{
    Config, Status,
    event::{StoreWrite, StoredView},
};
use craq_proto::{
    ChainId, ClientId, Entry, Epoch, Incarnation, Key, Learner, Member, Mutation, NodeId, Op, RequestId, Row,
    Seq, Value, Version, View, entry as wire,
};
use uuid::Uuid;

use super::{Checked, Fact, Invariants};

pub(super) fn node(n: u64) -> NodeId {
    NodeId(Uuid::from_u128(u128::from(n)))
}

pub(super) fn config() -> Config {
    Config::default()
}

pub(super) fn request(client: u128, number: u64, floor: u64) -> Option<RequestId> {
    Some(RequestId {
        client: ClientId(Uuid::from_u128(client)),
        number,
        floor,
        born: Seq::ZERO,
        retry: false,
    })
}

/// An entry with one key, of client 1, whose request has the number of its sequence.
pub(super) fn entry(seq: u64, epoch: u64, key: &str, version: u64) -> Entry {
    let value = format!("{key}{version}");
    let mutation = Mutation {
        key: Key::new(key.to_owned()).expect("a short key"),
        version: Version(version),
        checksum: wire::checksum(key.as_bytes(), value.as_bytes()),
        op: Op::Put(Value::new(value, 100).expect("a short value")),
    };
    Entry {
        seq: Seq(seq),
        origin_epoch: Epoch(epoch),
        request: request(1, seq, 1),
        mutations: vec![mutation],
        forget_through: Seq::ZERO,
    }
}

/// As [`entry`], but the key is deleted.
pub(super) fn deletion(seq: u64, epoch: u64, key: &str, version: u64) -> Entry {
    let mut entry = entry(seq, epoch, key, version);
    entry.mutations[0].op = Op::Delete;
    entry.mutations[0].checksum = wire::checksum(key.as_bytes(), &[]);
    entry
}

/// A view with these members, all in sync, and these learners of the first member.
pub(super) fn view(epoch: u64, members: &[u64], learners: &[u64]) -> View {
    let (incarnation, address) = (Incarnation(1), String::new());
    let member = |n: &u64| Member { node: node(*n), incarnation, in_sync: true, address: address.clone() };
    let learner = |n: &u64| {
        let source = node(members.first().copied().unwrap_or_default());
        Learner { node: node(*n), incarnation, source, address: address.clone() }
    };
    View {
        chain: ChainId::default_chain(),
        epoch: Epoch(epoch),
        members: members.iter().map(member).collect(),
        learners: learners.iter().map(learner).collect(),
        reason: "test".to_owned(),
        rebuilt_in: Epoch::ZERO,
        expelled: Vec::new(),
    }
}

#[derive(Default)]
struct Told {
    incarnation: u64,
    installed: Option<View>,
    stored: Option<View>,
    commit: u64,
    last: u64,
    rows: BTreeMap<(Seq, u32), Row>,
    pending: Vec<StoreWrite>,
}

/// Nodes 1 to n in one chain of epoch 1. What happens after a violation is not told any more.
pub(super) struct Scene {
    invariants: Invariants,
    nodes: BTreeMap<u64, Told>,
    newest: View,
    outcome: Checked,
}

impl Scene {
    pub(super) fn new(nodes: u64) -> Self {
        Self::with(nodes, config())
    }

    pub(super) fn with(nodes: u64, config: Config) -> Self {
        let members: Vec<u64> = (1..=nodes).collect();
        let mut scene = Self {
            invariants: Invariants::new(&config),
            nodes: BTreeMap::new(),
            newest: view(1, &members, &[]),
            outcome: Ok(()),
        };
        for n in &members {
            scene.restart(*n, 0);
        }
        scene.view(1, &members, &[]);
        for n in members {
            scene.install(n);
        }
        scene.is_legal();
        scene
    }

    fn tell(&mut self, fact: Fact<'_>) -> &mut Self {
        if self.outcome.is_ok() {
            self.outcome = self.invariants.fact(fact);
        }
        self
    }

    pub(super) fn is_legal(&mut self) -> &mut Self {
        assert_eq!(self.outcome, Ok(()));
        self
    }

    pub(super) fn violates(&mut self, invariant: &str) {
        let found = self.outcome.as_ref().map_err(|violation| violation.invariant);
        assert_eq!(found, Err(invariant), "{:?}", self.outcome);
    }

    pub(super) fn order(&mut self, n: u64, write: StoreWrite) -> &mut Self {
        self.tell(Fact::Ordered { node: node(n), write: &write });
        let told = self.nodes.entry(n).or_default();
        told.last = write.entries.iter().map(|entry| entry.seq.0).fold(told.last, u64::max);
        told.pending.push(write);
        self
    }

    pub(super) fn order_entry(&mut self, n: u64, entry: &Entry) -> &mut Self {
        self.order(n, StoreWrite { entries: vec![Arc::new(entry.clone())], ..StoreWrite::default() })
    }

    /// All that is ordered becomes durable.
    pub(super) fn store_all(&mut self, n: u64) -> &mut Self {
        for write in std::mem::take(&mut self.nodes.entry(n).or_default().pending) {
            let told = self.nodes.entry(n).or_default();
            for row in &write.remove_rows {
                told.rows.remove(row);
            }
            let rows = write.entries.iter().flat_map(|entry| entry.rows());
            told.rows.extend(rows.map(|row| ((row.seq, row.index), row)));
            if let Some(stored) = &write.view {
                told.stored = Some(stored.view.clone());
            }
            self.tell(Fact::Stored { node: node(n), write: &write });
        }
        self
    }

    pub(super) fn append(&mut self, nodes: &[u64], entry: Entry) -> &mut Self {
        for n in nodes {
            self.order_entry(*n, &entry).store_all(*n);
        }
        self
    }

    pub(super) fn commit(&mut self, n: u64, commit: u64) -> &mut Self {
        let told = self.nodes.entry(n).or_default();
        told.commit = commit;
        let epoch = told.installed.as_ref().map_or(Epoch::ZERO, |view| view.epoch);
        self.tell(Fact::Committed { node: node(n), epoch, commit: Seq(commit) })
    }

    pub(super) fn ack(&mut self, n: u64, seq: u64, version: u64) -> &mut Self {
        self.ack_as(n, seq, seq, version)
    }

    pub(super) fn ack_as(&mut self, n: u64, seq: u64, number: u64, version: u64) -> &mut Self {
        let request = request(1, number, 1).expect("a request");
        let versions = [Version(version)];
        self.tell(Fact::Acked { node: node(n), request, seq: Seq(seq), versions: &versions })
    }

    pub(super) fn status(&mut self, n: u64) -> &mut Self {
        self.tell_status(n, false)
    }

    pub(super) fn status_active(&mut self, n: u64) -> &mut Self {
        self.tell_status(n, true)
    }

    fn tell_status(&mut self, n: u64, active: bool) -> &mut Self {
        let told = &self.nodes[&n];
        let status = Status {
            epoch: told.installed.as_ref().map_or(Epoch::ZERO, |view| view.epoch),
            role: told.installed.as_ref().map_or(craq_proto::Role::None, |view| view.role(node(n))),
            active,
            caught_up: false,
            commit: Seq(told.commit),
            last: Seq(told.last),
            durable: Seq(told.last),
            keys: 0,
            readable: false,
            writable: false,
            transfer_bytes: 0,
            transfer_rows: 0,
        };
        self.tell(Fact::Status { node: node(n), status: &status })
    }

    pub(super) fn view(&mut self, epoch: u64, members: &[u64], learners: &[u64]) -> &mut Self {
        self.newest = view(epoch, members, learners);
        let view = self.newest.clone();
        self.tell(Fact::Logged { view: &view })
    }

    /// The newest view is stored and installed.
    pub(super) fn install(&mut self, n: u64) -> &mut Self {
        let view = self.newest.clone();
        let stored = Some(Box::new(StoredView { view: view.clone(), bound: vec![] }));
        self.order(n, StoreWrite { view: stored, ..StoreWrite::default() }).store_all(n);
        self.nodes.entry(n).or_default().installed = Some(view.clone());
        self.tell(Fact::Installed { node: node(n), view: &view })
    }

    /// The first view is installed once more.
    pub(super) fn install_old(&mut self, n: u64) -> &mut Self {
        let members: Vec<u64> = (1..=self.nodes.len() as u64).collect();
        self.tell(Fact::Installed { node: node(n), view: &view(1, &members, &[]) })
    }

    /// This node goes on to epoch 2, of the same members, before all others.
    pub(super) fn leave_behind(&mut self, n: u64) -> &mut Self {
        let members: Vec<u64> = (1..=self.nodes.len() as u64).collect();
        self.view(2, &members, &[]).install(n)
    }

    pub(super) fn end(&mut self, n: u64) -> &mut Self {
        self.tell(Fact::Ended { node: node(n) })
    }

    pub(super) fn restart(&mut self, n: u64, commit: u64) -> &mut Self {
        let told = self.nodes.entry(n).or_default();
        told.incarnation += 1;
        told.pending.clear();
        (told.commit, told.installed) = (commit, told.stored.clone());
        let rows: Vec<Row> = told.rows.values().cloned().collect();
        told.last = rows.last().map_or(commit, |row| row.seq.0.max(commit));
        let (view, last, incarnation) = (told.stored.clone(), Seq(told.last), Incarnation(told.incarnation));
        let (view, commit) = (view.as_ref(), Seq(commit));
        self.tell(Fact::Started { node: node(n), incarnation, view, commit, last, rows: &rows })
    }

    /// The disk has lost what it should have, and nobody is told.
    pub(super) fn lose_row(&mut self, n: u64, seq: u64) -> &mut Self {
        self.nodes.entry(n).or_default().rows.remove(&(Seq(seq), 0));
        self
    }

    /// The disk has what it should not have, or what was on its way to it.
    pub(super) fn put_row(&mut self, n: u64, entry: &Entry) -> &mut Self {
        let rows = entry.rows().map(|row| ((row.seq, row.index), row));
        self.nodes.entry(n).or_default().rows.extend(rows);
        self
    }

    /// The node's memory has lost its uncommitted entries.
    pub(super) fn forget_suffix(&mut self, n: u64) -> &mut Self {
        self.invariants.nodes.entry(node(n)).or_default().suffix = Default::default();
        self
    }

    /// The node's disk has this entry, whatever its memory has.
    pub(super) fn put_on_disk(&mut self, n: u64, entry: &Entry) -> &mut Self {
        let known = self.invariants.nodes.entry(node(n)).or_default();
        known.disk.entries.insert(entry.seq, Arc::new(entry.clone()));
        self
    }

    pub(super) fn quiet(&mut self) -> &mut Self {
        let contents = |(n, told): (&u64, &Told)| (node(*n), told.rows.values().cloned().collect());
        let replicas: Vec<(NodeId, Vec<Row>)> = self.nodes.iter().map(contents).collect();
        if self.outcome.is_ok() {
            self.outcome = self.invariants.quiet(&replicas);
        }
        self
    }
}
