//! Connections that last: ordered streams of parcels, both ways, between two processes. Links between replicas are such,
//! and so are the conversations of nodes with coordinators.
//!
//! What is on its way when the path is cut arrives when it is mended, if that is soon; else the connection is lost, and
//! with it what was on its way. Each side notices that by itself.

use std::{collections::VecDeque, time::Duration};

use craq_coordinator::cluster::{Registration, Replicas, Suspicion};
use craq_node::replica::event::{Input, LinkId, LinkKind, Message};
use craq_proto::{Epoch, Incarnation, NodeId, View};
use rand::RngExt;

use super::{
    place::{End, Place},
    time::At,
    world::{Event, ToNode, World, note},
};

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Who opened it.
    Opener,
    /// Who accepted it.
    Acceptor,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Opener => Self::Acceptor,
            Self::Acceptor => Self::Opener,
        }
    }
}

/// What travels.
#[derive(Debug)]
pub(super) enum Parcel {
    /// A link is opened.
    Offer { from: NodeId, to: NodeId, incarnation: Incarnation, epoch: Epoch, kind: LinkKind },
    /// Something is said on a link.
    Said(Epoch, Message),
    /// A node presents itself to a coordinator.
    Register(Registration),
    /// The coordinator has taken it.
    Registered,
    /// The coordinator does not lead; who does, as far as it knows.
    NotLeader(Option<String>),
    /// The node lives.
    Beat(Replicas, Vec<Suspicion>),
    /// The node wants to leave.
    Leave,
    /// The newest view.
    View(View),
    /// The other side has closed it.
    Closed,
}

#[derive(Debug, Default)]
struct Direction {
    parcels: VecDeque<(At, Parcel)>,
    /// The path has been cut since then.
    stalled: Option<At>,
    /// The side that these parcels go to wants nothing more.
    closed: bool,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Pipe {
    opener: End,
    acceptor: Place,
    accepted: Option<u64>,
    /// The names that the two replicas have for it, if it is a link.
    pub(super) links: [Option<LinkId>; 2],
    to_opener: Direction,
    to_acceptor: Direction,
    lost: bool,
    opened: At,
    /// The opener has heard something.
    was_up: bool,
}

impl Pipe {
    /// Who is at the side; the accepting process is known once it has accepted.
    pub(super) fn end(&self, side: Side) -> Option<End> {
        match side {
            Side::Opener => Some(self.opener),
            Side::Acceptor => Some(End { place: self.acceptor, process: self.accepted.unwrap_or(u64::MAX) }),
        }
    }

    fn place(&self, side: Side) -> Place {
        match side {
            Side::Opener => self.opener.place,
            Side::Acceptor => self.acceptor,
        }
    }

    fn to(&mut self, side: Side) -> &mut Direction {
        match side {
            Side::Opener => &mut self.to_opener,
            Side::Acceptor => &mut self.to_acceptor,
        }
    }
}

/// A link that lived shorter than this counts as one that could not be opened.
const LIFE_MIN: Duration = Duration::from_millis(100);
/// A connection that is cut for so long is lost, in milliseconds.
const STALL_MILLIS: std::ops::Range<u64> = 300..1_000;

impl World {
    /// Opens a pipe; the first parcel arrives, or the opener hears in time that it does not.
    pub(super) fn open_pipe(&mut self, opener: End, to: Place, link: Option<LinkId>, first: Parcel) -> u64 {
        let id = self.next_id();
        let pipe = Pipe {
            opener,
            acceptor: to,
            accepted: None,
            links: [link, None],
            to_opener: Direction::default(),
            to_acceptor: Direction::default(),
            lost: false,
            opened: self.now,
            was_up: false,
        };
        self.pipes.insert(id, pipe);
        self.send(id, Side::Acceptor, first);
        id
    }

    /// Puts a parcel on its way to this side.
    pub(super) fn send(&mut self, id: u64, to: Side, parcel: Parcel) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        if pipe.lost {
            return;
        }
        let (from, place) = (pipe.place(to.other()), pipe.place(to));
        let delay = self.network.delay(&mut self.random, from, place);
        let direction = pipe.to(to);
        let earliest = direction.parcels.back().map_or(At(0), |(at, _)| *at);
        let at = self.now.after(delay).max(earliest);
        direction.parcels.push_back((at, parcel));
        if direction.parcels.len() == 1 {
            self.schedule_at(at, Event::Parcel(id, to));
        }
    }

