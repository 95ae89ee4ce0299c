//! A simulated file, for those who test what a crash leaves of their store.
//!
//! It outlives its processes, which are its handles: [`File::kill`] ends them all, [`File::lose_power`] also loses what
//! was not synced. A call, or every call from some point on, can be made to [fail](File::fail). Everything is decided by
//! the random numbers that are passed in; nothing here reads a clock or starts a thread. It fits redb's `StorageBackend`
//! as it is; the same calls, of the same meaning, are inherent methods for backends that know nothing of redb.
//! Never here: what is in the file.

mod pages;
#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand::Rng;
use redb::StorageBackend;

use self::pages::Image;

/// A call of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// All that was written is made durable.
    Sync,
    /// The length is changed.
    SetLen,
}

/// Which calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// This one call fails, once so many of its kind have been carried out.
    Once(Call, u64),
    /// Every call fails once so many, of all kinds, have been carried out: the medium is gone.
    Everything(u64),
    /// As [`Failure::Everything`], but what waits to be synced goes on to wait: the power is gone, or the process.
    Power(u64),
    /// As [`Failure::Everything`], but only what takes space fails: writes and changes of the length.
    Full(u64),
}

/// A handle to a simulated file. Clones are the same handle.
#[derive(Debug, Clone, Default)]
pub struct File(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    image: Image,
    /// The process that had this handle is gone.
    is_dead: bool,
    /// A sync does nothing, and says that it is done.
    ignores_syncs: bool,
    failure: Option<Failure>,
    has_failed: bool,
    /// The process ends after so many further calls.
    stop: Option<u64>,
    calls: u64,
}

impl File {
    /// An empty file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets calls fail; what was ordered before no longer counts.
    pub fn fail(&self, failure: Failure) {
        let mut state = self.state();
        state.failure = Some(failure);
        state.has_failed = false;
    }

    /// Lets every call succeed again. What a failed sync has lost is no longer seen by readers either: the machine has
    /// been started anew.
    pub fn cure(&self) {
        let mut state = self.state();
        state.failure = None;
        state.has_failed = false;
        state.image.forget_lost();
    }

    /// Whether a call has failed since [`File::fail`].
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.state().has_failed
    }

    /// How many calls have been made so far, those that failed included.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Lets every sync from now on do nothing and say that it is done: what a test must notice.
    pub fn ignore_syncs(&self) {
        self.state().ignores_syncs = true;
    }

    /// Does this work, which ends by failing once it has made so many calls: the process ends amid it. To be followed by
    /// [`File::kill`] or [`File::lose_power`].
    pub fn stopping_after<T>(&self, calls: u64, work: impl FnOnce() -> T) -> T {
        self.state().stop = Some(calls);
        let done = work();
        self.state().stop = None;
        done
    }

    /// Empties it, as if it had never been written.
    pub fn erase(&self) {
        self.state().image = Image::default();
    }

    /// Ends all processes that have the file open: their handles fail from now on. What they wrote is kept as it is, synced
    /// or not. The new handle is the only one that works. Failures that were ordered go on.
    #[must_use]
    pub fn kill(&self) -> Self {
        let dead = State { is_dead: true, ..State::default() };
        Self(Arc::new(Mutex::new(std::mem::replace(&mut *self.state(), dead))))
    }

    /// As [`File::kill`], and of what was not synced each write is lost, kept, or kept in some of its sectors.
    #[must_use]
    pub fn lose_power(&self, random: &mut impl Rng) -> Self {
        let survivor = self.kill();
        survivor.state().image.lose_power(random);
        survivor
    }

    /// What [`File::lose_power`] would leave, as another file without failures. This one goes on.
    #[must_use]
    pub fn after_power_loss(&self, random: &mut impl Rng) -> Self {
        self.changed(|image| image.lose_power(random))
    }

    /// A copy with one changed bit, in a byte that is not zero: most of a new file is.
    ///
    /// # Panics
    ///
    /// If there is no such byte.
    #[must_use]
    pub fn with_changed_bit(&self, random: &mut impl Rng) -> Self {
        self.changed(|image| image.change_bit(random))
    }

    fn changed(&self, change: impl FnOnce(&mut Image)) -> Self {
        let mut image = self.state().image.clone();
        change(&mut image);
        Self(Arc::new(Mutex::new(State { image, ..State::default() })))
    }

    /// How long it is, in bytes.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> io::Result<u64> {
        let state = self.state();
        if state.is_dead { Err(dead()) } else { Ok(state.image.len()) }
    }

    /// Fills `out` with what stands from `offset` on. Fails if that goes beyond the end.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Call::Read)?;
        state.image.read(offset, out)
    }

    /// Changes the length; new bytes are zero.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Call::SetLen)?;
        state.image.set_len(len);
        Ok(())
    }

    /// Makes durable what was written before.
    pub fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        if let Err(error) = state.begin(Call::Sync) {
            // As Linux does it: the pages count as clean from now on, and are lost; the next sync succeeds.
            if state.has_failed && !matches!(state.failure, Some(Failure::Power(_))) {
                state.image.lose_unsynced();
            }
            return Err(error);
        }
        if !state.ignores_syncs {
            state.image.sync();
        }
        Ok(())
    }

    /// Puts these bytes there. Fails if that goes beyond the end.
    pub fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Call::Write)?;
        state.image.write(offset, data)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic can only come from an argument, before anything is changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn dead() -> io::Error {
    io::Error::other("the process is gone")
}

impl State {
    /// Counts the call, and fails it if that was ordered.
    fn begin(&mut self, call: Call) -> io::Result<()> {
        if self.is_dead {
            return Err(dead());
        }
        match &mut self.stop {
            Some(0) => return Err(dead()),
            Some(left) => *left -= 1,
            None => {}
        }
        self.calls += 1;
        let refused = match &mut self.failure {
            None => None,
            Some(Failure::Once(kind, left)) => match *left {
                _ if *kind != call => None,
                0 => Some("planted"),
                _ => count_down(left),
            },
            Some(Failure::Everything(left) | Failure::Power(left) | Failure::Full(left)) if *left > 0 => {
                count_down(left)
            }
            Some(Failure::Everything(_)) => Some("input/output error"),
            Some(Failure::Power(_)) => Some("no power"),
            Some(Failure::Full(_)) => matches!(call, Call::Write | Call::SetLen).then_some("no space left"),
        };
        let Some(why) = refused else { return Ok(()) };
        self.has_failed = true;
        if matches!(self.failure, Some(Failure::Once(..))) {
            self.failure = None;
        }
        Err(io::Error::other(why))
    }
}

fn count_down(left: &mut u64) -> Option<&'static str> {
    *left -= 1;
    None
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        File::len(self)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        File::read(self, offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        File::write(self, offset, data)
    }
}
