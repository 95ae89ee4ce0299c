//! The one thread that writes to a store.
//!
//! Whatever has been submitted while a batch was on its way to the disk goes into the next one, of all chains together,
//! up to a limit. So a batch needs no timer: the sync that is under way is the timer.
//! Never here: a second try. After an error, of which [`Writer::start`]'s caller is told once, nothing is written and
//! nothing is reported done any more.

use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
};

use parking_lot::{Condvar, Mutex};

use super::{Backend, ChainStore, StoreError};
use crate::replica::event::StoreWrite;

/// A batch takes no further write once it weighs so much, in bytes.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A batch takes at most so many writes.
pub const BATCH_WRITES_MAX: usize = 4096;

/// Called on the writer's thread once a write, and every write before it, is on stable storage. Must not block.
pub type Done = Box<dyn FnOnce() + Send>;

/// A handle to the writer. The thread ends, after it has written what waits, when the last handle is dropped.
#[derive(Clone)]
pub struct Writer {
    running: Arc<Running>,
}

impl Writer {
    /// Starts the thread. The backend is [`Store::backend`](super::Store::backend).
    ///
    /// `on_error` is called at most once, on the writer's thread: when a batch has failed, or anything has panicked
    /// there. What was submitted and not yet done is then dropped without a word, and so is what comes later.
    #[must_use]
    pub fn start(backend: Arc<dyn Backend>, on_error: impl Fn(StoreError) + Send + 'static) -> Self {
        let queue = Arc::new(Queue::default());
        let thread = {
            let queue = Arc::clone(&queue);
            let work = move || queue.work(&*backend, on_error);
            thread::Builder::new().name("store-writer".to_owned()).spawn(work)
        };
        let thread = thread.expect("a process that has just started can start a thread");
        Self { running: Arc::new(Running { queue, thread: Mutex::new(Some(thread)) }) }
    }

    /// Hands in a write; never blocks. Writes are carried out, and `done` is called, in the order of submission.
    ///
    /// The queue has no limit of its own: a replica bounds what it has submitted and not yet seen done.
    pub fn submit(&self, chain: &ChainStore, write: StoreWrite, done: Done) {
        let bytes = weight(&write);
        self.running.queue.push(Waiting { chain: chain.clone(), write, bytes, done });
    }

    /// Writes what waits, then ends the thread. Later submissions are dropped, and their `done` is not called.
    pub fn close(&self) {
        self.running.end();
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.running.queue.state.lock().waiting.len();
        f.debug_struct("Writer").field("waiting", &waiting).finish_non_exhaustive()
    }
}

/// The thread and what leads to it; ends it when dropped.
struct Running {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Running {
    fn end(&self) {
        self.queue.close();
        let Some(thread) = self.thread.lock().take() else { return };
        // A `done` may hold the last handle: the thread cannot wait for itself.
        if thread.thread().id() != thread::current().id() {
            thread.join().expect("on_error does not panic");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

struct Waiting {
    chain: ChainStore,
    write: StoreWrite,
    bytes: usize,
    done: Done,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    closed: bool,
}

impl Queue {
    fn push(&self, waiting: Waiting) {
        let mut state = self.state.lock();
        if !state.closed {
            state.waiting.push_back(waiting);
            self.changed.notify_one();
        }
    }

    fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_one();
    }

    /// The thread's life.
    fn work(&self, backend: &dyn Backend, on_error: impl Fn(StoreError)) {
        let end = catch_unwind(AssertUnwindSafe(|| self.write_all(backend)));
        self.close();
        let error = match end {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => StoreError::Io(format!("the store's writer panicked: {}", panic_text(&*panic))),
        };
        let abandoned = std::mem::take(&mut self.state.lock().waiting);
        on_error(error);
        drop(abandoned);
    }

    /// Batch after batch, until the queue is closed and empty.
    fn write_all(&self, backend: &dyn Backend) -> Result<(), StoreError> {
        loop {
            let taken = self.take();
            if taken.is_empty() {
                return Ok(());
            }
            let mut batch = Vec::new();
            taken.iter().for_each(|waiting| waiting.chain.encode(&waiting.write, &mut batch));
            backend.apply(batch)?;
            taken.into_iter().for_each(|waiting| (waiting.done)());
        }
    }

    /// Waits until there is something, then takes all of it, up to the limits of a batch. Empty: it is closed.
    fn take(&self) -> Vec<Waiting> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() && !state.closed {
            self.changed.wait(&mut state);
        }
        let mut bytes = 0;
        let mut taken = Vec::new();
        while taken.len() < BATCH_WRITES_MAX && bytes < BATCH_BYTES_MAX {
            let Some(waiting) = state.waiting.pop_front() else { break };
            bytes += waiting.bytes;
            taken.push(waiting);
        }
        taken
    }
}

/// How much a write adds to a batch, in bytes, roughly.
fn weight(write: &StoreWrite) -> usize {
    const SMALL: usize = 64;
    let entries: usize = write.entries.iter().map(|entry| entry.weight()).sum();
    let rows: usize = write.rows.iter().map(craq_proto::Row::weight).sum();
    let others = write.remove_rows.len() + write.keep_outcomes.len() + write.drop_outcomes.len();
    SMALL + entries + rows + SMALL * others
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{self, Receiver, Sender},
        time::Duration,
    };

    use bytes::Bytes;
    use craq_proto::{ChainId, Seq};

    use super::*;
    use crate::store::{Batch, Change, Memory, Snapshot, Store, Table};