    pub(super) fn on_parcel(&mut self, id: u64, to: Side) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        let (from, place) = (pipe.place(to.other()), pipe.place(to));
        let now = self.now;
        let direction = pipe.to(to);
        let Some((due, _)) = direction.parcels.front() else { return };
        if *due > now {
            let due = *due;
            return self.schedule_at(due, Event::Parcel(id, to));
        }
        if !self.network.is_open(from, place) {
            let since = *direction.stalled.get_or_insert(now);
            if now.since(since) > Duration::from_millis(self.random.random_range(STALL_MILLIS)) {
                return self.lose_pipe(id, Duration::from_millis(1)..Duration::from_millis(1_000));
            }
            let again = Duration::from_millis(self.random.random_range(5..60));
            return self.schedule(again, Event::Parcel(id, to));
        }
        direction.stalled = None;
        let Some((_, parcel)) = direction.parcels.pop_front() else { return };
        if let Some((due, _)) = direction.parcels.front() {
            let due = *due;
            self.schedule_at(due, Event::Parcel(id, to));
        }
        self.deliver(id, to, parcel);
    }

    fn deliver(&mut self, id: u64, to: Side, parcel: Parcel) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        if pipe.to(to).closed {
            return;
        }
        if to == Side::Opener {
            pipe.was_up = true;
        }
        let place = pipe.place(to);
        let alive = self.end_at(place);
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        if to == Side::Acceptor && pipe.accepted.is_none() {
            pipe.accepted = alive.map(|end| end.process);
        }
        if alive.is_none() || pipe.end(to) != alive {
            return self.lose_pipe(id, Duration::ZERO..Duration::from_millis(5));
        }
        if matches!(parcel, Parcel::Closed) {
            note!(self, place, "closed", "pipe {id}");
            return self.gone(id, to);
        }
        match place {
            Place::Node(machine) => self.node_hears(machine, id, to, parcel),
            Place::Coordinator(index) => self.coordinator_hears(index, id, parcel),
            Place::Client(_) | Place::World => {}
        }
    }

    /// This side wants nothing more; what it has said still arrives.
    pub(super) fn close_pipe(&mut self, id: u64, side: Side) {
        if let Some(pipe) = self.pipes.get_mut(&id) {
            pipe.to(side).closed = true;
            self.send(id, side.other(), Parcel::Closed);
        }
    }

    /// The connection breaks. Each side that lives notices within such a time.
    pub(super) fn lose_pipe(&mut self, id: u64, noticed: std::ops::Range<Duration>) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        if std::mem::replace(&mut pipe.lost, true) {
            return;
        }
        pipe.to_opener.parcels.clear();
        pipe.to_acceptor.parcels.clear();
        for side in [Side::Opener, Side::Acceptor] {
            let after = self.random.random_range(noticed.start..=noticed.end);
            self.schedule(after, Event::Lost(id, side));
        }
    }

    pub(super) fn on_lost(&mut self, id: u64, side: Side) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        if pipe.to(side).closed {
            if pipe.to(side.other()).closed {
                self.pipes.remove(&id);
            }
            return;
        }
        note!(self, self.pipes[&id].place(side), "lost", "pipe {id}");
        self.gone(id, side);
    }

    /// The pipe has ended for this side, which is told.
    fn gone(&mut self, id: u64, side: Side) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        pipe.to(side).closed = true;
        let link = pipe.links[side as usize];
        let lived = pipe.was_up && self.now.since(pipe.opened) >= LIFE_MIN;
        let (end, is_over) = (pipe.end(side), pipe.to(side.other()).closed);
        if is_over {
            self.pipes.remove(&id);
        }
        let Some(end) = end.filter(|end| self.is_alive(*end)) else { return };
        match (end.place, link) {
            (Place::Node(machine), Some(link)) => {
                if let Some(process) = self.machines[machine].process.as_mut() {
                    process.links.remove(&link);
                }
                // The replica may open it again at once, so one that was not up for long is waited for.
                let wait =
                    if lived || side == Side::Acceptor { 0 } else { self.random.random_range(10..150) };
                let told = ToNode::Tell(Input::LinkClosed { link });
                self.schedule(Duration::from_millis(wait), Event::Node(end, told));
            }
            (Place::Node(machine), None) => self.conversation_ended(machine, id),
            (Place::Coordinator(index), _) => self.stream_ended(index, id),
            _ => {}
        }
    }

    /// All connections between two places break.
    pub(super) fn break_pipes(&mut self, a: Place, b: Place) {
        let between = |pipe: &Pipe| {
            let places = (pipe.opener.place, pipe.acceptor);
            places == (a, b) || places == (b, a)
        };
        let found: Vec<u64> = self.pipes.iter().filter(|(_, p)| between(p)).map(|(id, _)| *id).collect();
        for id in found {
            self.lose_pipe(id, Duration::ZERO..Duration::from_millis(50));
        }
    }

    /// A process is gone, and so are its ends of all pipes. The others notice within such a time.
    pub(super) fn pipes_of_dead(&mut self, end: End, noticed: &std::ops::Range<Duration>) {
        let is_its = |pipe: &Pipe| {
            pipe.opener == end || (pipe.acceptor == end.place && pipe.accepted == Some(end.process))
        };
        let found: Vec<u64> = self.pipes.iter().filter(|(_, p)| is_its(p)).map(|(id, _)| *id).collect();
        for id in found {
            self.lose_pipe(id, noticed.clone());
        }
    }
}
