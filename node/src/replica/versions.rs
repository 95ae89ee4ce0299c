//! The committed-version map, the ordered set of the keys, and the gate: what a replica shares with its readers.
//!
//! One writer, the replica's `step`; any number of readers, on their own tasks (see `read`). A key stands here for as long
//! as the replica holds a version of it, tombstones included. Never holds a value: those live in the store's log.
//!
//! No guard of the map outlives a statement, and no two are held at once: a guard held over another call can deadlock.

use std::{
    collections::BTreeSet,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use craq_proto::{
    Epoch, Role, Seq, Time, Version, View,
    planted::{self, Bug},
};
use dashmap::{DashMap, Entry};
use parking_lot::RwLock;

use super::{event::Position, own_key::OwnKey, slot::Slot};

/// What is held of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyState {
    /// Nothing.
    Absent,
    /// Its newest held version is committed.
    Clean(Position),
    /// Its newest held version is not known to be committed.
    Dirty {
        /// The newest committed one, if there is any.
        clean: Option<Position>,
        /// The newest.
        latest: Position,
    },
}

impl KeyState {
    /// The newest version, dirty or clean.
    pub(super) fn newest(self) -> Option<Position> {
        match self {
            Self::Absent => None,
            Self::Clean(position) | Self::Dirty { latest: position, .. } => Some(position),
        }
    }

    /// The newest committed version.
    pub(super) fn clean(self) -> Option<Position> {
        match self {
            Self::Absent => None,
            Self::Clean(position) => Some(position),
            Self::Dirty { clean, .. } => clean,
        }
    }
}

/// What the view, the gate and the leases allow a reader. Replaced as a whole when the epoch or a right changes.
#[derive(Debug)]
pub(super) struct Rights {
    pub(super) epoch: Epoch,
    pub(super) view: Option<Arc<View>>,
    pub(super) role: Role,
    /// In sync or level: strong reads may be answered under a lease.
    pub(super) readable: bool,
    /// The settled tail: knows what is committed.
    pub(super) is_authority: bool,
    /// When the read lease ends, in nanoseconds of the replica's clock.
    lease_until: AtomicU64,
}

impl Rights {
    pub(super) fn new(
        view: Option<Arc<View>>,
        role: Role,
        readable: bool,
        is_authority: bool,
        lease: Time,
    ) -> Self {
        let epoch = view.as_ref().map_or(Epoch::ZERO, |view| view.epoch);
        Self { epoch, view, role, readable, is_authority, lease_until: AtomicU64::new(nanos(lease)) }
    }

    pub(super) fn set_lease(&self, until: Time) {
        self.lease_until.store(nanos(until), Ordering::Release);
    }

    pub(super) fn has_lease(&self, now: Time) -> bool {
        planted::is(Bug::ReadsWithoutLease) || nanos(now) < self.lease_until.load(Ordering::Acquire)
    }
}

fn nanos(time: Time) -> u64 {
    u64::try_from(time.0.as_nanos()).unwrap_or(u64::MAX)
}

/// Shared by the replica (writer) and its readers.
#[derive(Debug)]
pub(super) struct Versions {
    map: DashMap<OwnKey, Slot>,
    order: RwLock<BTreeSet<OwnKey>>,
    /// Held for writing while commits are put into the map, so that a page can see the map at one commit.
    commits: RwLock<()>,
    commit: AtomicU64,
    live_keys: AtomicU64,
    /// When the chain last told what is committed, in nanoseconds of the replica's clock; 0: never.
    heard: AtomicU64,
    rights: ArcSwap<Rights>,
}

/// A part of the key range at one commit.
pub(super) struct Slice {
    pub(super) commit: Seq,
    pub(super) states: Vec<(OwnKey, KeyState)>,
    /// Where the range goes on.
    pub(super) next: Option<OwnKey>,
}

impl Versions {
    pub(super) fn new() -> Self {
        Self {
            map: DashMap::new(),
            order: RwLock::default(),
            commits: RwLock::default(),
            commit: AtomicU64::new(0),
            live_keys: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            rights: ArcSwap::from_pointee(Rights::new(None, Role::None, false, false, Time::ZERO)),
        }
    }

    pub(super) fn rights(&self) -> arc_swap::Guard<Arc<Rights>> {
        self.rights.load()
    }

    pub(super) fn set_rights(&self, rights: Rights) {
        self.rights.store(Arc::new(rights));
    }

