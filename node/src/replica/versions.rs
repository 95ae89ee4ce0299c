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
use dashmap::DashMap;
use parking_lot::RwLock;

use super::event::Position;

/// A key in memory of its own, shared by map and set.
pub(super) type OwnKey = Arc<[u8]>;

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

/// A key's entry in the map. Most keys are clean, so that the dirty part lies elsewhere.
#[derive(Debug, Default)]
struct Slot {
    clean: Option<Position>,
    latest: Option<Box<Position>>,
}

impl Slot {
    fn state(&self) -> KeyState {
        match (self.clean, self.latest.as_deref()) {
            (None, None) => KeyState::Absent,
            (Some(clean), None) => KeyState::Clean(clean),
            (clean, Some(latest)) => KeyState::Dirty { clean, latest: *latest },
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
            slot.latest = Some(Box::new(latest));
            return;
        }
        let own: OwnKey = key.into();
        self.map.insert(own.clone(), Slot { clean: None, latest: Some(Box::new(latest)) });
        self.order.write().insert(own);
    }

    /// The key's newest version was thrown away; `latest` is the newest uncommitted one that is left.
    pub(super) fn roll_back(&self, key: &[u8], latest: Option<Position>) {
        let emptied = self.map.get_mut(key).is_some_and(|mut slot| {
            slot.latest = latest.map(Box::new);
            slot.state() == KeyState::Absent
        });
        if emptied {
            self.remove(key);
        }
    }

    /// Opens the map for commits that readers of pages see all at once, when the guard goes.
    pub(super) fn begin_commits(&self) -> Commits<'_> {
        Commits { versions: self, _still: self.commits.write() }
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
            let latest = state.newest().filter(|_| matches!(state, KeyState::Dirty { .. })).map(Box::new);
            copy.map.insert(key, Slot { clean: state.clean(), latest });
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
        if let Some(mut slot) = self.versions.map.get_mut(key) {
            let old = slot.clean;
            if let Some(newer) = old.filter(|old| (old.seq, old.index) >= (position.seq, position.index)) {
                return (newer.seq != position.seq || newer.index != position.index).then_some(position);
            }
            slot.clean = Some(position);
            if slot.latest.as_ref().is_some_and(|latest| latest.seq <= position.seq) {
                slot.latest = None;
            }
            self.count(old, position);
            return old;
        }
        let own: OwnKey = key.into();
        self.versions.map.insert(own.clone(), Slot { clean: Some(position), latest: None });
        self.versions.order.write().insert(own);
        self.count(None, position);
        None
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

/// The position of a mutation.
pub(super) fn position(seq: Seq, index: usize, version: Version, deleted: bool) -> Position {
    Position { seq, index: u32::try_from(index).expect("an entry has few mutations"), version, deleted }
}
