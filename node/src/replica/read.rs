//! Reading, as its callers do it on their own tasks: what may be answered at once, under what it must still hold, and what
//! has to be asked of the tail (`protocol.md` 5). A clean read never waits for a write.
//!
//! The order is the point: plan the read here, read the store, *then* ask [`Reader::holds`] with a fresh clock, then
//! answer. A process can be paused between any two instructions, and a lease that was checked first has lapsed when the
//! value is read. Never here: questions to the tail, which go through `step` (see `question`).

use std::{sync::Arc, time::Duration};

use craq_proto::{
    CallError, Epoch, ErrorKind, Key, Seq, Time, View,
    planted::{self, Bug},
};

use super::{
    event::{Position, TailAnswer},
    versions::{KeyState, Rights, Versions},
};

/// The reading side of a replica. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    versions: Arc<Versions>,
}

/// What a strong read was planned under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Permit {
    epoch: Epoch,
    needs: Needs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Needs {
    Nothing,
    Lease,
    Authority,
}

/// How one key may be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Read this version from the store (none: not found), then answer if the permit still holds.
    Serve {
        /// Which version.
        position: Option<Position>,
        /// What it was planned under.
        permit: Permit,
        /// The replica's commit.
        commit: Seq,
        /// The key was dirty, but this is the tail.
        at_tail: bool,
    },
    /// The key is dirty: hand the read to the replica.
    Dirty,
    /// No answer now.
    Refused(CallError),
}

/// How a part of the key range may be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageLook {
    /// Read these versions from the snapshot that was taken, then answer if the permit still holds.
    Serve {
        /// Keys that exist, rising.
        positions: Vec<(Key, Position)>,
        /// What it was planned under.
        permit: Permit,
        /// The sequence at which the page is read.
        seq: Seq,
        /// Where the range goes on.
        next: Option<Key>,
    },
    /// A key in it is dirty: hand the page to the replica.
    Dirty,
    /// No answer now.
    Refused(CallError),
}

/// How fresh a page has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    /// Linearizable.
    Strong,
    /// Linearizable, and the replica has said that the own commit has reached what the tail had committed.
    StrongAtOwnCommit,
    /// What this replica knows.
    Weak {
        /// Only if the chain was heard from within this time.
        bound: Option<Duration>,
        /// Only if the commit has reached this sequence.
        min_seq: Seq,
    },
}

impl Reader {
    pub(super) fn new(versions: Arc<Versions>) -> Self {
        Self { versions }
    }

    /// Plans a strong read of one key.
    #[must_use]
    pub fn strong(&self, now: Time, key: &[u8]) -> Look {
        let rights = self.versions.rights();
        if planted::POSSIBLE
            && let Some(look) = self.planted_look(&rights, key)
        {
            return look;
        }
        if let Err(error) = may_read(&rights, now) {
            return Look::Refused(error);
        }
        // Before the map: what is answered is then at least as new.
        let commit = self.versions.commit();
        let serve = |position, needs, at_tail| {
            let permit = Permit { epoch: rights.epoch, needs };
            Look::Serve { position, permit, commit, at_tail }
        };
        match self.versions.state(key) {
            KeyState::Absent => serve(None, Needs::Lease, false),
            KeyState::Clean(position) => serve(Some(position), Needs::Lease, false),
            KeyState::Dirty { latest, .. } if planted::is(Bug::DirtyServed) => {
                serve(Some(latest), Needs::Lease, false)
            }
            KeyState::Dirty { clean, .. } if planted::is(Bug::DirtyNotAsked) => {
                serve(clean, Needs::Lease, false)
            }
            KeyState::Dirty { clean, .. } if rights.is_authority => serve(clean, Needs::Authority, true),
            KeyState::Dirty { .. } => Look::Dirty,
        }
    }

    /// What the bugs answer without a lease; none without them.
    fn planted_look(&self, rights: &Rights, key: &[u8]) -> Option<Look> {
        let is_found = |position: Position| !position.deleted;
        let position = match self.versions.state(key) {
            KeyState::Dirty { clean, .. } if planted::is(Bug::TailAnswersWithoutLease) => {
                rights.is_authority.then_some(clean)?
            }
            state @ (KeyState::Absent | KeyState::Clean(_)) if planted::is(Bug::NotFoundWithoutLease) => {
                (!state.clean().is_some_and(is_found)).then(|| state.clean())?
            }
            _ => return None,
        };
        let permit = Permit { epoch: rights.epoch, needs: Needs::Nothing };
        let commit = self.versions.commit();
        rights.readable.then_some(Look::Serve { position, permit, commit, at_tail: rights.is_authority })
    }

    /// Plans a read of what this replica knows to be committed: within `bound` if there is one, and at `min_seq` or later.
    /// What may be answered strongly is fresh enough for any bound.
    #[must_use]
    pub fn weak(&self, now: Time, key: &[u8], bound: Option<Duration>, min_seq: Seq) -> Look {
        if let Err(error) = self.has_reached(min_seq) {
            return Look::Refused(error);
        }
        if let Some(bound) = bound.filter(|bound| !self.versions.heard_within(now, *bound)) {
            return match self.strong(now, key) {
                serve @ Look::Serve { .. } => serve,
                Look::Dirty | Look::Refused(_) => Look::Refused(self.not_heard_for(bound)),
            };
        }
        let commit = self.versions.commit();
        let permit = Permit { epoch: self.versions.rights().epoch, needs: Needs::Nothing };
        Look::Serve { position: self.versions.state(key).clean(), permit, commit, at_tail: false }
    }

