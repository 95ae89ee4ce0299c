//! Strong reads of dirty keys: one question to the tail at a time, shared by all reads that wait (`protocol.md` 5).
//!
//! A read never joins a question that was already sent: the tail may have answered it before the read began. Until the next
//! one leaves, a read may learn the answer from the own commit: when the newest version that was here when it came is
//! committed, all is here that was committed when it came. So of many reads few ask.

use std::{collections::BTreeMap, mem};

use craq_proto::{
    CallError, ErrorKind, Key, Seq, Time,
    planted::{self, Bug},
};

use super::{
    Replica,
    event::{Output, Position, Reply, TailAnswer, Ticket},
    read::Look,
};

/// Most keys in one question.
const KEYS_MAX: usize = 1_000;

/// Reads that wait: by the commit that would answer them, which is the newest version that was here when they came, and by key.
/// `None` stands for pages, which want the tail's commit, or that of all that was here.
type Waiting = BTreeMap<(Seq, Option<Key>), Vec<Ticket>>;

/// Above every sequence: no commit answers it.
const NO_COMMIT: Seq = Seq(u64::MAX);

/// The reads of one question, in the order of its keys.
type Asked = Vec<(Option<Key>, Vec<Ticket>)>;

/// Reads that wait for the tail.
#[derive(Debug, Default, Clone, Hash)]
pub(super) struct Questions {
    waiting: Waiting,
    count: usize,
    /// The question that is under way.
    asked: Option<(u64, Asked)>,
    number: u64,
    /// The next one does not leave before this time.
    not_before: Option<Time>,
    /// Pages that wait until the own commit has reached the tail's.
    pages: BTreeMap<Seq, Vec<Ticket>>,
}

impl Questions {
    fn wait(&mut self, until: Seq, key: Option<Key>, ticket: Ticket) {
        self.count += 1;
        self.waiting.entry((until, key)).or_default().push(ticket);
    }

    /// When the next question may leave, if one waits to.
    pub(super) fn due(&self) -> Option<Time> {
        self.not_before.filter(|_| self.asked.is_none() && !self.waiting.is_empty())
    }

    /// The question before has just left, and few reads want the next one.
    fn is_early(&self, now: Time, reads: usize) -> bool {
        self.not_before.is_some_and(|time| now < time) && self.count < reads
    }

    /// Lets the read share the question that is under way; false: it is about other keys.
    fn join(&mut self, key: Option<&Key>, ticket: Ticket) -> bool {
        let mut asked = self.asked.iter_mut().flat_map(|(_, asked)| asked);
        let Some((_, tickets)) = asked.find(|(asked, _)| asked.as_ref() == key) else { return false };
        tickets.push(ticket);
        self.count += 1;
        true
    }

    /// The caller has gone. One whose question was already sent is answered in vain, which does no harm.
    pub(super) fn abandon(&mut self, ticket: Ticket) {
        let mut gone = 0;
        self.waiting.retain(|_, tickets| {
            let before = tickets.len();
            tickets.retain(|waiting| *waiting != ticket);
            gone += before - tickets.len();
            !tickets.is_empty()
        });
        self.count -= gone;
    }

    pub(super) fn commit_reached(&mut self, commit: Seq, out: &mut Vec<Output>) {
        let above = self.pages.split_off(&commit.next());
        for ticket in mem::replace(&mut self.pages, above).into_values().flatten() {
            out.push(serve_page(ticket));
        }
    }

    /// Takes out the reads that this commit answers.
    fn take_answered(&mut self, commit: Seq) -> Waiting {
        let commit = if planted::is(Bug::AnyCommitAnswers) { Seq(u64::MAX - 1) } else { commit };
        let above = self.waiting.split_off(&(commit.next(), None));
        let answered = mem::replace(&mut self.waiting, above);
        self.count -= answered.values().map(Vec::len).sum::<usize>();
        answered
    }

    /// The epoch has changed, or the tail did not answer: everyone may try again.
    pub(super) fn refuse_all(&mut self, error: &CallError, out: &mut Vec<Output>) {
        let asked =
            self.asked.take().into_iter().flat_map(|(_, asked)| asked).flat_map(|(_, tickets)| tickets);
        let waiting = mem::take(&mut self.waiting).into_values().flatten();
        let pages = mem::take(&mut self.pages).into_values().flatten();
        self.count = 0;
        out.extend(asked.chain(waiting).chain(pages).map(|ticket| refuse(ticket, error.clone())));
    }
}

fn refuse(ticket: Ticket, error: CallError) -> Output {
    Output::Reply { ticket, reply: Reply::Refused(error), under_lease: false }
}

fn serve_page(ticket: Ticket) -> Output {
    Output::Reply { ticket, reply: Reply::ServePage, under_lease: true }
}

fn serve(ticket: Ticket, position: Option<Position>, commit: Seq, asked: bool) -> Output {
    Output::Reply { ticket, reply: Reply::Serve { position, commit, asked }, under_lease: true }
}

