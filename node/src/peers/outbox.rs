//! What waits to be said on a link.
//!
//! Bounded by bytes and by time: a peer that takes nothing loses the link, never this node its memory. Neighbouring
//! appends are joined and acknowledgements replaced by later ones while they wait, so a slow link carries fewer and
//! fatter messages; an append that is too fat for one message is cut.

use std::{collections::VecDeque, sync::Arc};

use craq_proto::{Entry, Epoch, Seq, Time};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    limits::{APPEND_BYTES_MAX, OUTBOX_BYTES_MAX, OUTBOX_STALLED},
    replica::event::Message,
};

/// The other side takes nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stalled;

/// The queue between a replica and one link. One task takes from it.
pub(crate) struct Outbox {
    state: Mutex<State>,
    wake: Notify,
}

struct State {
    queue: VecDeque<Waiting>,
    bytes: usize,
    /// When something was last taken, or put into the empty queue.
    moved: Time,
    closed: bool,
    /// What the appends so far have said: a part of a cut one says no more than that.
    told: (Seq, Seq),
}

struct Waiting {
    epoch: Epoch,
    message: Message,
    bytes: usize,
}

impl Outbox {
    pub(crate) fn new(now: Time) -> Self {
        let state = State {
            queue: VecDeque::new(),
            bytes: 0,
            moved: now,
            closed: false,
            told: (Seq::ZERO, Seq::ZERO),
        };
        Self { state: Mutex::new(state), wake: Notify::new() }
    }

    /// Queues a message. Whoever waits for it is woken by [`Self::flush`].
    pub(crate) fn push(&self, now: Time, epoch: Epoch, message: Message) -> Result<(), Stalled> {
        let mut state = self.state.lock();
        if state.closed {
            return Ok(());
        }
        if state.queue.is_empty() {
            state.moved = now;
        }
        let bytes = weight(&message);
        let is_full = state.bytes + bytes > OUTBOX_BYTES_MAX && !state.queue.is_empty();
        if is_full || now.since(state.moved) > OUTBOX_STALLED {
            return Err(Stalled);
        }
        state.bytes += bytes;
        let rest = match state.queue.back_mut().filter(|last| last.epoch == epoch) {
            Some(last) => last.join(message, bytes),
            None => Some(message),
        };
        if let Some(message) = rest {
            state.queue.push_back(Waiting { epoch, message, bytes });
        }
        Ok(())
    }

    /// Wakes the link.
    pub(crate) fn flush(&self) {
        self.wake.notify_one();
    }

    /// What is queued is the last.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
    }

    /// The next message, when there is one; none after the last.
    pub(crate) async fn next(&self) -> Option<(Epoch, Message)> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some(next) = state.take() {
                    state.moved = crate::clock::now();
                    return Some(next);
                }
                if state.closed {
                    return None;
                }
            }
            self.wake.notified().await;
        }
    }
}

impl State {
    fn take(&mut self) -> Option<(Epoch, Message)> {
        let front = self.queue.front_mut()?;
        let (epoch, told) = (front.epoch, self.told);
        let part = front.cut(told);
        let message = match part {
            Some((message, bytes)) => {
                self.bytes -= bytes;
                message
            }
            None => {
                let front = self.queue.pop_front()?;
                self.bytes -= front.bytes;
                front.message
            }
        };
        if let Message::Append { durable, commit, .. } = &message {
            self.told = (told.0.max(*durable), told.1.max(*commit));
        }
        Some((epoch, message))
    }
}

impl Waiting {
    /// Takes the message in if that says the same; else gives it back.
    fn join(&mut self, next: Message, next_bytes: usize) -> Option<Message> {
        match (&mut self.message, next) {
            (
                Message::Append { entries, durable, commit },
                Message::Append { entries: more, durable: new_durable, commit: new_commit },
            ) if self.bytes + next_bytes <= APPEND_BYTES_MAX && follows(entries, &more) => {
                entries.extend(more);
                *durable = (*durable).max(new_durable);
                *commit = (*commit).max(new_commit);
            }
            // Acknowledgements are cumulative.
            (Message::Ack { commit }, Message::Ack { commit: new_commit }) => {
                *commit = (*commit).max(new_commit);
            }
            (_, next) => return Some(next),
        }
        self.bytes += next_bytes;
        None
    }

