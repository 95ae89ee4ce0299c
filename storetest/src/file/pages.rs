//! The content of a simulated file: what a reader sees, what surely survives, and the writes in between.
//!
//! Pages that are zero take no memory, and a copy shares its pages with the original.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use rand::{Rng, RngExt};

const PAGE: u64 = 4096;
/// What a disk writes whole or not at all, in bytes.
const SECTOR: u64 = 512;

/// Bytes with a length; those that were never written are zero.
#[derive(Debug, Clone, Default)]
struct Pages {
    len: u64,
    written: BTreeMap<u64, Arc<[u8; PAGE as usize]>>,
}

impl Pages {
    fn read(&self, offset: u64, out: &mut [u8]) {
        for (page, within, part) in pieces(offset, out.len()) {
            match self.written.get(&page) {
                Some(bytes) => out[part].copy_from_slice(&bytes[within]),
                None => out[part].fill(0),
            }
        }
    }

    /// What goes beyond the end is not written.
    fn write(&mut self, offset: u64, data: &[u8]) {
        let fitting = self.len.saturating_sub(offset).min(data.len() as u64) as usize;
        for (page, within, part) in pieces(offset, fitting) {
            let bytes = self.written.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(bytes)[within].copy_from_slice(&data[part]);
        }
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.written.split_off(&len.div_ceil(PAGE));
            if let Some(last) = self.written.get_mut(&(len / PAGE)) {
                Arc::make_mut(last)[(len % PAGE) as usize..].fill(0);
            }
        }
        self.len = len;
    }
}

/// The pages that a range touches: number, range within the page, range within the data.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let end = offset + len as u64;
    let pages = if len == 0 { 0..0 } else { offset / PAGE..(end - 1) / PAGE + 1 };
    pages.map(move |page| {
        let (from, to) = (offset.max(page * PAGE), end.min((page + 1) * PAGE));
        let within = (from - page * PAGE) as usize..(to - page * PAGE) as usize;
        (page, within, (from - offset) as usize..(to - offset) as usize)
    })
}

/// What is not durable yet.
#[derive(Debug, Clone)]
enum Unsynced {
    /// Whole sectors, as they were after a write.
    Write(u64, Bytes),
    SetLen(u64),
}

/// What is in a file.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    /// What a reader sees.
    current: Pages,
    /// What surely survives.
    durable: Pages,
    /// What was done since the last sync, in order.
    unsynced: Vec<Unsynced>,
    /// Pages of which the newest state was lost by a sync that failed.
    lost: BTreeSet<u64>,
}

impl Image {
    pub(super) fn len(&self) -> u64 {
        self.current.len
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check(offset, out.len())?;
        self.current.read(offset, out);
        Ok(())
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(offset, data.len())?;
        self.current.write(offset, data);
        let from = offset - offset % SECTOR;
        let to = (offset + data.len() as u64).next_multiple_of(SECTOR);
        let mut sectors = vec![0; (to - from) as usize];
        self.current.read(from, &mut sectors);
        self.unsynced.push(Unsynced::Write(from, sectors.into()));
        Ok(())
    }

    fn check(&self, offset: u64, len: usize) -> io::Result<()> {
        let fits = offset.checked_add(len as u64).is_some_and(|end| end <= self.current.len);
        if fits { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.current.set_len(len);
        self.unsynced.push(Unsynced::SetLen(len));
    }

    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Unsynced::SetLen(len) => self.durable.set_len(len),
                Unsynced::Write(offset, sectors) => {
                    for (page, ..) in pieces(offset, sectors.len()) {
                        self.lost.remove(&page);
                        // None: the page was cut off later.
                        if let Some(bytes) = self.current.written.get(&page) {
                            self.durable.written.insert(page, Arc::clone(bytes));
                        }
                    }
                }
            }
        }
    }

    /// A sync has failed: readers go on to see what was written, but no later sync will make it durable.
    pub(super) fn lose_unsynced(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                // The length is in the file system's own journal, not in the pages.
                Unsynced::SetLen(len) => self.durable.set_len(len),
                Unsynced::Write(offset, sectors) => {
                    self.lost.extend(pieces(offset, sectors.len()).map(|(page, ..)| page));
                }
            }
        }
    }

    /// Readers see what is on the disk, where a failed sync had hidden that.
    pub(super) fn forget_lost(&mut self) {
        for page in std::mem::take(&mut self.lost) {
            match self.durable.written.get(&page) {
                Some(bytes) => self.current.written.insert(page, Arc::clone(bytes)),
                None => self.current.written.remove(&page),
            };
        }
    }

    /// Each write is kept, dropped, or kept in some of its sectors; changes of the length are kept up to some point.
    ///
    /// What survives is put there in the order of writing: since any of it may be missing, an older state of a sector can
    /// win over a newer one, as when writes reach the disk in any order.
    pub(super) fn lose_power(&mut self, random: &mut impl Rng) {
        let lengths = self.unsynced.iter().filter(|change| matches!(change, Unsynced::SetLen(_))).count();
        let mut lengths_kept = random.random_range(0..=lengths);
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Unsynced::SetLen(len) if lengths_kept > 0 => {
                    lengths_kept -= 1;
                    self.durable.set_len(len);
                }
                Unsynced::SetLen(_) => {}
                Unsynced::Write(offset, sectors) => self.keep_by_chance(offset, &sectors, random),
            }
        }
        self.current = self.durable.clone();
        self.lost.clear();
    }

    fn keep_by_chance(&mut self, offset: u64, sectors: &[u8], random: &mut impl Rng) {
        match random.random_range(0..3) {
            0 => {}
            1 => self.durable.write(offset, sectors),
            _ => {
                for (number, sector) in (0_u64..).zip(sectors.chunks(SECTOR as usize)) {
                    if random.random() {
                        self.durable.write(offset + number * SECTOR, sector);
                    }
                }
            }
        }
    }

    pub(super) fn change_bit(&mut self, random: &mut impl Rng) {
        let not_zero = |bytes: &[u8]| bytes.iter().filter(|byte| **byte != 0).count();
        let pages = || self.current.written.iter();
        let mut skipped =
            random.random_range(0..pages().map(|(_, bytes)| not_zero(&bytes[..])).sum::<usize>());
        let mut found = None;
        for (page, bytes) in pages() {
            let here = not_zero(&bytes[..]);
            if skipped < here {
                let at = (0..bytes.len()).filter(|at| bytes[*at] != 0).nth(skipped);
                found = at.map(|at| (page * PAGE + at as u64, bytes[at]));
                break;
            }
            skipped -= here;
        }
        let (offset, byte) = found.expect("one of those that were counted");
        self.current.write(offset, &[byte ^ 1 << random.random_range(0..8)]);
        self.durable = self.current.clone();
        self.unsynced.clear();
    }
}