    /// Tells of every batch, and waits for leave to carry it out.
    struct Gated {
        memory: Memory,
        began: Mutex<Sender<Batch>>,
        leave: Mutex<Receiver<Result<(), &'static str>>>,
    }

    impl Backend for Gated {
        fn apply(&self, batch: Batch) -> Result<(), StoreError> {
            self.began.lock().send(batch.clone()).unwrap();
            match self.leave.lock().recv().unwrap() {
                Ok(()) => self.memory.apply(batch),
                Err("panic") => panic!("planted"),
                Err(why) => Err(StoreError::Io(why.to_owned())),
            }
        }
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
            self.memory.get(table, key)
        }
        fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
            self.memory.snapshot()
        }
        fn is_volatile(&self) -> bool {
            true
        }
        fn size_bytes(&self) -> u64 {
            0
        }
    }

    const SOON: Duration = Duration::from_secs(10);
    const NEVER: Duration = Duration::from_millis(50);

    /// Dropped from top to bottom: without leave to come, a batch ends, and then so can the writer.
    struct Bench {
        leave: Sender<Result<(), &'static str>>,
        writer: Writer,
        chain: ChainStore,
        began: Receiver<Batch>,
        done: (Sender<u64>, Receiver<u64>),
        errors: Receiver<String>,
    }

    impl Bench {
        fn new() -> Self {
            let (began_tx, began) = mpsc::channel();
            let (leave, leave_rx) = mpsc::channel();
            let (errors_tx, errors) = mpsc::channel();
            let memory = Memory::new();
            let chain =
                Store::open(Arc::new(memory.clone())).unwrap().chain(&ChainId::default_chain()).unwrap();
            let gated = Gated { memory, began: Mutex::new(began_tx), leave: Mutex::new(leave_rx) };
            let writer =
                Writer::start(Arc::new(gated), move |error| errors_tx.send(error.to_string()).unwrap());
            Self { writer, chain, began, leave, done: mpsc::channel(), errors }
        }

        fn submit(&self, n: u64) {
            let done = self.done.0.clone();
            let write = StoreWrite { commit: Some(Seq(n)), ..StoreWrite::default() };
            self.writer.submit(&self.chain, write, Box::new(move || done.send(n).unwrap()));
        }
    }

    #[test]
    fn what_is_submitted_during_a_batch_is_one_next_batch() {
        let bench = Bench::new();
        bench.submit(0);
        assert_eq!(bench.began.recv_timeout(SOON).unwrap().len(), 1);
        (1..=100).for_each(|n| bench.submit(n));
        assert!(bench.done.1.recv_timeout(NEVER).is_err(), "done before it was durable");
        bench.leave.send(Ok(())).unwrap();
        let second = bench.began.recv_timeout(SOON).unwrap();
        assert_eq!(second.len(), 100);
        assert!(second.iter().all(|change| matches!(change, Change::Put(..))));
        assert_eq!(bench.done.1.recv_timeout(SOON), Ok(0));
        bench.leave.send(Ok(())).unwrap();
        let order: Vec<u64> = (1..=100).map(|_| bench.done.1.recv_timeout(SOON).unwrap()).collect();
        assert_eq!(order, (1..=100).collect::<Vec<_>>());
        assert_eq!(bench.chain.meta().unwrap().commit, Seq(100));
    }

    #[test]
    fn after_an_error_nothing_is_done_any_more_and_it_is_told_once() {
        for (why, told) in [
            ("no space", "storage failed: no space"),
            ("panic", "storage failed: the store's writer panicked: planted"),
        ] {
            let bench = Bench::new();
            (1..=3).for_each(|n| bench.submit(n));
            bench.began.recv_timeout(SOON).unwrap();
            bench.submit(4);
            bench.leave.send(Err(why)).unwrap();
            assert_eq!(bench.errors.recv_timeout(SOON).unwrap(), told);
            bench.submit(5);
            bench.writer.close();
            assert!(bench.began.try_recv().is_err(), "a batch was begun after an error");
            assert!(bench.done.1.try_recv().is_err(), "a write was called done that is not");
            assert!(bench.errors.try_recv().is_err(), "told twice");
        }
    }

    #[test]
    fn closing_writes_what_waits() {
        let bench = Bench::new();
        (0..10).for_each(|n| bench.submit(n));
        (0..10).for_each(|_| bench.leave.send(Ok(())).unwrap());
        bench.writer.close();
        assert_eq!(bench.done.1.try_iter().count(), 10);
        let held = Arc::new(());
        let done = Box::new({
            let held = Arc::clone(&held);
            move || drop(held)
        });
        bench.writer.submit(
            &bench.chain,
            StoreWrite { commit: Some(Seq(99)), ..StoreWrite::default() },
            done,
        );
        assert_eq!(Arc::strong_count(&held), 1, "what comes after the close is kept");
        assert_eq!(bench.chain.meta().unwrap().commit, Seq(9));
    }

    #[test]
    fn the_last_handle_may_be_dropped_by_the_writer_itself() {
        let bench = Bench::new();
        let (gone, ended) = mpsc::channel();
        let handle = bench.writer.clone();
        let done = Box::new(move || {
            drop(handle);
            gone.send(()).unwrap();
        });
        bench.writer.submit(&bench.chain, StoreWrite::default(), done);
        drop(bench.writer);
        bench.leave.send(Ok(())).unwrap();
        ended.recv_timeout(SOON).unwrap();
    }
}