impl Replica {
    pub(super) fn on_read(&mut self, now: Time, ticket: Ticket, key: Key, out: &mut Vec<Output>) {
        match self.reader().strong(now, key.as_ref()) {
            Look::Serve { position, commit, .. } => out.push(serve(ticket, position, commit, false)),
            Look::Refused(error) => out.push(refuse(ticket, error)),
            Look::Dirty => {
                let newest = self.versions.state(key.as_ref()).newest();
                let until = newest.map_or(NO_COMMIT, |newest| newest.seq);
                self.wait_for_tail(until, Some(key), ticket, out);
            }
        }
    }

    pub(super) fn on_read_page(&mut self, now: Time, ticket: Ticket, out: &mut Vec<Output>) {
        let is_authority = self.versions.rights().is_authority;
        let is_clean = self.log.commit == self.log.last;
        match self.reader().permit(now) {
            Err(error) => out.push(refuse(ticket, error)),
            Ok(_) if is_authority || is_clean => out.push(serve_page(ticket)),
            Ok(_) => self.wait_for_tail(self.log.last, None, ticket, out),
        }
    }

    fn wait_for_tail(&mut self, until: Seq, key: Option<Key>, ticket: Ticket, out: &mut Vec<Output>) {
        let max = self.config.waiting_reads_max;
        if self.role().is_tail() {
            let message =
                "this node has become the tail and doesn't know yet what the one before it had committed";
            out.push(refuse(ticket, CallError::unavailable(message)));
        } else if self.questions.count >= max {
            let message = format!("{max} reads wait for the tail, which is the limit");
            out.push(refuse(ticket, CallError::new(ErrorKind::ResourceExhausted, message)));
        } else if !planted::is(Bug::QuestionJoined) || !self.questions.join(key.as_ref(), ticket) {
            self.questions.wait(until, key, ticket);
        }
    }

    /// The own commit has come this far.
    pub(super) fn answer_reads(&mut self, commit: Seq, out: &mut Vec<Output>) {
        for ((_, key), tickets) in self.questions.take_answered(commit) {
            match key {
                None => out.extend(tickets.into_iter().map(serve_page)),
                Some(key) => {
                    let position = self.versions.state(key.as_ref()).clean();
                    out.extend(tickets.into_iter().map(|ticket| serve(ticket, position, commit, false)));
                }
            }
        }
        self.questions.commit_reached(commit, out);
    }

    pub(super) fn maybe_ask(&mut self, now: Time, out: &mut Vec<Output>) {
        let questions = &mut self.questions;
        let is_early = questions.is_early(now, self.config.question_reads);
        if questions.asked.is_some() || questions.waiting.is_empty() || is_early {
            return;
        }
        let Some(view) = &self.view else { return };
        let Some(tail) = view.tail() else { return };
        let mut asked = Vec::new();
        while asked.len() < KEYS_MAX {
            let Some(((_, key), tickets)) = questions.waiting.pop_first() else { break };
            asked.push((key, tickets));
        }
        questions.number += 1;
        let interval = self.config.question_interval;
        questions.not_before = (!interval.is_zero()).then(|| now + interval);
        let (question, epoch) = (questions.number, view.epoch);
        let keys = asked.iter().filter_map(|(key, _)| key.clone()).collect();
        questions.asked = Some((question, asked));
        out.push(Output::AskTail { question, tail: (tail.node, tail.address.clone()), epoch, keys });
    }

    pub(super) fn on_tail_answered(
        &mut self,
        question: u64,
        answer: Option<TailAnswer>,
        out: &mut Vec<Output>,
    ) {
        if self.questions.asked.as_ref().is_none_or(|(asked, _)| *asked != question) {
            return;
        }
        let Some((_, asked)) = self.questions.asked.take() else { return };
        self.questions.count -= asked.iter().map(|(_, tickets)| tickets.len()).sum::<usize>();
        let keys = asked.iter().filter(|(key, _)| key.is_some()).count();
        let Some(answer) = answer.filter(|answer| answer.versions.len() == keys) else {
            let error = CallError::unavailable("the tail did not say which versions are committed");
            let tickets = asked.into_iter().flat_map(|(_, tickets)| tickets);
            return out.extend(tickets.map(|ticket| refuse(ticket, error.clone())));
        };
        let mut versions = answer.versions.into_iter();
        for (key, tickets) in asked {
            match key {
                None => self.answer_pages(tickets, answer.commit, out),
                Some(key) => {
                    let position = self.newer_of(&key, versions.next().flatten(), answer.commit);
                    let commit = self.log.commit;
                    out.extend(tickets.into_iter().map(|ticket| serve(ticket, position, commit, true)));
                }
            }
        }
    }

    /// What the tail had committed at its commit, or the own newest committed version if that has become newer by now:
    /// both were committed at some time during the read. That the tail knows of no version is an answer too: the key did
    /// not exist then, and what is committed here from before is overwritten, by a tombstone that the tail has collected.
    fn newer_of(&self, key: &Key, told: Option<Position>, commit: Seq) -> Option<Position> {
        let own = self.versions.state(key.as_ref()).clean();
        let told_at = told.map_or(commit, |told| told.seq);
        own.filter(|own| own.seq > told_at).or(told)
    }

    fn answer_pages(&mut self, tickets: Vec<Ticket>, commit: Seq, out: &mut Vec<Output>) {
        if self.log.commit >= commit {
            out.extend(tickets.into_iter().map(serve_page));
        } else {
            self.questions.pages.entry(commit).or_default().extend(tickets);
        }
    }
}
