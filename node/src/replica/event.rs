//! What a replica is told ([`Input`]) and what it orders ([`Output`]), side by side.
//!
//! Inputs are facts; outputs are orders. Each says who sends it and when. The driver carries out outputs in their
//! order; the order matters only between the [`Output::Persist`]s, and between the messages of one link.

use std::{sync::Arc, time::Duration};

use craq_proto::{
    CallError, Entry, Epoch, Incarnation, Key, NodeId, Outcome, RequestId, Row, Seq, Time, Value, Version,
    View,
    planted::{self, Bug},
};

/// What was last installed of the chain's view, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredView {
    /// The view.
    pub view: View,
    /// Nodes outside it that a promise of this one still bound when it was installed (protocol.md 6).
    pub bound: Vec<NodeId>,
}

/// Names a [`Output::Persist`] until its [`Input::Persisted`]. Rising; they complete in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// One atomic piece of writing for a chain's store. Its parts take effect in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreWrite {
    /// Remove all rows and outcomes of the chain; commit, `gc_floor` and `forgotten_through` go back to zero.
    pub wipe: bool,
    /// Remove these rows, by sequence and index: thrown away, or overwritten.
    pub remove_rows: Vec<(Seq, u32)>,
    /// Add the rows of these entries.
    pub entries: Vec<Arc<Entry>>,
    /// Add these rows of the committed log.
    pub rows: Vec<Row>,
    /// The commit. Never ahead of what this write and those before it make durable.
    pub commit: Option<Seq>,
    /// Below this sequence tombstones may be gone.
    pub gc_floor: Option<Seq>,
    /// Outcomes at or below this are forgotten.
    pub forgotten_through: Option<Seq>,
    /// Outcomes whose rows are removed and that must be kept all the same, stored by sequence.
    pub keep_outcomes: Vec<Outcome>,
    /// Stored outcomes that are no longer needed, by sequence.
    pub drop_outcomes: Vec<Seq>,
    /// The view. Boxed: most writes have none.
    pub view: Option<Box<StoredView>>,
}

/// Names a link: even numbers are given by the replica that opens it, odd ones by the driver that accepts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// From a member to its successor.
    Chain,
    /// From a source to its learner.
    Transfer,
}

/// Entries of one epoch that stand next to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Run {
    /// First sequence.
    pub first: Seq,
    /// Last sequence.
    pub last: Seq,
    /// Their epoch.
    pub origin_epoch: Epoch,
}

/// What is said on a link (protocol.md 3, 4 and 7). `P` is the opening side, towards the head; `S` the accepting one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// S: what it holds. The first message on every link.
    Hello {
        /// Its commit.
        commit: Seq,
        /// The highest sequence it holds.
        last: Seq,
        /// Its entries above the commit.
        suffix: Vec<Run>,
    },
    /// P: where the logs part. What follows are the entries above `truncate_to`.
    Level {
        /// The larger commit of the two.
        commit: Seq,
        /// S throws away what it holds above.
        truncate_to: Seq,
    },
    /// P: a piece of the committed log, for an S that is not in sync.
    Rows {
        /// Rising by sequence and index.
        rows: Vec<Row>,
        /// Nothing is missing up to here.
        through: Seq,
        /// S drops all that it holds first.
        from_nothing: bool,
        /// Tombstones below this are missing, so that S may bring up nobody from below it either.
        gc_floor: Seq,
    },
    /// S: how far the committed log is durable.
    RowsAck {
        /// Up to here.
        through: Seq,
    },
    /// P: the committed log is complete up to `through`; the outcomes that go with it, in parts.
    CaughtUp {
        /// Up to here.
        through: Seq,
        /// A part of the outcomes as of `through`.
        outcomes: Vec<Outcome>,
        /// More parts follow.
        more: bool,
        /// Outcomes at or below this are forgotten.
        forgotten_through: Seq,
    },
    /// P: entries, and how far they are durable at P and before.
    Append {
        /// Contiguous, rising, may be empty.
        entries: Vec<Arc<Entry>>,
        /// Durable at P and all before it.
        durable: Seq,
        /// P's commit.
        commit: Seq,
    },
    /// S: what is committed. Cumulative.
    Ack {
        /// Up to here.
        commit: Seq,
    },
}

/// Names a caller who waits for a [`Reply`]; given by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What must hold of a key for a write to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// It has this version; zero: it is absent.
    Version(Version),
    /// It exists. A deletion has this one unless it names a version.
    Exists,
}

/// One key's part of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which key.
    pub key: Key,
    /// The new value; none: delete.
    pub value: Option<Value>,
    /// When to do it.
    pub condition: Condition,
    /// As in `craq_proto::Mutation`.
    pub checksum: u32,
}

/// A client's write: all of its changes are done, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Names it.
    pub request: RequestId,
    /// At least one; keys differ.
    pub changes: Vec<Change>,
}

