//! Whether this coordinator leads: when it looks at the log, claims, renews, gives up. A synchronous state machine.
//!
//! [`Leadership::step`] takes one fact and says what is to be done; [`Leadership::next_deadline`] says when it wants to be
//! asked again. It reads no clock, store or network and draws no random numbers.
//!
//! A term is claimed by a record in the log and kept by further ones. Others claim the next term only when they have seen
//! nothing new for the lease of the present one, on their own clock, counted from when *they* saw the last change; the
//! times in records are for people. A leader counts from before it sent its last record, and less than the lease. So two
//! do not lead at once as long as clocks run at about the same rate; and if they do not, the log still has one winner for
//! each number, and safety rests on that alone.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod event;
#[cfg(test)]
mod tests;
mod timing;

use std::{collections::VecDeque, time::Duration};

use craq_log::{Seen, Written};
use craq_proto::{
    HolderId, Term, Time,
    planted::{self, Bug},
};
pub use event::{Input, Job, Output};
pub use timing::{Timing, TimingError};

/// Records that were written so many leases ago may be removed.
const PRUNE_LEASES: u32 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Another one leads, or nobody.
    Following,
    /// Leads until then, unless it writes again.
    Leading { term: Term, until: Time },
    /// Leads no longer, and has until then to say so in the log.
    Resigning { until: Time },
}

/// Whether this coordinator leads.
#[derive(Debug)]
pub struct Leadership {
    me: HolderId,
    timing: Timing,
    /// From 0 to 1: which part of a poll interval this one waits longer than needed before it claims.
    jitter: f64,
    role: Role,
    /// The newest state of the log. None: it was not read yet.
    seen: Option<Seen>,
    /// When the log was last seen to have changed.
    changed: Time,
    /// When it was last read, or tried to be.
    looked: Time,
    /// When the newest record of this leader was sent.
    sent: Time,
    /// Its own jobs that are under way.
    under_way: Vec<Job>,
    /// Claims nothing before this.
    rest_until: Time,
    /// How many records there were at which time; oldest first.
    marks: VecDeque<(Time, u64)>,
}

impl Leadership {
    /// A coordinator that does not lead yet. `jitter` (0 to 1) should differ between coordinators.
    #[must_use]
    pub fn new(me: HolderId, timing: Timing, jitter: f64) -> Self {
        Self {
            me,
            timing,
            jitter: jitter.clamp(0.0, 1.0),
            role: Role::Following,
            seen: None,
            changed: Time::ZERO,
            looked: Time::ZERO,
            sent: Time::ZERO,
            under_way: Vec::new(),
            rest_until: Time::ZERO,
            marks: VecDeque::new(),
        }
    }

