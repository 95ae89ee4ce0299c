//! What clients do: they write, read anywhere, lose answers, and send their requests again.

use craq_proto::{ClientId, ErrorKind, Key, NodeId, RequestId, Seq, Value, Version, entry::checksum};
use rand::{RngExt, seq::IndexedRandom};
use uuid::Uuid;

use super::{KEYS, NODES, Operation, PendingRead, Run};
use crate::replica::{
    Look, Permit,
    event::{Change, Condition, Input, Position, Reply, Write},
    tests::world::node_id,
};

impl Run {
    pub(super) fn key(index: usize) -> Key {
        Key::new(format!("k{index}")).unwrap()
    }

    pub(super) fn write(&mut self) {
        let key = self.rng.random_range(0..KEYS);
        let (called, is_write) = (self.step, true);
        let value = self.rng.random_bool(0.8).then(|| format!("v{}", self.operations.len()));
        self.numbers += 1;
        let request = RequestId {
            client: ClientId(Uuid::from_u128(u128::from(self.rng.random_range(0..3u8)))),
            number: self.numbers,
            floor: self.numbers.saturating_sub(self.rng.random_range(0..self.repeatable)),
            born: self.world.nodes.values().map(|sim| sim.disk.commit).max().unwrap(),
            retry: false,
        };
        let version = Version::ZERO;
        self.operations.push(Operation {
            key,
            called,
            returned: None,
            is_write,
            value,
            version,
            seq: Seq::ZERO,
            applied: false,
        });
        self.send_write(self.operations.len() - 1, request);
    }

    fn send_write(&mut self, operation: usize, request: RequestId) {
        let Operation { key, value, .. } = self.operations[operation].clone();
        let key = Self::key(key);
        let bytes = value.clone().unwrap_or_default();
        let checksum = checksum(key.as_ref(), bytes.as_bytes());
        let value = value.map(|value| Value::new(value, 100).unwrap());
        let condition = Condition::Always;
        let write = Write { request, changes: vec![Change { key, value, condition, checksum }] };
        let head = self.view.members[0].node;
        let node =
            if self.rng.random_bool(0.9) { head } else { node_id(*NODES.choose(&mut self.rng).unwrap()) };
        let ticket = self.world.ticket();
        self.writes.insert(ticket, (operation, request));
        self.world.input(node, Input::Write { ticket, write });
    }

    /// A client that has not heard sends its request again; it cannot know what became of it.
    pub(super) fn retry(&mut self) {
        if self.rng.random_bool(0.5)
            && let Some(ticket) = self.writes.keys().copied().collect::<Vec<_>>().choose(&mut self.rng)
        {
            let (operation, request) = self.writes[ticket];
            self.retries.push((operation, RequestId { retry: true, ..request }));
        }
        if !self.retries.is_empty() {
            let index = self.rng.random_range(0..self.retries.len());
            let (operation, request) = self.retries.swap_remove(index);
            self.send_write(operation, request);
        }
    }

    pub(super) fn read(&mut self) {
        let key = self.rng.random_range(0..KEYS);
        for node in NODES.map(node_id) {
            self.read_at(node, key);
        }
    }

    fn read_at(&mut self, node: NodeId, key: usize) {
        let called = self.step;
        let Some(replica) = self.world.replica(node) else { return };
        let look = replica.reader().strong(self.world.now, Self::key(key).as_ref());
        let operation = self.operations.len();
        match look {
            Look::Refused(_) => return,
            Look::Serve { position, permit, .. } => {
                self.plan(node, operation, position, permit);
            }
            Look::Dirty => {
                let ticket = self.world.ticket();
                self.reads.insert(ticket, (operation, node));
                self.world.input(node, Input::Read { ticket, key: Self::key(key) });
            }
        }
        let version = Version::ZERO;
        let read = Operation {
            key,
            called,
            returned: None,
            is_write: false,
            value: None,
            version,
            seq: Seq::ZERO,
            applied: false,
        };
        self.operations.push(read);
    }

    fn plan(&mut self, node: NodeId, operation: usize, position: Option<Position>, permit: Permit) {
        let is_paused = self.rng.random_bool(0.3);
        self.planned.push(PendingRead { node, operation, position, permit, is_paused });
    }

    /// The read looks at the store, then at its permit, then answers; time may have passed since it was planned.
    pub(super) fn finish_read(&mut self) {
        if self.planned.is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.planned.len());
        if self.planned[index].is_paused && self.rng.random_bool(0.99) {
            return;
        }
        let PendingRead { node, operation, position, permit, .. } = self.planned.swap_remove(index);
        let Some(sim) = self.world.nodes.get(&node) else { return };
        let Some(replica) = &sim.replica else { return };
        let row = position.and_then(|position| sim.disk.rows.get(&(position.seq, position.index)));
        let is_swept = position.is_some() && row.is_none();
        if is_swept || !replica.reader().holds(self.world.now, permit) {
            return;
        }
        let mutation = row.and_then(|row| row.mutation.as_ref());
        let read = &mut self.operations[operation];
        if let Some(mutation) = mutation {
            assert_eq!(mutation.key, Self::key(read.key), "read the row of another key");
            read.value =
                (!mutation.is_delete()).then(|| String::from_utf8(mutation.value_bytes().to_vec()).unwrap());
        }
        read.version = position.map_or(Version::ZERO, |position| position.version);
        read.seq = position.map_or(Seq::ZERO, |position| position.seq);
        read.returned = Some(self.step);
        read.applied = true;
        self.served += 1;
    }

    pub(super) fn take_answers(&mut self) {
        while let Some(answered) = self.world.answers.pop_front() {
            let may_read =
                |run: &Self| run.world.replica(answered.by).map(|r| r.reader().permit(run.world.now));
            if let Some((operation, node)) = self.reads.remove(&answered.ticket) {
                if let (Reply::Serve { position, .. }, Some(Ok(permit))) = (answered.reply, may_read(self)) {
                    self.plan(node, operation, position, permit);
                }
                continue;
            }
            let Some((operation, request)) = self.writes.remove(&answered.ticket) else { continue };
            match answered.reply {
                Reply::Applied { seq, versions } => {
                    let write = &mut self.operations[operation];
                    assert!(!write.applied || write.version == versions[0], "{write:?} took effect twice");
                    if self.rng.random_bool(0.1) {
                        // The answer is lost, and the client doesn't know that it was given.
                        self.retries.push((operation, RequestId { retry: true, ..request }));
                        continue;
                    }
                    write.applied = true;
                    write.version = versions[0];
                    write.seq = seq;
                    write.returned = write.returned.or(Some(self.step));
                }
                Reply::Refused(error) if error.kind.is_certain() && self.is_only_attempt(&request) => {
                    // Half of the clients leave it at that: then nothing may come of it.
                    if self.rng.random_bool(0.5) {
                        self.refused.insert((request.client, request.number));
                    } else {
                        self.retries.push((operation, RequestId { retry: true, ..request }));
                    }
                }
                // It may have been executed by an earlier attempt that is not answered yet; only a first one is certain.
                Reply::Refused(error) if error.kind != ErrorKind::Invalid => {
                    self.retries.push((operation, RequestId { retry: true, ..request }));
                }
                Reply::Refused(_) | Reply::Serve { .. } | Reply::ServePage => {}
            }
        }
    }

    /// No other attempt of the request was made, or waits to be made.
    fn is_only_attempt(&self, request: &RequestId) -> bool {
        let is_same = |other: &RequestId| (other.client, other.number) == (request.client, request.number);
        let under_way = self.writes.values().chain(&self.retries).any(|(_, other)| is_same(other));
        !request.retry && !under_way
    }
}
