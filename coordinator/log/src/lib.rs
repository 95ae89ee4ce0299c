//! The log of a cluster's coordinators: numbered records that are only ever created, on object storage or in a directory.
//!
//! `cluster` is created once and names the cluster. `log/00000000000000000001` and so on say who leads and what the views
//! of the chains are. All that is asked of a store is create-if-absent, get, list and delete, so it is the same on a
//! directory, S3, Google Cloud Storage, Azure and in memory. Each number has one winner: a leader that stood still while
//! another one took over loses the next number, whatever the clocks say. A creation that ended without a clear answer is
//! resolved by reading whose nonce is there; one that nothing can be learnt of is of *unknown* outcome, and never said to
//! be either. After each won creation the log is listed, since a number may have been removed and made again.
//!
//! [`Log`] is one coordinator's; [`history()`] reads all views that are kept; [`Location`] finds the store, [`probe()`] refuses
//! one that cannot be relied on. It decides nothing: who should lead and what a view should be is decided elsewhere.

#[cfg(feature = "faulty")]
pub mod faulty;
mod location;
mod probe;
mod record;
mod state;
mod store;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use craq_proto::{
    ClusterId, HolderId, Term, View,
    planted::{self, Bug},
};
use futures::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
pub use location::{Location, LocationError};
pub use probe::{ProbeError, probe};
use record::{Body, ClusterRecord, Record, decode, encode, wall_time};
pub use record::{FORMAT, Holder};
pub use state::KEPT;
use state::{FOLDER, State, corrupt, number_of, path_of};
use store::Created;
pub use store::{Store, StoreError};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Between two tries to write a record.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// So many records are read at once when the log is opened.
const READS_AT_ONCE: usize = 16;
/// So many records are removed at a time: the leader does nothing else meanwhile.
const REMOVALS_MAX: usize = 64;
/// So many of them at once.
const REMOVALS_AT_ONCE: usize = 8;
/// So often the log is read anew when it changes while it is read.
const READINGS_MAX: usize = 5;
/// The object that names the cluster.
const CLUSTER: &str = "cluster";

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store does not do what it is asked, for now.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record is damaged, missing or from elsewhere.
    #[error("the log is damaged at {path}: {what}")]
    Corrupt {
        /// The object.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A newer version of the program wrote this.
    #[error("{path} has format {found}; this version reads up to {FORMAT}: use a newer one")]
    NewerFormat {
        /// The object.
        path: String,
        /// Its format.
        found: u32,
    },
}

impl LogError {
    /// Whether the same may succeed later. Else the coordinator stops, and an operator looks.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Store(_))
    }

    fn corrupt(path: &str, what: String) -> Self {
        Self::Corrupt { path: path.to_owned(), what }
    }
}

/// What became of a record that was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is in the log.
    Won,
    /// It is not in the log and never will be: another coordinator has written meanwhile.
    Lost,
    /// Nobody knows. It may be in the log, or come into it.
    Unknown,
}

/// What a coordinator sees of the leadership when it has read the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// How many records there were ever; grows with each.
    pub records: u64,
    /// The newest term.
    pub term: Term,
    /// Who leads it; none: it is free.
    pub holder: Option<Holder>,
    /// The lease that the holder has claimed with.
    pub lease: Duration,
    /// When the term began, by the clock of its holder; for people.
    pub since: String,
}

/// A view as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The number of its record.
    pub seq: u64,
    /// The term in which it was made; zero: before there were terms.
    pub term: Term,
    /// Who made it, as far as that is known.
    pub holder: Option<Holder>,
    /// When, by the clock of who made it.
    pub wall_time: String,
    /// The view, with its reason.
    pub view: View,
}

/// The log, open, and what stands in it.
#[derive(Debug)]
pub struct Log {
    store: Store,
    me: Holder,
    lease: Duration,
    cluster: ClusterId,
    state: State,
}

impl Log {
    /// Opens the log: reads all of it, or founds a cluster in an empty store. `me` signs what this coordinator writes, and
    /// `lease` is what it claims with.
    pub async fn open(store: Store, me: Holder, lease: Duration) -> Result<Self, LogError> {
        let is_empty = store.list_after(FOLDER, FOLDER).await?.is_empty();
        let cluster = found(&store, is_empty).await?;
        let state = read_all(&store).await?.0;
        let log = Self { store, me, lease, cluster, state };
        tracing::info!(%cluster, records = log.state.last, term = %log.state.term, "opened the log");
        for view in log.views() {
            let (chain, epoch, members) = (&view.chain, view.epoch, view.members.len());
            tracing::info!(%chain, %epoch, members, learners = view.learners.len(), "found a chain");
        }
        Ok(log)
    }

