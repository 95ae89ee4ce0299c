//! Entries of a chain's log, and the rows that they are stored as (`protocol.md` 2 and 3).

use bytes::Bytes;

use crate::{ClientId, Epoch, Key, Seq, Value, Version};

/// Names one write, so that repeating it does not do it twice (`protocol.md` 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// Who asks.
    pub client: ClientId,
    /// Counted by the client, from 1.
    pub number: u64,
    /// The client will never again send a number below this one.
    pub floor: u64,
    /// The highest sequence that the client had seen when it first sent the request; its entry can only stand above.
    pub born: Seq,
    /// It may have been sent before. Not stored.
    pub retry: bool,
}

/// What a mutation does to its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The key gets this value.
    Put(Value),
    /// The key is removed; a tombstone stays.
    Delete,
}

/// One key's change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// Which key.
    pub key: Key,
    /// The version that the change makes.
    pub version: Version,
    /// What it does.
    pub op: Op,
    /// [`checksum`] of key and value, made where the write entered and kept to the reader's end.
    pub checksum: u32,
}

impl Mutation {
    /// Whether key and value are still what they were when the checksum was made.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.checksum == checksum(self.key.as_bytes(), self.value_bytes())
    }

    /// The value's bytes; none for a deletion.
    #[must_use]
    pub fn value_bytes(&self) -> &[u8] {
        match &self.op {
            Op::Put(value) => value.as_bytes(),
            Op::Delete => &[],
        }
    }

    /// Whether a tombstone is what it leaves.
    #[must_use]
    pub fn is_delete(&self) -> bool {
        matches!(self.op, Op::Delete)
    }
}

/// CRC-32 (IEEE) over the key's length (4 bytes, little endian), the key and the value.
#[must_use]
pub fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

/// One atomic write of one or more keys; `(seq, origin_epoch)` identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Position in the chain's log.
    pub seq: Seq,
    /// Epoch in which the head made it.
    pub origin_epoch: Epoch,
    /// The request that it answers; none for what a head writes for itself.
    pub request: Option<RequestId>,
    /// The changes. None in the first entry of an epoch.
    pub mutations: Vec<Mutation>,
    /// The outcomes of requests answered at or below this sequence are forgotten with this entry; zero: none.
    pub forget_through: Seq,
}

impl Entry {
    /// How much memory and wire it takes, in bytes, roughly.
    #[must_use]
    pub fn weight(&self) -> usize {
        const ENVELOPE: usize = 64;
        let mutation = |m: &Mutation| ENVELOPE + m.key.as_bytes().len() + m.value_bytes().len();
        ENVELOPE + self.mutations.iter().map(mutation).sum::<usize>()
    }

    /// How many rows it is stored as: one for each mutation, and one if there is none.
    #[must_use]
    pub fn row_count(&self) -> u32 {
        u32::try_from(self.mutations.len().max(1)).expect("an entry has few mutations")
    }

    /// The rows that it is stored as.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        let count = self.row_count();
        (0..count).map(move |index| Row {
            seq: self.seq,
            index,
            count,
            origin_epoch: self.origin_epoch,
            request: self.request,
            mutation: self.mutations.get(index as usize).cloned(),
            forget_through: self.forget_through,
        })
    }
}

/// One stored row of a log: one mutation of an entry, or the only row of an entry without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The entry's sequence.
    pub seq: Seq,
    /// Position of the mutation in its entry, from 0.
    pub index: u32,
    /// How many rows the entry had when it was made.
    pub count: u32,
    /// The entry's epoch.
    pub origin_epoch: Epoch,
    /// The request that the entry answers.
    pub request: Option<RequestId>,
    /// The change; none in the row of an entry without mutations.
    pub mutation: Option<Mutation>,
    /// As in [`Entry`].
    pub forget_through: Seq,
}

impl Row {
    /// How much memory and wire it takes, in bytes, roughly.
    #[must_use]
    pub fn weight(&self) -> usize {
        const ENVELOPE: usize = 96;
        ENVELOPE + self.mutation.as_ref().map_or(0, |m| m.key.as_bytes().len() + m.value_bytes().len())
    }
}

/// What became of a request: kept so that a repeat is answered alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Who asked.
    pub client: ClientId,
    /// The request's number.
    pub number: u64,
    /// The floor that the client gave with it.
    pub floor: u64,
    /// The entry that it made.
    pub seq: Seq,
    /// The version that each mutation made, in the request's order.
    pub versions: Vec<Version>,
}

/// A value as a reader gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The value.
    pub value: Bytes,
    /// The key's version.
    pub version: Version,
    /// Sequence of the entry that made it.
    pub seq: Seq,
    /// [`checksum`] of key and value.
    pub checksum: u32,
}