/// Where a committed version stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Sequence of its entry.
    pub seq: Seq,
    /// Its mutation's place in the entry.
    pub index: u32,
    /// The version.
    pub version: Version,
    /// It is a tombstone.
    pub deleted: bool,
}

/// The tail's answer about committed versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailAnswer {
    /// One for each key that was asked, in order; none: nothing is committed.
    pub versions: Vec<Option<Position>>,
    /// The tail's commit.
    pub commit: Seq,
}

/// The answer to a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The write is committed.
    Applied {
        /// Its entry.
        seq: Seq,
        /// The version that each change made.
        versions: Vec<Version>,
    },
    /// The read may be answered with this version from the own store (none: not found), if the lease still holds then.
    Serve {
        /// Which version.
        position: Option<Position>,
        /// The own commit at that time.
        commit: Seq,
        /// The tail was asked; otherwise the own commit has told it.
        asked: bool,
    },
    /// The own commit has reached what the tail had committed: a page may be read now, if the lease still holds then.
    ServePage,
    /// No.
    Refused(CallError),
}

/// What the driver tells the replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// From the coordinator (or another node that knows): a view. Old ones are ignored.
    View(View),
    /// From a client, through the service: a write. Answered by [`Output::Reply`].
    Write {
        /// Who waits.
        ticket: Ticket,
        /// What for.
        write: Write,
    },
    /// From the service: a strong read of a dirty key, or of one that the fast path could not answer.
    Read {
        /// Who waits.
        ticket: Ticket,
        /// Which key.
        key: Key,
    },
    /// From the service: a strong page has a dirty key in it.
    ReadPage {
        /// Who waits.
        ticket: Ticket,
    },
    /// From the service: the caller has gone or given up; no reply is wanted any more.
    Abandoned {
        /// Who waited.
        ticket: Ticket,
    },
    /// From the store's writer: done, and everything before it.
    Persisted {
        /// Which.
        id: PersistId,
    },
    /// From the accepting service: a predecessor or source opened a link. The epoch is the one of its message.
    LinkOffered {
        /// Named by the driver.
        link: LinkId,
        /// Who opened it.
        from: NodeId,
        /// Which of its process starts.
        incarnation: Incarnation,
        /// The opener's epoch.
        epoch: Epoch,
        /// What it is for.
        kind: LinkKind,
    },
    /// From the link: a message.
    Received {
        /// On which.
        link: LinkId,
        /// The sender's epoch.
        epoch: Epoch,
        /// What it says.
        message: Message,
    },
    /// From the link: it broke, could not be opened, or was refused. The driver has already waited before it says so of a
    /// link that could not be opened, so that the replica may try again at once.
    LinkClosed {
        /// Which.
        link: LinkId,
    },
    /// From the store: what [`Output::ReadLog`] asked for.
    LogRead {
        /// For which link.
        link: LinkId,
        /// The rows.
        rows: Vec<Row>,
        /// Nothing is missing up to here.
        through: Seq,
    },
    /// From another member: it asks for a promise. Answered by [`Output::Promise`].
    Pinged {
        /// Who waits.
        ticket: Ticket,
        /// Who asks.
        from: NodeId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// From another member: it promised, in answer to a ping that was sent at this time.
    Promised {
        /// Who.
        by: NodeId,
        /// In which epoch.
        epoch: Epoch,
        /// When the ping was sent, on the own clock.
        sent: Time,
    },
    /// From another node: it gave up its lease in an epoch up to this one; the promise to it ends.
    Released {
        /// Who.
        by: NodeId,
        /// The epoch it has installed.
        epoch: Epoch,
    },
    /// From another node, in any answer: there is a newer epoch.
    NewerEpoch {
        /// At least this one.
        epoch: Epoch,
    },
    /// From the peers: what the tail answered to [`Output::AskTail`]; none: it could not.
    TailAnswered {
        /// Which question.
        question: u64,
        /// The answer.
        answer: Option<TailAnswer>,
    },
    /// From the driver's timer, at [`super::Replica::next_deadline`] or later.
    DeadlinePassed,
}