    /// The cluster that the log belongs to.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Who signs what is written here.
    #[must_use]
    pub fn me(&self) -> HolderId {
        self.me.id
    }

    /// From now on, one operation of the store may take no longer than this.
    pub fn limit(&mut self, patience: Duration) {
        self.store = self.store.clone().patient(patience);
    }

    /// The newest view of each chain, as far as the log has been read.
    pub fn views(&self) -> impl Iterator<Item = &View> {
        self.state.views.values()
    }

    /// Who leads, as far as the log has been read.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let State { last, term, holder, lease, since, .. } = &self.state;
        let (term, holder, since) = (*term, holder.clone(), since.clone());
        Seen { records: *last, term, holder, lease: *lease, since }
    }

    /// Reads what others have written since.
    pub async fn catch_up(&mut self) -> Result<(), LogError> {
        while let Some(record) = read(&self.store, self.state.next()).await? {
            let is_linked = record.previous == self.state.newest;
            if is_linked && matches!(record.body, Body::Renew) {
                // Most records by far, and nothing rests on one that was made again: it says who leads, and whoever claims
                // after it looks at what is there.
                self.take([record])?;
                continue;
            }
            let link = (record.seq, Some(record.nonce));
            return match gather(&self.store, link).await?.filter(|_| is_linked) {
                Some(later) => self.take([record].into_iter().chain(later)),
                None => self.read_anew().await,
            };
        }
        Ok(())
    }

    /// Takes over the leadership, in the next term. Tries again while the store fails, up to `until`.
    pub async fn claim(&mut self, until: Instant) -> Result<Written, LogError> {
        let lease_ms = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        let body = Body::Claim { lease_ms, views: self.state.places.clone() };
        self.write(self.state.term.next(), body, until).await
    }

    /// As [`claim`](Self::claim), and lost if there are not exactly so many records: who decided to claim has not seen the
    /// others, and may be about to end a leadership that is well.
    pub async fn claim_after(&mut self, records: u64, until: Instant) -> Result<Written, LogError> {
        if self.state.last != records {
            return Ok(Written::Lost);
        }
        self.claim(until).await
    }

    /// Goes on leading. Tries again while the store fails, up to `until`.
    pub async fn renew(&mut self, until: Instant) -> Result<Written, LogError> {
        self.write_as_leader(Body::Renew, until).await
    }

    /// Leads no longer; whoever comes next need not wait. Tries again while the store fails, up to `until`.
    pub async fn resign(&mut self, until: Instant) -> Result<Written, LogError> {
        self.write_as_leader(Body::Resign, until).await
    }

    /// Writes the next view of a chain. Durable when it returns [`Written::Won`]. Tries again while the store fails, up to
    /// `until`.
    pub async fn append(&mut self, view: View, until: Instant) -> Result<Written, LogError> {
        let newest = self.state.views.get(&view.chain).map(|view| view.epoch).unwrap_or_default();
        if newest.next() != view.epoch {
            return Ok(Written::Lost);
        }
        let follows = self.state.places.get(&view.chain).copied();
        self.write_as_leader(Body::View { view, follows }, until).await
    }

    async fn write_as_leader(&mut self, body: Body, until: Instant) -> Result<Written, LogError> {
        let leads = self.state.holder.as_ref().is_some_and(|holder| holder.id == self.me.id)
            || planted::is(Bug::LostTermGoesOn);
        if leads { self.write(self.state.term, body, until).await } else { Ok(Written::Lost) }
    }

    async fn write(&mut self, term: Term, body: Body, until: Instant) -> Result<Written, LogError> {
        let record = Record {
            format: FORMAT,
            seq: self.state.next(),
            nonce: Uuid::new_v4(),
            previous: self.state.newest,
            term,
            holder: Some(self.me.clone()),
            body,
            wall_time: wall_time(),
        };
        let text = encode(&path_of(record.seq), &record)?;
        loop {
            let error = match self.try_write(&record, &text).await {
                Ok(Some(written)) => return Ok(written),
                // Refused, and nothing is there: two creations met, and neither was done.
                Ok(None) => None,
                Err(error) if error.is_passing() => Some(error),
                Err(error) => return Err(error),
            };
            if Instant::now() >= until {
                return Ok(Written::Unknown);
            }
            // The same number with the same nonce is safe to try again, whatever became of the try before.
            let error = error.map_or_else(|| "refused, but not there".to_owned(), |error| error.to_string());
            tracing::debug!(%error, seq = record.seq, "cannot write to the log yet");
            sleep(RETRY_PAUSE).await;
        }
    }

    /// None: nothing is there yet.
    async fn try_write(&mut self, record: &Record, text: &[u8]) -> Result<Option<Written>, LogError> {
        let path = path_of(record.seq);
        let is_ours = match self.store.create(&path, text.to_vec()).await {
            Ok(Created::Done) => true,
            Ok(Created::Exists) if planted::is(Bug::ExistingTakenForOwn) => true,
            Err(_) if planted::is(Bug::AmbiguousAppendDone) => true,
            // Whatever the answer was, the nonce tells.
            Ok(Created::Exists) | Err(_) => match read(&self.store, record.seq).await? {
                Some(found) => found.nonce == record.nonce,
                None => return Ok(None),
            },
        };
        if !is_ours {
            return self.beaten().await;
        }
        if planted::is(Bug::RecreatedRecordBelieved) {
            return self.take([record.clone()]).map(|()| Some(Written::Won));
        }
        // The number may have been removed, long ago, and only now made again: then there are later ones that do not
        // follow this.
        match gather(&self.store, (record.seq, Some(record.nonce))).await? {
            Some(later) => {
                self.take([record.clone()].into_iter().chain(later))?;
                Ok(Some(Written::Won))
            }
            None => self.beaten().await,
        }
    }

    /// Another one has this number.
    async fn beaten(&mut self) -> Result<Option<Written>, LogError> {
        match self.read_anew().await {
            Err(error) if !error.is_passing() => Err(error),
            // What cannot be read now is read by the next look.
            _ => Ok(Some(Written::Lost)),
        }
    }

    async fn read_anew(&mut self) -> Result<(), LogError> {
        self.state = read_all(&self.store).await?.0;
        Ok(())
    }

    fn take(&mut self, records: impl IntoIterator<Item = Record>) -> Result<(), LogError> {
        for record in records {
            self.state.take(&record)?;
        }
        Ok(())
    }

    /// Removes records below this number that nobody needs: not the newest [`KEPT`], the claim of the present term, the newest
    /// view of each chain, nor views that are younger than `history`. Brings how many it removed; more may be left.
    pub async fn prune(&mut self, below: u64, history: Duration) -> Result<usize, LogError> {
        let end = below.min((self.state.last + 1).saturating_sub(KEPT));
        let mut doomed = Vec::new();
        for path in self.store.list_after(FOLDER, FOLDER).await? {
            let seq = number_of(&path)?;
            if seq < end && !self.is_needed(seq, history) {
                doomed.push(seq);
            }
        }
        doomed.truncate(REMOVALS_MAX);
        for some in doomed.chunks(REMOVALS_AT_ONCE) {
            let paths: Vec<String> = some.iter().map(|seq| path_of(*seq)).collect();
            try_join_all(paths.iter().map(|path| self.store.delete(path))).await?;
        }
        for seq in &doomed {
            self.state.written.remove(seq);
        }
        Ok(doomed.len())
    }

    fn is_needed(&self, seq: u64, history: Duration) -> bool {
        if planted::is(Bug::NeededRecordRemoved) {
            return false;
        }
        let is_young = |time: &String| {
            let time = humantime::parse_rfc3339(time).ok();
            let age = time.and_then(|time| SystemTime::now().duration_since(time).ok());
            // What has no age is from a clock that is ahead of this one.
            age.is_none_or(|age| age < history)
        };
        seq == self.state.claim
            || self.state.places.values().any(|place| place.seq == seq)
            || self.state.written.get(&seq).is_some_and(is_young)
    }
}

