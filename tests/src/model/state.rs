//! A state of the model: three nodes, what is on its way between them, the coordinator's views, the clients, and what was
//! seen of committed entries so far. Cheap to copy: what a step does not touch is shared.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use craq_node::replica::{
    Permit, Replica,
    event::{PersistId, Position, StoreWrite},
};
use craq_proto::{ClientId, Epoch, Incarnation, Seq, Time, View};

use super::{
    disk::{Disk, hash_write},
    network::{Place, Sent, Wire},
    rules::Broken,
};

/// How many nodes there are.
pub(super) const NODES: usize = 3;

/// A node: its disk outlives its process.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) incarnation: Incarnation,
    pub(super) replica: Option<Replica>,
    pub(super) disk: Arc<Disk>,
    pub(super) writes: VecDeque<(PersistId, Arc<StoreWrite>)>,
    /// Of all that is above, at the state's time.
    print: u64,
}

impl Node {
    pub(super) fn new(incarnation: Incarnation, replica: Option<Replica>, disk: Arc<Disk>) -> Self {
        Self { incarnation, replica, disk, writes: VecDeque::new(), print: 0 }
    }

    pub(super) fn fork(&self) -> Self {
        Self {
            incarnation: self.incarnation,
            replica: self.replica.as_ref().map(Replica::fork),
            disk: Arc::clone(&self.disk),
            writes: self.writes.clone(),
            print: 0,
        }
    }

    pub(super) fn seal(&mut self, now: Time) {
        let mut print = DefaultHasher::new();
        self.incarnation.hash(&mut print);
        self.replica.is_some().hash(&mut print);
        self.replica.iter().for_each(|replica| replica.hash_state(now, &mut print));
        self.disk.hash(&mut print);
        self.writes.len().hash(&mut print);
        self.writes.iter().for_each(|(_, write)| hash_write(write, &mut print));
        self.print = print.finish();
    }
}

/// A client that writes, one write after another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Writer {
    pub(super) left: u8,
    pub(super) number: u64,
    /// What clients had been told when the write was first sent: it must come to stand above.
    pub(super) floor: Seq,
    pub(super) phase: Writing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Writing {
    Idle,
    /// Sent to that node.
    Waits(Place),
    /// It heard no, or nothing: to be sent once more.
    Again,
}

/// The client that reads, one read after another, each at any node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    Idle,
    /// The node asks the tail. What was acknowledged or read before the read began must be in what it returns.
    Asks {
        at: Place,
        floor: Seq,
    },
    /// The node is about to look into its store.
    Planned {
        at: Place,
        floor: Seq,
        position: Option<Position>,
        permit: Permit,
    },
}

/// What identifies a committed entry.
pub(super) type Committed = (Epoch, Option<(ClientId, u64)>);

/// A state of the model.
#[derive(Debug, Clone)]
pub struct State {
    /// In steps as long as a lease.
    pub(super) tick: u8,
    pub(super) nodes: [Arc<Node>; NODES],
    pub(super) wires: Vec<Arc<Wire>>,
    pub(super) calls: Vec<Sent>,
    /// When the newest ping was sent that the second promised to the first. The replica knows it too, so that this is no
    /// further part of the state.
    pub(super) promised: [[Time; NODES]; NODES],
    /// All that the coordinator has published; the newest is the last.
    pub(super) views: Arc<Vec<View>>,
    pub(super) writers: Vec<Writer>,
    pub(super) reading: Reading,
    pub(super) reads_left: u8,
    pub(super) crashes_left: u8,
    pub(super) breaks_left: u8,
    /// The committed entries as the first replica that committed them had them, from sequence 1.
    pub(super) committed: Vec<Committed>,
    /// The highest sequence that a client was told of.
    pub(super) told: Seq,
    pub(super) broken: Option<Broken>,
}