    /// The first part of an append that is too fat for one message, and its weight; the rest stays. A part says about
    /// durability and commit only what was said before, since these may lie beyond its entries.
    fn cut(&mut self, (durable, commit): (Seq, Seq)) -> Option<(Message, usize)> {
        let Message::Append { entries, .. } = &mut self.message else { return None };
        if self.bytes <= APPEND_BYTES_MAX || entries.len() < 2 {
            return None;
        }
        let mut bytes = 0;
        let mut count = 0;
        for entry in entries.iter().take(entries.len() - 1) {
            if count > 0 && bytes + entry.weight() > APPEND_BYTES_MAX {
                break;
            }
            bytes += entry.weight();
            count += 1;
        }
        let part = entries.drain(..count).collect();
        self.bytes -= bytes;
        Some((Message::Append { entries: part, durable, commit }, bytes))
    }
}

fn follows(entries: &[Arc<Entry>], more: &[Arc<Entry>]) -> bool {
    match (entries.last(), more.first()) {
        (Some(last), Some(first)) => last.seq.next() == first.seq,
        _ => true,
    }
}

fn weight(message: &Message) -> usize {
    const ENVELOPE: usize = 64;
    ENVELOPE
        + match message {
            Message::Append { entries, .. } => entries.iter().map(|entry| entry.weight()).sum(),
            Message::Rows { rows, .. } => rows.iter().map(craq_proto::Row::weight).sum(),
            Message::CaughtUp { outcomes, .. } => {
                outcomes.iter().map(|outcome| ENVELOPE + 8 * outcome.versions.len()).sum()
            }
            Message::Hello { suffix, .. } => suffix.len() * ENVELOPE,
            Message::Level { .. } | Message::RowsAck { .. } | Message::Ack { .. } => 0,
        }
}

#[cfg(test)]
mod tests {
    use craq_proto::{Mutation, Op, Value, Version, entry::checksum};
    use futures::FutureExt;

    use super::*;

    const EPOCH: Epoch = Epoch(1);

    fn entry(seq: u64, bytes: usize) -> Arc<Entry> {
        let value = vec![7; bytes];
        let mutation = Mutation {
            key: craq_proto::Key::new("k").unwrap(),
            version: Version(seq),
            checksum: checksum(b"k", &value),
            op: Op::Put(Value::new(value, bytes).unwrap()),
        };
        Arc::new(Entry {
            seq: Seq(seq),
            origin_epoch: EPOCH,
            request: None,
            mutations: vec![mutation],
            forget_through: Seq::ZERO,
        })
    }

    fn append(entries: Vec<Arc<Entry>>, durable: u64, commit: u64) -> Message {
        Message::Append { entries, durable: Seq(durable), commit: Seq(commit) }
    }

    fn push(outbox: &Outbox, message: Message) {
        outbox.push(Time::ZERO, EPOCH, message).unwrap();
    }

    fn next(outbox: &Outbox) -> Option<Message> {
        outbox.next().now_or_never().flatten().map(|(_, message)| message)
    }

    fn seqs(message: &Message) -> Vec<u64> {
        let Message::Append { entries, .. } = message else { panic!("no append: {message:?}") };
        entries.iter().map(|entry| entry.seq.0).collect()
    }

    #[test]
    fn neighbouring_appends_leave_as_one() {
        let outbox = Outbox::new(Time::ZERO);
        push(&outbox, append(vec![entry(1, 10)], 0, 0));
        push(&outbox, append(vec![], 1, 0));
        push(&outbox, append(vec![entry(2, 10)], 1, 1));
        assert_eq!(next(&outbox), Some(append(vec![entry(1, 10), entry(2, 10)], 1, 1)));
        assert_eq!(next(&outbox), None);
    }

