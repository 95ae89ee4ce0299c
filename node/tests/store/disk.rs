//! A disk in memory that can fail a call and lose its power: then of what was not synced any sector may be there or not.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use redb::StorageBackend;

const SECTOR: usize = 512;

/// Calls that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Write,
    Sync,
    SetLen,
}

/// The disk. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What a reader sees.
    current: Vec<u8>,
    /// What surely survives.
    synced: Vec<u8>,
    /// Sectors that may or may not survive as they are in `current`.
    unsynced: BTreeSet<usize>,
    /// The call that fails, and how many of its kind are made before.
    planted: Option<(Call, u64)>,
    /// How many further calls are carried out before the power fails.
    power: Option<u64>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, {} sectors not synced", self.current.len(), self.unsynced.len())
    }
}

impl Disk {
    /// A disk with this on it, synced.
    pub(crate) fn holding(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { current: image.clone(), synced: image, ..State::default() })))
    }

    /// Lets the n-th call of its kind from now on fail, counted from 0.
    pub(crate) fn plant(&self, call: Call, n: u64) {
        self.state().planted = Some((call, n));
    }

    /// Lets every call fail after so many.
    pub(crate) fn cut_power_after(&self, calls: u64) {
        self.state().power = Some(calls);
    }

    /// Whether what was planted has come about.
    pub(crate) fn has_failed(&self) -> bool {
        self.state().planted.is_none()
    }

    /// The disk as it is found after a loss of power: of what was not synced, each sector is there by chance.
    pub(crate) fn after_power_loss(&self, seed: u64) -> Self {
        let state = self.state();
        let mut random = StdRng::seed_from_u64(seed);
        let mut image = state.synced.clone();
        let length = if random.random() { state.current.len() } else { image.len() };
        image.resize(length, 0);
        for sector in state.unsynced.iter().filter(|_| random.random()) {
            let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(state.current.len()));
            if from < to && to <= image.len() {
                image[from..to].copy_from_slice(&state.current[from..to]);
            }
        }
        Self::holding(image)
    }

    /// The disk with one changed byte, among those that are not zero: most of a new file is.
    pub(crate) fn with_changed_byte(&self, seed: u64) -> Self {
        let mut image = self.state().current.clone();
        let mut random = StdRng::seed_from_u64(seed);
        let written: Vec<usize> = (0..image.len()).filter(|at| image[*at] != 0).collect();
        image[written[random.random_range(0..written.len())]] ^= 1 << random.random_range(0..8);
        Self::holding(image)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no call panics")
    }
}

impl State {
    fn begin(&mut self, call: Call) -> io::Result<()> {
        match &mut self.power {
            Some(0) => return Err(io::Error::other("no power")),
            Some(calls) => *calls -= 1,
            None => {}
        }
        match &mut self.planted {
            Some((planted, 0)) if *planted == call => {
                self.planted = None;
                if call == Call::Sync {
                    // As Linux does it: the pages count as clean from now on, and are lost; the next sync succeeds.
                    self.unsynced.clear();
                }
                Err(io::Error::other("planted"))
            }
            Some((planted, n)) if *planted == call => {
                *n -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let from = offset as usize;
        let bytes = state.current.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Call::SetLen)?;
        state.current.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Call::Sync)?;
        let State { current, synced, unsynced, .. } = &mut *state;
        synced.resize(current.len(), 0);
        for sector in std::mem::take(unsynced) {
            let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(current.len()));
            if from < to {
                synced[from..to].copy_from_slice(&current[from..to]);
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Call::Write)?;
        let from = offset as usize;
        state.current[from..from + data.len()].copy_from_slice(data);
        state.unsynced.extend(from / SECTOR..(from + data.len()).div_ceil(SECTOR));
        Ok(())
    }
}