    /// Takes one input and appends what is to be done. Total: never fails, never blocks.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        // Before anything else, so that nothing is done in the name of a term that has run out.
        self.expire(now, out);
        match input {
            Input::Done { job, sent, written, seen } => self.on_done(now, job, sent, written, seen, out),
            Input::Asked => self.on_asked(now, out),
            Input::Resign { rest } => self.on_resign(now, rest, out),
            Input::Tick => {}
        }
        self.evaluate(now, out);
    }

    /// When the leadership wants an [`Input::Tick`].
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        match self.role {
            // Else the bug would be asked again and again.
            Role::Leading { .. } if self.is_busy() && planted::is(Bug::StepDownSkipped) => Time::MAX,
            Role::Resigning { .. } if planted::is(Bug::StepDownSkipped) => Time::MAX,
            Role::Leading { until, .. } if self.is_busy() => until,
            Role::Leading { until, .. } => until.min(self.sent + self.timing.renew_interval),
            Role::Resigning { until } => until,
            Role::Following if self.is_busy() => Time::MAX,
            Role::Following => self.claim_at().min(self.looked + self.timing.poll_interval()),
        }
    }

    /// The term in which this coordinator leads, if it does.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        match self.role {
            Role::Leading { term, .. } => Some(term),
            _ => None,
        }
    }

    /// Until when this coordinator may write as things are. Zero: it does not lead, nor has it anything to say.
    #[must_use]
    pub fn until(&self) -> Time {
        match self.role {
            Role::Leading { until, .. } | Role::Resigning { until } => until,
            Role::Following => Time::ZERO,
        }
    }

    fn expire(&mut self, now: Time, out: &mut Vec<Output>) {
        match self.role {
            _ if planted::is(Bug::StepDownSkipped) => {}
            Role::Leading { until, .. } if now >= until => {
                self.follow(format!("it could not write to the log for {:?}", self.timing.step_down), out);
            }
            // Whoever comes next waits for the lease to run out.
            Role::Resigning { until } if now >= until => self.role = Role::Following,
            _ => {}
        }
    }

    fn follow(&mut self, why: String, out: &mut Vec<Output>) {
        self.role = Role::Following;
        self.marks.clear();
        out.push(Output::Follow { why });
    }

    fn on_done(
        &mut self,
        now: Time,
        job: Job,
        sent: Time,
        written: Written,
        seen: Seen,
        out: &mut Vec<Output>,
    ) {
        if let Some(index) = self.under_way.iter().position(|own| *own == job) {
            self.under_way.swap_remove(index);
        }
        if job == Job::Look {
            self.looked = now;
        }
        if self.seen.as_ref().is_none_or(|known| known.records != seen.records) {
            self.changed = now;
        }
        let is_mine = seen.holder.as_ref().is_some_and(|holder| holder.id == self.me);
        let (term, records) = (seen.term, seen.records);
        self.seen = Some(seen);
        let counted = if planted::is(Bug::StepDownFromAnswer) { now } else { sent };
        let until = counted + self.timing.step_down;
        match (self.role, job, written) {
            // Asked to rest while the claim was under way.
            (Role::Following, Job::Claim, Written::Won) if is_mine && now < until.min(self.rest_until) => {
                self.resign(until, out);
            }
            (Role::Following, Job::Claim, Written::Won) if is_mine && now < until => {
                (self.role, self.sent) = (Role::Leading { term, until }, sent);
                out.push(Output::Lead { term });
            }
            // Somebody else was first: whoever that is has its whole lease.
            (Role::Following, Job::Claim, Written::Lost) => self.changed = now,
            (Role::Following, ..) => {}
            (Role::Resigning { .. }, Job::Resign, _) => self.role = Role::Following,
            (Role::Resigning { .. }, ..) => {}
            (_, Job::Look | Job::Prune, _) if is_mine => {}
            _ if planted::is(Bug::LostTermGoesOn) => {}
            _ if !is_mine => self.follow(format!("another coordinator has claimed term {term}"), out),
            (_, _, Written::Unknown) => {
                self.follow("nobody knows what became of its last record".to_owned(), out);
            }
            (Role::Leading { term, .. }, _, Written::Won) => {
                (self.role, self.sent) = (Role::Leading { term, until }, sent);
                self.marks.push_back((sent, records));
            }
            _ => {}
        }
    }

    /// Who asks may know what this one has not read yet.
    fn on_asked(&mut self, now: Time, out: &mut Vec<Output>) {
        let is_old = now.since(self.looked) >= self.timing.poll_interval() / 8;
        if self.role == Role::Following && !self.is_busy() && is_old {
            self.under_way.push(Job::Look);
            out.push(Output::Look);
        }
    }

    fn on_resign(&mut self, now: Time, rest: Duration, out: &mut Vec<Output>) {
        self.rest_until = now + rest;
        if let Role::Leading { until, .. } = self.role {
            // First of all: the next leader may begin as soon as the record is there.
            self.follow("it gives up".to_owned(), out);
            self.resign(until, out);
        }
    }

    fn resign(&mut self, until: Time, out: &mut Vec<Output>) {
        self.role = Role::Resigning { until };
        self.under_way.push(Job::Resign);
        out.push(Output::Resign { until });
    }

    /// A store that is slow may take longer for a job than the leadership lasts: what comes next waits for it.
    fn is_busy(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// What is due.
    fn evaluate(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.is_busy() {
            return;
        }
        let order = match self.role {
            Role::Following if now >= self.claim_at() => {
                let records = self.seen.as_ref().map_or(0, |seen| seen.records);
                // What has become of it by then is of no use.
                Some((Job::Claim, Output::Claim { records, until: now + self.timing.step_down }))
            }
            Role::Following if now >= self.looked + self.timing.poll_interval() => {
                Some((Job::Look, Output::Look))
            }
            Role::Leading { until, .. } if now >= self.sent + self.timing.renew_interval => {
                Some((Job::Renew, Output::Renew { until }))
            }
            Role::Leading { .. } => self.prune(now).map(|order| (Job::Prune, order)),
            _ => None,
        };
        if let Some((job, order)) = order {
            self.under_way.push(job);
            out.push(order);
        }
    }

    /// When this one may claim, as things are.
    fn claim_at(&self) -> Time {
        let Some(seen) = &self.seen else { return Time::MAX };
        // What this one claimed itself, and did not hear of in time, it need not wait for.
        let is_free = seen.holder.as_ref().is_none_or(|holder| holder.id == self.me);
        let poll = self.timing.poll_interval();
        let wait = if is_free || planted::is(Bug::ClaimWithoutWaiting) {
            Duration::ZERO
        } else {
            // A hundredth for clocks that run at other rates, more than any does.
            seen.lease.max(self.timing.lease).mul_f64(1.01) + poll.mul_f64(self.jitter)
        };
        (self.changed + wait).max(self.rest_until)
    }

    fn prune(&mut self, now: Time) -> Option<Output> {
        let age = self.timing.lease * PRUNE_LEASES;
        // Not at every occasion: a list is not free.
        let is_due = self.marks.front().is_some_and(|(at, _)| now.since(*at) >= age + self.timing.lease);
        let mut below = None;
        while is_due && let Some((_, records)) = self.marks.pop_front_if(|(at, _)| now.since(*at) >= age) {
            below = Some(records);
        }
        below.map(|below| Output::Prune { below })
    }
}