/// What the replica orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To the store's writer: write this, after all before it; then say [`Input::Persisted`].
    Persist {
        /// Which.
        id: PersistId,
        /// What.
        write: StoreWrite,
    },
    /// To the peers: connect; then the messages on it come as [`Input::Received`], or [`Input::LinkClosed`].
    OpenLink {
        /// Named by the replica.
        link: LinkId,
        /// To whom.
        to: NodeId,
        /// Where it is reached.
        address: String,
        /// What for.
        kind: LinkKind,
        /// In which epoch.
        epoch: Epoch,
    },
    /// To the link: say this. The driver may join neighbouring [`Message::Append`]s into one.
    Send {
        /// On which.
        link: LinkId,
        /// In which epoch.
        epoch: Epoch,
        /// What.
        message: Message,
    },
    /// To the link: close it. No [`Input::LinkClosed`] need follow.
    CloseLink {
        /// Which.
        link: LinkId,
    },
    /// To the store: read the committed log; then say [`Input::LogRead`].
    ReadLog {
        /// For which link.
        link: LinkId,
        /// Rows above this sequence …
        after: Seq,
        /// … up to this one …
        up_to: Seq,
        /// … until so many bytes are read, and at least one whole entry.
        bytes_max: usize,
    },
    /// To the peers: ask these members for promises; then say [`Input::Promised`] for each that gives it.
    Ping {
        /// Whom, and where.
        to: Vec<(NodeId, String)>,
        /// In which epoch.
        epoch: Epoch,
    },
    /// To the peers: tell these nodes that the lease is given up.
    Release {
        /// Whom, and where.
        to: Vec<(NodeId, String)>,
        /// The epoch that is installed.
        epoch: Epoch,
    },
    /// To the pinging member: a promise, or the epoch in which it is refused.
    Promise {
        /// Who waits.
        ticket: Ticket,
        /// None: promised.
        refused: Option<Epoch>,
    },
    /// To the peers: ask the tail; then say [`Input::TailAnswered`].
    AskTail {
        /// Names the question.
        question: u64,
        /// The tail, and where it is reached.
        tail: (NodeId, String),
        /// In which epoch.
        epoch: Epoch,
        /// About which keys.
        keys: Vec<Key>,
    },
    /// To a caller: the answer.
    Reply {
        /// Who waits.
        ticket: Ticket,
        /// The answer.
        reply: Reply,
        /// Only if the read lease still holds at the moment of answering, by a clock read after this output; else the
        /// driver answers that it is unavailable (protocol.md 3.2 and 5).
        under_lease: bool,
    },
    /// To the heartbeat: tell the coordinator the new state at once.
    Report,
    /// To the heartbeat: ask for the newest view; a message of a newer epoch has come.
    FetchView,
    /// To the driver: this node must not go on. Log it once, loudly, and end the process.
    Halt {
        /// Why.
        reason: String,
    },
}

/// The times and limits of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// L: how long a promise binds.
    pub lease: Duration,
    /// How often members ping each other; a third of the lease or less.
    pub ping_interval: Duration,
    /// Greatest error of one clock's rate, ρ, in millionths; the promiser's time is longer by 2ρ/(1-ρ).
    pub clock_error_ppm: u32,
    /// Most entries above the commit; the head refuses writes beyond.
    pub dirty_entries_max: usize,
    /// Most bytes of entries above the commit; the head refuses writes beyond.
    pub dirty_bytes_max: usize,
    /// Most outcomes of requests that are kept; beyond, the head forgets the older half.
    pub outcomes_max: usize,
    /// Most outcomes of one client that may still be repeated; beyond, its writes are refused.
    pub client_outcomes_max: usize,
    /// Most callers whose reads wait for the tail at once.
    pub waiting_reads_max: usize,
    /// A question to the tail is followed by the next one no sooner than this: reads of dirty keys that come meanwhile wait
    /// for the own commit, which mostly comes first, or share the next one.
    pub question_interval: Duration,
    /// When so many reads wait for the next question, it leaves at once.
    pub question_reads: usize,
    /// Tombstones are kept for at least so many entries.
    pub tombstone_entries: u64,
    /// Overwritten rows are removed when there are so many, so many at a time.
    pub sweep_rows: usize,
    /// Overwritten rows are removed at the latest after this time.
    pub sweep_interval: Duration,
    /// How many bytes of the committed log are read and sent at a time.
    pub transfer_bytes: usize,
    /// How many pieces of the committed log may be on their way to a learner.
    pub transfer_window: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease: Duration::from_millis(350),
            ping_interval: Duration::from_millis(80),
            clock_error_ppm: 1_000,
            dirty_entries_max: 100_000,
            dirty_bytes_max: 64 * 1024 * 1024,
            outcomes_max: 200_000,
            client_outcomes_max: 10_000,
            waiting_reads_max: 100_000,
            question_interval: Duration::from_millis(10),
            question_reads: 16,
            tombstone_entries: 100_000,
            sweep_rows: 512,
            sweep_interval: Duration::from_secs(1),
            transfer_bytes: 1024 * 1024,
            transfer_window: 4,
        }
    }
}

impl Config {
    /// How long the promiser holds itself bound: the lease, and what two clocks may drift apart in it.
    #[must_use]
    pub fn promise(&self) -> Duration {
        if planted::is(Bug::DriftIgnored) {
            return self.lease;
        }
        let rho = f64::from(self.clock_error_ppm) / 1e6;
        self.lease.mul_f64(1.0 + 2.0 * rho / (1.0 - rho))
    }
}