/// All views that the log has, of all chains, oldest first. Needs no coordinator.
pub async fn history(store: &Store) -> Result<Vec<Entry>, LogError> {
    let (state, records) = read_all(store).await?;
    let mut entries: Vec<Entry> = state::history(&records, &state.places).filter_map(entry).collect();
    entries.sort_by_key(|entry| entry.seq);
    Ok(entries)
}

fn entry(record: &Record) -> Option<Entry> {
    let Record { seq, term, holder, body, wall_time, .. } = record.clone();
    match body {
        Body::View { view, .. } => Some(Entry { seq, term, holder, wall_time, view }),
        _ => None,
    }
}

async fn read(store: &Store, seq: u64) -> Result<Option<Record>, LogError> {
    let path = path_of(seq);
    let Some(bytes) = store.get(&path).await? else { return Ok(None) };
    let record: Record = decode(&path, &bytes)?;
    if record.seq != seq {
        return Err(corrupt(seq, &format!("it says that it is number {}", record.seq)));
    }
    match record.wrong() {
        Some(wrong) => Err(corrupt(seq, wrong)),
        None => Ok(Some(record)),
    }
}

/// The records after this one, each linked to the one before, up to what is the newest when they have been read. None: what
/// comes after does not follow it, so that it is none of the log's.
async fn gather(store: &Store, after: (u64, Option<Uuid>)) -> Result<Option<Vec<Record>>, LogError> {
    let (mut last, mut nonce) = after;
    let mut records = Vec::new();
    loop {
        let later = store.list_after(FOLDER, &path_of(last)).await?;
        if later.is_empty() {
            return Ok(Some(records));
        }
        for path in later {
            let seq = number_of(&path)?;
            let record = if seq == last + 1 { read(store, seq).await? } else { None };
            let Some(record) = record.filter(|record| record.previous == nonce) else { return Ok(None) };
            (last, nonce) = (seq, Some(record.nonce));
            records.push(record);
        }
    }
}

