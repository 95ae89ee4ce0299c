//! One operation of each kind, through the client library, and whether it did what it should.

use craq_client::{Client, Condition, Error, Options, Range, ReadOutcome};
use futures::{TryStreamExt as _, pin_mut};
use rand::rngs::SmallRng;

use super::{
    figures::{Ended, MISSING, Success, Trouble, WRONG_VALUE},
    keys::{Chooser, Keys},
};

/// What operations are made with.
pub(super) struct Tools {
    pub(super) client: Client,
    pub(super) keys: Keys,
    pub(super) chooser: Chooser,
    /// Values that are written consist of it.
    pub(super) noise: Vec<u8>,
    /// One for each node that is read from in turn; a single one if that is always the same, or the client library chooses.
    pub(super) reads: Vec<Options>,
    pub(super) turn: usize,
    pub(super) batch: u64,
    pub(super) random: SmallRng,
}

impl Tools {
    fn choose(&mut self) -> u64 {
        self.chooser.choose(&mut self.random)
    }

    fn next_read(&mut self) -> usize {
        self.turn = (self.turn + 1) % self.reads.len();
        self.turn
    }

    pub(super) async fn write(&mut self) -> Ended {
        let number = self.choose();
        let value = self.keys.value(number, &self.noise);
        let bytes = value.len() as u64;
        match self.client.write(self.keys.name(number), value).await {
            Ok(_) => Ended::Well(Success { keys: 1, bytes, ..Success::default() }),
            Err(error) => Ended::Badly(error.into()),
        }
    }

    pub(super) async fn read(&mut self) -> Ended {
        let (number, turn) = (self.choose(), self.next_read());
        match self.client.read_with(self.keys.name(number), &self.reads[turn]).await {
            Ok(read) => match verified(&self.keys, number, &read) {
                Ok(bytes) => Ended::Well(Success {
                    keys: 1,
                    bytes,
                    verified: 1,
                    reads: vec![(read.path, read.node, 1)],
                }),
                Err(trouble) => Ended::Badly(trouble),
            },
            Err(error) => Ended::Badly(error.into()),
        }
    }

    /// Reads a batch of keys in one call.
    pub(super) async fn read_many(&mut self) -> Ended {
        let numbers: Vec<u64> = (0..self.batch).map(|_| self.choose()).collect();
        let turn = self.next_read();
        let names = numbers.iter().map(|number| self.keys.name(*number));
        let outcomes = match self.client.read_many(names, &self.reads[turn]).await {
            Ok(outcomes) => outcomes,
            Err(error) => return Ended::Badly(error.into()),
        };
        let mut success = Success::default();
        for (number, read) in numbers.iter().zip(outcomes) {
            match verified(&self.keys, *number, &read) {
                Ok(bytes) => success.bytes += bytes,
                Err(trouble) => return Ended::Badly(trouble),
            }
            (success.keys, success.verified) = (success.keys + 1, success.verified + 1);
            match success.reads.last_mut() {
                Some((path, node, keys)) if *path == read.path && *node == read.node => *keys += 1,
                _ => success.reads.push((read.path, read.node, 1)),
            }
        }
        Ended::Well(success)
    }

    pub(super) async fn scan(&mut self) -> Ended {
        let first = self.choose().min(self.keys.count - self.batch);
        let turn = self.next_read();
        let range = Range::between(self.keys.name(first), self.keys.name(self.keys.count)).limit(self.batch);
        match scan(&self.client, &self.keys, range, first, self.reads[turn].clone()).await {
            Ok(success) if success.keys == self.batch => Ended::Well(success),
            Ok(success) => Ended::Badly(missing(first + success.keys)),
            Err(trouble) => Ended::Badly(trouble),
        }
    }

    /// Reads a counter and writes it plus one, unless somebody else has meanwhile.
    pub(super) async fn increment(&mut self) -> Ended {
        let (number, turn) = (self.choose(), self.next_read());
        let read = match self.client.read_with(self.keys.name(number), &self.reads[turn]).await {
            Ok(read) => read,
            // Certainly nothing was written, whatever a read's error says.
            Err(error) => return Ended::Badly(error.into()),
        };
        let bytes = match verified(&self.keys, number, &read) {
            Ok(bytes) => bytes,
            Err(trouble) => return Ended::Badly(trouble),
        };
        let counter = read.value.as_deref().and_then(Keys::counter).unwrap_or_default();
        let value = self.keys.counted(number, counter.wrapping_add(1), &self.noise);
        let condition = Condition::Version(read.version);
        match self.client.write_if(self.keys.name(number), value, condition).await {
            Ok(_) => {
                Ended::Well(Success { keys: 1, bytes, verified: 1, reads: vec![(read.path, read.node, 1)] })
            }
            Err(Error::ConditionFailed { .. }) => Ended::Conflict,
            Err(error) => Ended::Badly(error.into()),
        }
    }
}

/// Whether a read brought its key's value; its size in bytes.
fn verified(keys: &Keys, number: u64, read: &ReadOutcome) -> Result<u64, Trouble> {
    let value = read.value.as_deref().ok_or_else(|| missing(number))?;
    keys.verify(number, value).map_err(wrong)?;
    Ok(value.len() as u64)
}

async fn scan(
    client: &Client,
    keys: &Keys,
    range: Range,
    first: u64,
    options: Options,
) -> Result<Success, Trouble> {
    let items = client.scan(range, options);
    pin_mut!(items);
    let mut success = Success::default();
    while let Some(item) = items.try_next().await? {
        let number = first + success.keys;
        if item.key != keys.name(number).as_bytes() {
            return Err(wrong(format!("a scan brought the key {:?} in place of {number}", item.key)));
        }
        keys.verify(number, &item.value).map_err(wrong)?;
        success.keys += 1;
        success.verified += 1;
        success.bytes += item.value.len() as u64;
    }
    Ok(success)
}

fn missing(number: u64) -> Trouble {
    Trouble { kind: MISSING, message: format!("key {number} is not there") }
}

fn wrong(message: String) -> Trouble {
    Trouble { kind: WRONG_VALUE, message }
}
