//! What is on its way between nodes: links, which keep the order of what is said on them, and calls, which keep none.

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
    sync::Arc,
};

use craq_node::replica::event::{LinkId, LinkKind, Message, Position};
use craq_proto::{Epoch, Incarnation, Seq, Time};

/// A node's place in the model: 0, 1, 2 for a, b, c.
pub(super) type Place = usize;

/// What travels on a link.
#[derive(Debug, Clone)]
pub(super) enum Parcel {
    Offer,
    Message(Epoch, Arc<Message>),
    Closed,
}

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct End {
    pub(super) place: Place,
    pub(super) link: LinkId,
    /// This end has neither closed the link nor heard of its end.
    pub(super) is_open: bool,
}

/// A link: two queues.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    pub(super) opener: End,
    pub(super) acceptor: End,
    pub(super) kind: LinkKind,
    pub(super) epoch: Epoch,
    pub(super) incarnation: Incarnation,
    pub(super) down: VecDeque<Parcel>,
    pub(super) up: VecDeque<Parcel>,
}

impl Wire {
    /// The acceptor's name for the link follows from the opener's.
    pub(super) fn new(
        (opener, link): (Place, LinkId),
        incarnation: Incarnation,
        acceptor: Place,
        kind: LinkKind,
        epoch: Epoch,
    ) -> Self {
        let other = LinkId((link.0 * 64 + incarnation.0 * 8 + opener as u64) * 2 + 1);
        Self {
            opener: End { place: opener, link, is_open: true },
            acceptor: End { place: acceptor, link: other, is_open: true },
            kind,
            epoch,
            incarnation,
            down: VecDeque::from([Parcel::Offer]),
            up: VecDeque::new(),
        }
    }

    /// The receiving end of one direction.
    pub(super) fn receiver(&self, is_down: bool) -> End {
        if is_down { self.acceptor } else { self.opener }
    }

    pub(super) fn queue(&self, is_down: bool) -> &VecDeque<Parcel> {
        if is_down { &self.down } else { &self.up }
    }

    pub(super) fn queue_mut(&mut self, is_down: bool) -> &mut VecDeque<Parcel> {
        if is_down { &mut self.down } else { &mut self.up }
    }

    /// Whether the node's open end is the opener's; none: it has no open end here by that name.
    pub(super) fn is_opener(&self, place: Place, link: LinkId) -> Option<bool> {
        let is = |end: &End| end.is_open && (end.place, end.link) == (place, link);
        if is(&self.opener) { Some(true) } else { is(&self.acceptor).then_some(false) }
    }

    /// One end says something. After the end of the link nothing comes.
    pub(super) fn send(&mut self, is_opener: bool, parcel: Parcel) {
        let queue = self.queue_mut(is_opener);
        if !matches!(queue.back(), Some(Parcel::Closed)) {
            queue.push_back(parcel);
        }
    }

    /// One end is gone; the other hears of it after what is on its way.
    pub(super) fn close(&mut self, is_opener: bool) {
        let end = if is_opener { &mut self.opener } else { &mut self.acceptor };
        end.is_open = false;
        self.queue_mut(!is_opener).clear();
        if self.receiver(is_opener).is_open {
            self.send(is_opener, Parcel::Closed);
        }
    }

    /// What is on its way is lost; both ends hear of it.
    pub(super) fn break_off(&mut self) {
        for is_down in [true, false] {
            let is_open = self.receiver(is_down).is_open;
            let queue = self.queue_mut(is_down);
            queue.clear();
            queue.extend(is_open.then_some(Parcel::Closed));
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        !self.opener.is_open && !self.acceptor.is_open
    }
}

impl Hash for Wire {
    fn hash<H: Hasher>(&self, to: &mut H) {
        (self.opener, self.acceptor, self.epoch, self.incarnation).hash(to);
        for queue in [&self.down, &self.up] {
            queue.len().hash(to);
            for parcel in queue {
                std::mem::discriminant(parcel).hash(to);
                if let Parcel::Message(epoch, message) = parcel {
                    epoch.hash(to);
                    message.hash_message(to);
                }
            }
        }
    }
}

/// A one-way message that stands for a call or its answer. The model has one key, so that questions do not name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Ping { epoch: Epoch, sent: Time },
    Promise { epoch: Epoch, sent: Time },
    Release { epoch: Epoch },
    Question { question: u64, epoch: Epoch },
    Answer { question: u64, answer: Option<(Option<Position>, Seq)> },
}

/// A call on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) call: Call,
}

impl Hash for Sent {
    fn hash<H: Hasher>(&self, to: &mut H) {
        (self.from, self.to).hash(to);
        std::mem::discriminant(&self.call).hash(to);
        match self.call {
            Call::Ping { epoch, sent } | Call::Promise { epoch, sent } => (epoch, sent).hash(to),
            Call::Release { epoch } => epoch.hash(to),
            Call::Question { question, epoch } => (question, epoch).hash(to),
            Call::Answer { question, answer } => {
                let position = |position: Position| (position.seq, position.version);
                (question, answer.map(|(told, commit)| (told.map(position), commit))).hash(to);
            }
        }
    }
}