    pub(super) fn state(&self, key: &[u8]) -> KeyState {
        self.map.get(key).map_or(KeyState::Absent, |slot| slot.state())
    }

    pub(super) fn commit(&self) -> Seq {
        Seq(self.commit.load(Ordering::Acquire))
    }

    /// Keys that exist: committed, not deleted.
    pub(super) fn live_keys(&self) -> u64 {
        self.live_keys.load(Ordering::Relaxed)
    }

    pub(super) fn hear(&self, now: Time) {
        self.heard.store(nanos(now).max(1), Ordering::Relaxed);
    }

    pub(super) fn heard_within(&self, now: Time, bound: Duration) -> bool {
        let heard = self.heard.load(Ordering::Relaxed);
        heard > 0 && Duration::from_nanos(nanos(now).saturating_sub(heard)) <= bound
    }

    /// The replica holds a new, uncommitted version of the key.
    pub(super) fn mark_dirty(&self, key: &[u8], latest: Position) {
        if let Some(mut slot) = self.map.get_mut(key) {
            *slot = Slot::dirty(slot.committed(), latest);
            return;
        }
        let own = OwnKey::from(key);
        self.map.insert(own.clone(), Slot::dirty(None, latest));
        self.order.write().insert(own);
    }

    /// The key's newest version was thrown away; `latest` is the newest uncommitted one that is left.
    pub(super) fn roll_back(&self, key: &[u8], latest: Option<Position>) {
        let emptied =
            self.map.get_mut(key).is_some_and(|mut slot| match Slot::of(slot.committed(), latest) {
                Some(left) => {
                    *slot = left;
                    false
                }
                None => true,
            });
        if emptied {
            self.remove(key);
        }
    }

    /// Opens the map for commits that readers of pages see all at once, when the guard goes.
    pub(super) fn begin_commits(&self) -> Commits<'_> {
        Commits { versions: self, _still: self.commits.write() }
    }

    /// Makes the order of the keys anew from the map, which is much faster than to insert them one by one.
    pub(super) fn put_in_order(&self) {
        let mut keys: Vec<OwnKey> = self.map.iter().map(|entry| entry.key().clone()).collect();
        keys.sort_unstable();
        *self.order.write() = keys.into_iter().collect();
    }

    /// Forgets a key: its tombstone has been collected.
    pub(super) fn remove(&self, key: &[u8]) {
        self.map.remove(key);
        self.order.write().remove(key);
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        let _still = self.commits.write();
        self.map.clear();
        self.order.write().clear();
        self.live_keys.store(0, Ordering::Relaxed);
        self.commit.store(0, Ordering::Release);
    }

    /// A copy with readers of its own.
    #[cfg(feature = "model")]
    pub(super) fn fork(&self) -> Self {
        let rights = self.rights();
        let own = Rights {
            epoch: rights.epoch,
            view: rights.view.clone(),
            role: rights.role,
            readable: rights.readable,
            is_authority: rights.is_authority,
            lease_until: AtomicU64::new(rights.lease_until.load(Ordering::Acquire)),
        };
        let copy = Self { order: RwLock::new(self.order.read().clone()), ..Self::new() };
        for (key, state) in self.states() {
            let latest = state.newest().filter(|_| matches!(state, KeyState::Dirty { .. }));
            if let Some(slot) = Slot::of(state.clean(), latest) {
                copy.map.insert(key, slot);
            }
        }
        copy.commit.store(self.commit().0, Ordering::Release);
        copy.live_keys.store(self.live_keys(), Ordering::Relaxed);
        copy.heard.store(self.heard.load(Ordering::Relaxed), Ordering::Relaxed);
        copy.set_rights(own);
        copy
    }

    /// What is held of each key, in the order of the keys.
    #[cfg(feature = "model")]
    pub(super) fn states(&self) -> Vec<(OwnKey, KeyState)> {
        let order = self.order.read();
        order.iter().map(|key| (key.clone(), self.state(key))).collect()
    }

    /// Up to `limit` keys from `start` to `end` at one commit. Calls `pin` while commits stand still.
    pub(super) fn slice(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
        pin: &mut dyn FnMut(),
    ) -> Slice {
        let upper = end.map_or(Bound::Unbounded, Bound::Excluded);
        let mut slice = Slice { commit: Seq::ZERO, states: Vec::new(), next: None };
        if end.is_some_and(|end| end <= start) {
            return slice;
        }
        let _still = self.commits.read();
        slice.commit = self.commit();
        pin();
        let order = self.order.read();
        for key in order.range::<[u8], _>((Bound::Included(start), upper)) {
            let state = self.state(key);
            let counts = !matches!(state, KeyState::Absent)
                && !matches!(state, KeyState::Clean(position) if position.deleted);
            if counts && slice.states.len() == limit {
                slice.next = Some(key.clone());
                break;
            }
            if counts {
                slice.states.push((key.clone(), state));
            }
        }
        slice
    }
}