/// All records, and what they say together.
async fn read_all(store: &Store) -> Result<(State, BTreeMap<u64, Record>), LogError> {
    let mut readings = 0;
    loop {
        readings += 1;
        // It may change while it is read: then what is read seems damaged.
        match try_read_all(store).await {
            Ok(Some(read)) => return Ok(read),
            Err(error) if error.is_passing() || readings >= READINGS_MAX => return Err(error),
            Ok(None) | Err(_) => {}
        }
        if readings >= READINGS_MAX {
            return Err(LogError::corrupt(FOLDER, "its newest records do not follow each other".to_owned()));
        }
    }
}

async fn try_read_all(store: &Store) -> Result<Option<(State, BTreeMap<u64, Record>)>, LogError> {
    let names = store.list_after(FOLDER, FOLDER).await?;
    let numbers = names.iter().map(|name| number_of(name)).collect::<Result<Vec<_>, _>>()?;
    let reads = stream::iter(numbers).map(|seq| read(store, seq)).buffered(READS_AT_ONCE);
    let records: Vec<Option<Record>> = reads.try_collect().await?;
    let mut records: BTreeMap<u64, Record> =
        records.into_iter().flatten().map(|record| (record.seq, record)).collect();
    let mut state = State::rebuild(&records)?;
    let Some(later) = gather(store, (state.last, state.newest)).await? else { return Ok(None) };
    for record in later {
        state.take(&record)?;
        records.insert(record.seq, record);
    }
    Ok(Some((state, records)))
}

/// The cluster's id: read, or made once for an empty log.
async fn found(store: &Store, is_empty: bool) -> Result<ClusterId, LogError> {
    if let Some(bytes) = store.get(CLUSTER).await? {
        return Ok(decode::<ClusterRecord>(CLUSTER, &bytes)?.cluster_id);
    }
    if !is_empty {
        return Err(LogError::corrupt(CLUSTER, "it is missing, though the log has records".to_owned()));
    }
    let cluster_id = ClusterId(Uuid::new_v4());
    let record = ClusterRecord { format: 1, cluster_id, created: wall_time() };
    // Another coordinator may have been first: what is there counts.
    store.create(CLUSTER, encode(CLUSTER, &record)?).await?;
    match store.get(CLUSTER).await? {
        Some(bytes) => Ok(decode::<ClusterRecord>(CLUSTER, &bytes)?.cluster_id),
        None => Err(LogError::corrupt(CLUSTER, "it vanished".to_owned())),
    }
}