    fn has_reached(&self, min_seq: Seq) -> Result<(), CallError> {
        let commit = self.versions.commit();
        if commit < min_seq {
            return Err(
                self.unavailable(format!("this replica knows the log up to {commit}, not to {min_seq}"))
            );
        }
        Ok(())
    }

    fn not_heard_for(&self, bound: Duration) -> CallError {
        self.unavailable(format!("this replica has not heard from its chain for {bound:?}"))
    }

    fn unavailable(&self, message: String) -> CallError {
        CallError::unavailable(message).with_view(self.view().map(|view| View::clone(&view)))
    }

    /// Plans the reading of up to `limit` keys from `start` (inclusive) to `end` (exclusive) at one sequence. Calls `pin`
    /// while commits stand still: take the store's snapshot in it.
    pub fn page(
        &self,
        now: Time,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
        strength: Strength,
        pin: &mut dyn FnMut(),
    ) -> PageLook {
        let rights = self.versions.rights();
        let (is_weak, bound, min_seq) = match strength {
            Strength::Weak { bound, min_seq } => (true, bound, min_seq),
            Strength::Strong | Strength::StrongAtOwnCommit => (false, None, Seq::ZERO),
        };
        let is_fresh = is_weak && bound.is_none_or(|bound| self.versions.heard_within(now, bound));
        let allowed = if is_fresh { Ok(()) } else { may_read(&rights, now) };
        if let Err(error) = self.has_reached(min_seq).and(allowed) {
            return PageLook::Refused(error);
        }
        let slice = self.versions.slice(start, end, limit, pin);
        let is_mixed = planted::is(Bug::PageMixesDirty);
        let is_dirty = slice.states.iter().any(|(_, state)| matches!(state, KeyState::Dirty { .. }));
        let is_dirty = is_dirty && !is_mixed;
        let needs = match strength {
            _ if is_fresh => Needs::Nothing,
            Strength::StrongAtOwnCommit => Needs::Lease,
            _ if !is_dirty => Needs::Lease,
            _ if rights.is_authority => Needs::Authority,
            Strength::Strong => return PageLook::Dirty,
            Strength::Weak { .. } => return PageLook::Refused(self.not_heard_for(bound.unwrap_or_default())),
        };
        let own = |key: &[u8]| Key::new(key.to_vec()).expect("the map holds keys of legal length");
        let exists = |position: &Position| !position.deleted;
        let positions = slice.states.iter().filter_map(|(key, state)| {
            let position = if is_mixed { state.newest() } else { state.clean() }.filter(exists)?;
            Some((own(key), position))
        });
        PageLook::Serve {
            positions: positions.collect(),
            permit: Permit { epoch: rights.epoch, needs },
            seq: slice.commit,
            next: slice.next.as_deref().map(own),
        }
    }

    /// What is committed of these keys: only the settled tail of this very epoch knows, under a lease. The permit has to
    /// hold still when the answer is sent.
    pub fn latest_versions(
        &self,
        now: Time,
        epoch: Epoch,
        keys: &[Key],
    ) -> Result<(TailAnswer, Permit), CallError> {
        let rights = self.versions.rights();
        if rights.epoch != epoch {
            let message = format!("asked in epoch {epoch}, this node is in epoch {}", rights.epoch);
            let view = rights.view.as_deref().cloned();
            return Err(CallError::new(ErrorKind::WrongEpoch, message).with_view(view));
        }
        if !rights.is_authority {
            return Err(self.unavailable(format!("this node is not the settled tail of epoch {epoch}")));
        }
        let is_planted = planted::is(Bug::TailAnswersWithoutLease);
        if !is_planted {
            may_read(&rights, now)?;
        }
        let versions = keys.iter().map(|key| self.versions.state(key.as_ref()).clean()).collect();
        let permit = Permit { epoch, needs: if is_planted { Needs::Nothing } else { Needs::Authority } };
        // After the map: whoever waits for this commit has then all that was seen.
        Ok((TailAnswer { versions, commit: self.versions.commit() }, permit))
    }

    /// What a strong answer is given under now.
    pub fn permit(&self, now: Time) -> Result<Permit, CallError> {
        let rights = self.versions.rights();
        may_read(&rights, now)?;
        Ok(Permit { epoch: rights.epoch, needs: Needs::Lease })
    }

    /// Whether what was planned under the permit may be answered. `now` must have been read after the store was.
    #[must_use]
    pub fn holds(&self, now: Time, permit: Permit) -> bool {
        let rights = self.versions.rights();
        let same = rights.epoch == permit.epoch && rights.readable && rights.has_lease(now);
        match permit.needs {
            Needs::Nothing => true,
            Needs::Lease => same,
            Needs::Authority => same && rights.is_authority,
        }
    }

    /// The newest view.
    #[must_use]
    pub fn view(&self) -> Option<Arc<View>> {
        self.versions.rights().view.clone()
    }
}

fn may_read(rights: &Rights, now: Time) -> Result<(), CallError> {
    let reason = match &rights.view {
        None => "this node has no view of the chain yet".to_owned(),
        Some(view) if !rights.readable => {
            format!("this node is {} in epoch {} and not in sync", rights.role, view.epoch)
        }
        Some(view) if !rights.has_lease(now) => {
            format!("this node has no read lease in epoch {}", view.epoch)
        }
        Some(_) => return Ok(()),
    };
    Err(CallError::unavailable(reason).with_view(rights.view.as_deref().cloned()))
}