impl State {
    /// One tick is a lease; time does not begin at zero, which stands for never.
    pub(super) fn now(&self) -> Time {
        Time::from_millis((u64::from(self.tick) + 10) * super::TICK_MILLIS)
    }

    pub(super) fn newest(&self) -> &View {
        self.views.last().expect("the coordinator has published a view")
    }

    pub(super) fn replica(&self, place: Place) -> Option<&Replica> {
        self.nodes[place].replica.as_ref()
    }

    pub(super) fn epoch(&self, place: Place) -> Option<Epoch> {
        self.replica(place).map(|replica| replica.view().map_or(Epoch::ZERO, |view| view.epoch))
    }

    /// A node that may be changed; to be sealed when that is done.
    pub(super) fn node_mut(&mut self, place: Place) -> &mut Node {
        if Arc::get_mut(&mut self.nodes[place]).is_none() {
            self.nodes[place] = Arc::new(self.nodes[place].fork());
        }
        Arc::get_mut(&mut self.nodes[place]).expect("a node that was just copied is not shared")
    }

    /// A member of the newest view waits for a promise to run out.
    pub(super) fn gate_waits(&self) -> bool {
        let now = self.now();
        (0..NODES).filter_map(|place| self.replica(place)).any(|replica| {
            let waits =
                replica.next_deadline().is_some_and(|until| until > now && until < now + super::NEVER);
            waits && replica.status(now).role.is_member() && !replica.status(now).active
        })
    }

    /// What is different in `after`, in words.
    pub(super) fn changes(&self, after: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (at, node) in after.nodes.iter().enumerate() {
            let line = |node: &Node, now| match &node.replica {
                None => format!("{} is down", super::NAMES[at]),
                Some(replica) => {
                    let s = replica.status(now);
                    let (lease, moves) =
                        (if s.readable { "lease" } else { "-" }, if s.active { "active" } else { "-" });
                    let (commit, last, durable) = (s.commit, s.last, s.durable);
                    let name = super::NAMES[at];
                    format!(
                        "{name}: e{} {} last {last} durable {durable} commit {commit} {moves} {lease}",
                        s.epoch, s.role
                    )
                }
            };
            let (before, now) = (line(&self.nodes[at], self.now()), line(node, after.now()));
            lines.extend((before != now).then_some(now));
        }
        let told = after.told.0.max(self.told.0);
        lines.extend((self.told != after.told).then(|| format!("clients have been told of {told}")));
        lines.extend(after.broken.as_ref().map(|broken| format!("BROKEN {:?}: {}", broken.rule, broken.how)));
        lines
    }

    pub(super) fn seal(&mut self, place: Place) {
        let now = self.now();
        self.node_mut(place).seal(now);
    }
}

fn print(value: &impl Hash) -> u64 {
    let mut print = DefaultHasher::new();
    value.hash(&mut print);
    print.finish()
}

impl Hash for State {
    fn hash<H: Hasher>(&self, to: &mut H) {
        self.tick.hash(to);
        self.nodes.iter().for_each(|node| node.print.hash(to));
        // What has no order among itself is added up.
        self.wires.iter().fold(0u64, |sum, wire| sum.wrapping_add(print(wire))).hash(to);
        self.calls.iter().fold(0u64, |sum, sent| sum.wrapping_add(print(sent))).hash(to);
        self.views.iter().for_each(|view| {
            view.members.iter().for_each(|member| (member.node, member.incarnation).hash(to));
        });
        (self.views.len(), &self.writers, self.reads_left, self.crashes_left, self.breaks_left).hash(to);
        match &self.reading {
            Reading::Idle => 0.hash(to),
            Reading::Asks { at, floor } => (1, at, floor).hash(to),
            Reading::Planned { at, floor, position, permit } => {
                (2, at, floor, position.map(|position| (position.seq, position.version)), permit).hash(to);
            }
        }
        (&self.committed, self.told, self.broken.is_some()).hash(to);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        print(self) == print(other)
    }
}
