//! What a process has of its disk: a backend that dies with it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use craq_node::store::{Backend, Batch, Snapshot, StoreError, Table, backend::Visit};
use craq_storetest::file::File;
use parking_lot::Mutex;
use rand::{Rng, RngExt};

use super::Trouble;

/// How many operations of a file a batch is taken to need before one was seen.
const BATCH_OPERATIONS: u64 = 20;

/// How a model's disk is: operations are counted here, and fail here.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Count>);

#[derive(Debug, Default)]
struct Count {
    operations: u64,
    failing: Option<(u64, Trouble)>,
    has_failed: bool,
}

impl Health {
    /// Counts an operation, and fails it if it is time.
    pub(super) fn begin(&self, takes_space: bool) -> Result<(), StoreError> {
        let mut count = self.0.lock();
        count.operations += 1;
        let Some((left, trouble)) = &mut count.failing else { return Ok(()) };
        if *left > 0 {
            *left -= 1;
            return Ok(());
        }
        let why = match trouble {
            Trouble::Eio => "input/output error",
            Trouble::PowerLoss => "no power",
            Trouble::Full if takes_space => "no space left",
            Trouble::Full => return Ok(()),
        };
        count.has_failed = true;
        Err(StoreError::Io(why.to_owned()))
    }

    pub(super) fn fail(&self, after: Option<(u64, Trouble)>) {
        let mut count = self.0.lock();
        (count.failing, count.has_failed) = (after, false);
    }

    pub(super) fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    pub(super) fn has_failed(&self) -> bool {
        self.0.lock().has_failed
    }
}

/// What counts the operations, and lets them fail.
pub(super) enum Medium {
    /// One operation for each call of the backend.
    Health(Arc<Health>),
    /// The file counts its own calls.
    File(File),
}

impl Medium {
    fn begin(&self, takes_space: bool) -> Result<(), StoreError> {
        match self {
            Self::Health(health) => health.begin(takes_space),
            Self::File(_) => Ok(()),
        }
    }
}

/// A mounted backend.
pub(super) struct Mount {
    backend: Box<dyn Backend>,
    medium: Medium,
    /// Shared with the snapshots.
    is_dead: Arc<AtomicBool>,
    /// Operations that the newest batch took.
    batch_operations: AtomicU64,
}

impl Mount {
    pub(super) fn new(backend: Box<dyn Backend>, medium: Medium) -> Self {
        Self { backend, medium, is_dead: Arc::default(), batch_operations: AtomicU64::new(BATCH_OPERATIONS) }
    }

    /// The process is gone.
    pub(super) fn die(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
    }

    /// Applies the batch as far as the process came.
    pub(super) fn break_off(&self, batch: Batch, random: &mut impl Rng) {
        match &self.medium {
            Medium::Health(health) => {
                if random.random() && health.begin(true).is_ok() {
                    // A map refuses nothing.
                    let _done = self.backend.apply(batch);
                }
            }
            Medium::File(file) => {
                let most = self.batch_operations.load(Ordering::Relaxed) + 2;
                let ended = file.stopping_after(random.random_range(0..=most), || self.backend.apply(batch));
                // Whether it was done before the end is what nobody can know.
                drop(ended);
            }
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        check(&self.is_dead)
    }
}

fn check(is_dead: &AtomicBool) -> Result<(), StoreError> {
    if is_dead.load(Ordering::Relaxed) {
        return Err(StoreError::Io("the process that mounted the disk is gone".to_owned()));
    }
    Ok(())
}

impl Backend for Mount {
    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.check()?;
        self.medium.begin(true)?;
        let Medium::File(file) = &self.medium else { return self.backend.apply(batch) };
        let before = file.calls();
        let applied = self.backend.apply(batch);
        self.batch_operations.store(file.calls() - before, Ordering::Relaxed);
        applied
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.check()?;
        self.medium.begin(false)?;
        self.backend.get(table, key)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.check()?;
        self.medium.begin(false)?;
        let snapshot = self.backend.snapshot()?;
        Ok(Box::new(MountSnapshot { snapshot, is_dead: Arc::clone(&self.is_dead) }))
    }

    fn is_volatile(&self) -> bool {
        false
    }

    fn size_bytes(&self) -> u64 {
        self.backend.size_bytes()
    }
}

/// A snapshot dies with its process too.
struct MountSnapshot {
    snapshot: Box<dyn Snapshot>,
    is_dead: Arc<AtomicBool>,
}

impl Snapshot for MountSnapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        check(&self.is_dead)?;
        self.snapshot.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, visit: Visit<'_>) -> Result<(), StoreError> {
        check(&self.is_dead)?;
        self.snapshot.scan(table, from, to, visit)
    }
}