    #[test]
    fn what_is_not_contiguous_or_of_another_epoch_is_not_joined() {
        let outbox = Outbox::new(Time::ZERO);
        push(&outbox, append(vec![entry(1, 10)], 0, 0));
        push(&outbox, append(vec![entry(3, 10)], 0, 0));
        outbox.push(Time::ZERO, Epoch(2), append(vec![entry(4, 10)], 0, 0)).unwrap();
        let left: Vec<_> = std::iter::from_fn(|| next(&outbox)).map(|message| seqs(&message)).collect();
        assert_eq!(left, [[1], [3], [4]]);
    }

    #[test]
    fn other_messages_keep_their_order_between_appends() {
        let outbox = Outbox::new(Time::ZERO);
        let level = Message::Level { commit: Seq(1), truncate_to: Seq(1) };
        push(&outbox, append(vec![entry(1, 10)], 0, 0));
        push(&outbox, level.clone());
        push(&outbox, append(vec![entry(2, 10)], 0, 0));
        assert_eq!(seqs(&next(&outbox).unwrap()), [1]);
        assert_eq!(next(&outbox), Some(level));
        assert_eq!(seqs(&next(&outbox).unwrap()), [2]);
    }

    #[test]
    fn the_last_acknowledgement_stands_for_those_before() {
        let outbox = Outbox::new(Time::ZERO);
        (1..=9).for_each(|seq| push(&outbox, Message::Ack { commit: Seq(seq) }));
        assert_eq!(next(&outbox), Some(Message::Ack { commit: Seq(9) }));
        assert_eq!(next(&outbox), None);
    }

    #[test]
    fn an_append_that_is_too_fat_is_cut_and_claims_nothing_early() {
        let outbox = Outbox::new(Time::ZERO);
        let entries: Vec<_> = (1..=50).map(|seq| entry(seq, 100_000)).collect();
        push(&outbox, append(entries, 50, 40));
        let mut all = Vec::new();
        let mut parts = Vec::new();
        while let Some(message) = next(&outbox) {
            assert!(weight(&message) <= APPEND_BYTES_MAX + 64);
            all.extend(seqs(&message));
            let Message::Append { durable, commit, .. } = message else { unreachable!() };
            parts.push((durable.0, commit.0));
        }
        assert_eq!(all, (1..=50).collect::<Vec<_>>());
        assert_eq!(parts.pop(), Some((50, 40)), "the last part says it all");
        assert!(parts.len() >= 4 && parts.iter().all(|part| *part == (0, 0)), "{parts:?}");
        assert_eq!(outbox.state.lock().bytes, 0);
    }

    #[test]
    fn one_entry_goes_whole_however_fat_it_is() {
        let outbox = Outbox::new(Time::ZERO);
        push(&outbox, append(vec![entry(1, 3 << 20)], 1, 0));
        assert_eq!(seqs(&next(&outbox).unwrap()), [1]);
        assert_eq!(next(&outbox), None);
    }

    #[test]
    fn a_peer_that_takes_nothing_is_found_out_by_bytes_and_by_time() {
        let outbox = Outbox::new(Time::ZERO);
        let fat = || append((1..=40).map(|seq| entry(seq, 1 << 20)).collect(), 0, 0);
        (0..3).for_each(|_| push(&outbox, fat()));
        assert_eq!(outbox.push(Time::ZERO, EPOCH, fat()), Err(Stalled));
        let outbox = Outbox::new(Time::ZERO);
        push(&outbox, append(vec![entry(1, 10)], 0, 0));
        let late = Time::ZERO + OUTBOX_STALLED + std::time::Duration::from_millis(1);
        assert_eq!(outbox.push(late, EPOCH, append(vec![], 1, 0)), Err(Stalled));
        let idle = Outbox::new(Time::ZERO);
        assert_eq!(idle.push(late, EPOCH, append(vec![], 1, 0)), Ok(()), "an empty queue is not stalled");
    }

    #[test]
    fn what_was_queued_before_the_end_is_still_said() {
        let outbox = Outbox::new(Time::ZERO);
        push(&outbox, Message::Ack { commit: Seq(1) });
        outbox.close();
        push(&outbox, Message::Ack { commit: Seq(2) });
        assert_eq!(next(&outbox), Some(Message::Ack { commit: Seq(1) }));
        assert_eq!(outbox.next().now_or_never(), Some(None), "the end is told");
    }
}
