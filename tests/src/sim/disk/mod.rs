//! A disk that outlives the processes that write to it.
//!
//! What stands on it is kept either by a model, which does what the contract of a backend says and nothing else, or by the
//! shipped redb on a [simulated file](craq_storetest::file). Everything follows from the calls and the random numbers.
//! Never here: what is written, and when anything is to fail.

mod mount;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Weak},
};

use craq_node::store::{Backend, Batch, Memory, Redb, StoreError};
use craq_storetest::file::{Failure, File};
use parking_lot::Mutex;
use rand::Rng;

use self::mount::{Health, Medium, Mount};

/// How much of a redb file is kept in memory, in bytes: little, so that it is read too.
const CACHE_BYTES: usize = 256 * 1024;

/// What keeps the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskKind {
    /// A map, to which batches are applied at once and whole: what a perfect backend does. An operation is a call of the
    /// backend.
    Model,
    /// The shipped redb, on a simulated file. An operation is a call of the file.
    Redb,
}

/// What a disk can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Every operation fails. What a failed sync had to write is lost.
    Eio,
    /// What takes space fails; reads go on.
    Full,
    /// Every operation fails, since the power is gone. A [crash](Disk::crash) with loss of power is to follow.
    PowerLoss,
}

/// A disk. Clones are the same one.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

struct State {
    content: Content,
    /// What a process has mounted.
    mount: Weak<Mount>,
}

enum Content {
    Model(Memory, Arc<Health>),
    Redb {
        file: File,
        /// The file has once been a whole store. Before that a crash leaves nothing: the shipped store gives the file its
        /// name only then.
        is_created: bool,
    },
}

impl Disk {
    /// An empty disk.
    #[must_use]
    pub fn new(kind: DiskKind) -> Self {
        let content = match kind {
            DiskKind::Model => Content::Model(Memory::new(), Arc::default()),
            DiskKind::Redb => Content::Redb { file: File::new(), is_created: false },
        };
        Self(Arc::new(Mutex::new(State { content, mount: Weak::new() })))
    }

    /// Opens it, as a process does at its start, for `craq_node::store::Store::open_with`. What was mounted before is dead.
    ///
    /// Fails if the disk is in trouble, or if redb refuses what it finds.
    pub fn mount(&self) -> Result<Arc<dyn Backend>, StoreError> {
        let mut state = self.0.lock();
        state.end_process();
        let mount = match &mut state.content {
            Content::Model(memory, health) => {
                health.begin(false)?;
                Mount::new(Box::new(memory.clone()), Medium::Health(Arc::clone(health)))
            }
            Content::Redb { file, is_created } => {
                let redb = Redb::open_on(file.clone(), CACHE_BYTES)?;
                *is_created = true;
                Mount::new(Box::new(redb), Medium::File(file.clone()))
            }
        };
        let mount = Arc::new(mount);
        state.mount = Arc::downgrade(&mount);
        Ok(mount)
    }

    /// Once so many further operations have been done, everything fails in this way, until the disk is cured or wiped.
    pub fn trouble_after(&self, operations: u64, trouble: Trouble) {
        match &self.0.lock().content {
            Content::Model(_, health) => health.fail(Some((operations, trouble))),
            Content::Redb { file, .. } => file.fail(match trouble {
                Trouble::Eio => Failure::Everything(operations),
                Trouble::Full => Failure::Full(operations),
                Trouble::PowerLoss => Failure::Power(operations),
            }),
        }
    }

    /// The disk works again. Of what a failed sync has lost, nothing is seen any more.
    pub fn cure(&self) {
        self.0.lock().content.cure();
    }

    /// The process is gone: by kill -9, or, with `power`, with its machine's power. Call it before the mounted backend is
    /// dropped, which would close it in good order.
    ///
    /// What was written and not synced survives a kill; of a loss of power it survives in part: each write is kept,
    /// dropped, or torn at 512-byte sectors. `in_flight` is the batch that was just being applied: by the model it is
    /// done whole or not at all; by redb, its operations are begun and end at a random one. Trouble goes on.
    pub fn crash(&self, random: &mut impl Rng, in_flight: Option<Batch>, power: bool) {
        let mut state = self.0.lock();
        if let (Some(batch), Some(mount)) = (in_flight, state.mount.upgrade()) {
            mount.break_off(batch, random);
        }
        if let (Content::Redb { file, .. }, true) = (&mut state.content, power) {
            *file = file.lose_power(random);
        }
        state.end_process();
    }

    /// An empty disk in its place, without trouble. A process that has it mounted is cut off.
    pub fn wipe(&self) {
        let mut state = self.0.lock();
        state.end_process();
        match &mut state.content {
            Content::Model(memory, _) => *memory = Memory::new(),
            Content::Redb { file, is_created } => {
                file.erase();
                *is_created = false;
            }
        }
        state.content.cure();
    }

    /// How many operations there were so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.lock().content.operations()
    }

    /// Whether an operation has failed by the trouble that was ordered last.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        match &self.0.lock().content {
            Content::Model(_, health) => health.has_failed(),
            Content::Redb { file, .. } => file.has_failed(),
        }
    }

    /// From now on it says that a batch is on stable storage when it is not: what a simulation must notice. The model, which
    /// has nothing but stable storage, is not changed by it.
    pub fn ignore_syncs(&self) {
        if let Content::Redb { file, .. } = &self.0.lock().content {
            file.ignore_syncs();
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = &self.0.lock().content;
        let kind = match content {
            Content::Model(..) => DiskKind::Model,
            Content::Redb { .. } => DiskKind::Redb,
        };
        write!(f, "Disk({kind:?}, {} operations)", content.operations())
    }
}

impl State {
    /// Whatever is mounted is dead from now on.
    fn end_process(&mut self) {
        if let Some(mount) = std::mem::take(&mut self.mount).upgrade() {
            mount.die();
        }
        if let Content::Redb { file, is_created } = &mut self.content {
            *file = file.kill();
            if !*is_created {
                file.erase();
            }
        }
    }
}

impl Content {
    fn cure(&self) {
        match self {
            Self::Model(_, health) => health.fail(None),
            Self::Redb { file, .. } => file.cure(),
        }
    }

    fn operations(&self) -> u64 {
        match self {
            Self::Model(_, health) => health.operations(),
            Self::Redb { file, .. } => file.calls(),
        }
    }
}