/// While this lives, no page is read.
pub(super) struct Commits<'a> {
    versions: &'a Versions,
    _still: parking_lot::RwLockWriteGuard<'a, ()>,
}

impl Commits<'_> {
    /// The version at `position` is committed. Returns the one that it overwrites. Commits come in log order; one that is
    /// older than what the key already has (as in a walk of the log) changes nothing and overwrites itself.
    pub(super) fn commit(&self, key: &[u8], position: Position) -> Option<Position> {
        let own = OwnKey::from(key);
        let Placed { overwritten, is_new } = self.place(own.clone(), position);
        if is_new {
            self.versions.order.write().insert(own);
        }
        overwritten
    }

    /// The same while a replica is being loaded: the order of the keys is made at the end, by [`Versions::put_in_order`].
    pub(super) fn load(&self, key: &[u8], position: Position) -> Option<Position> {
        self.place(key.into(), position).overwritten
    }

    fn place(&self, key: OwnKey, position: Position) -> Placed {
        let mut slot = match self.versions.map.entry(key) {
            Entry::Occupied(slot) => slot,
            Entry::Vacant(slot) => {
                slot.insert(Slot::clean(position));
                self.count(None, position);
                return Placed { overwritten: None, is_new: true };
            }
        };
        let old = slot.get().committed();
        if let Some(newer) = old.filter(|old| (old.seq, old.index) >= (position.seq, position.index)) {
            let is_other = newer.seq != position.seq || newer.index != position.index;
            return Placed { overwritten: is_other.then_some(position), is_new: false };
        }
        let latest = slot.get().latest().filter(|latest| latest.seq > position.seq);
        slot.insert(match latest {
            Some(latest) => Slot::dirty(Some(position), latest),
            None => Slot::clean(position),
        });
        self.count(old, position);
        Placed { overwritten: old, is_new: false }
    }

    /// All commits up to `seq` are in the map.
    pub(super) fn reached(&self, seq: Seq) {
        self.versions.commit.store(seq.0, Ordering::Release);
    }

    fn count(&self, old: Option<Position>, new: Position) {
        let was = old.is_some_and(|old| !old.deleted);
        match (was, !new.deleted) {
            (false, true) => self.versions.live_keys.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.versions.live_keys.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

/// What putting a position into the map has changed.
struct Placed {
    overwritten: Option<Position>,
    /// The key was not in the map before.
    is_new: bool,
}

/// The position of a mutation.
pub(super) fn position(seq: Seq, index: usize, version: Version, deleted: bool) -> Position {
    Position { seq, index: u32::try_from(index).expect("an entry has few mutations"), version, deleted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_loaded_is_read_like_what_was_committed() {
        let (loaded, committed) = (Versions::new(), Versions::new());
        // Short and long keys in no order; each third one twice, each fifth one deleted.
        for number in (0..200_u64).chain((0..200).step_by(3)) {
            let key = format!("{:0width$}", number * 7 % 200, width = if number % 2 == 0 { 3 } else { 40 });
            for versions in [&loaded, &committed] {
                let position = position(Seq(1000 + number), 0, Version(1), number % 5 == 0);
                let commits = versions.begin_commits();
                match std::ptr::eq(versions, &loaded) {
                    true => commits.load(key.as_bytes(), position),
                    false => commits.commit(key.as_bytes(), position),
                };
            }
        }
        loaded.mark_dirty(b"dirty", position(Seq(2000), 0, Version(1), false));
        committed.mark_dirty(b"dirty", position(Seq(2000), 0, Version(1), false));
        loaded.put_in_order();
        let slice = |versions: &Versions| versions.slice(b"0", None, usize::MAX, &mut || {}).states;
        assert_eq!(slice(&loaded).len(), 161);
        assert!(slice(&loaded).is_sorted_by_key(|(key, _)| key.clone()));
        assert_eq!(slice(&loaded), slice(&committed));
        assert_eq!(loaded.live_keys(), committed.live_keys());
    }
}
