//! The log of views: numbered records that are only ever created, in an object store or a local directory.
//!
//! `cluster` is created once and names the cluster. `log/00000000000000000001` and so on hold one view each. The only
//! primitives are create-if-absent, get and list, so it works wherever those are atomic; two coordinators on one
//! store are harmless, since each number has one winner and the loser reads on before it decides anew. A record names
//! the one before it, so a log that was put together from two is noticed. Nothing is ever changed or deleted.
//! It decides nothing: what a view should be is [`crate::cluster`]'s affair.

use std::{
    collections::BTreeMap, fs::DirBuilder, os::unix::fs::DirBuilderExt, path, sync::Arc, time::Duration,
};

use craq_proto::{
    ChainId, ClusterId, View,
    planted::{self, Bug},
};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, local::LocalFileSystem, path::Path};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// One operation of the store takes no longer, or it counts as failed.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// A record that cannot be written for so long is given up, and the coordinator stops.
pub const APPEND_PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries to write a record.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// So many records are read at once when the log is opened.
const READS_AT_ONCE: usize = 16;

/// Why the log cannot be used. Not retryable: the coordinator stops, and an operator looks.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The directory cannot be made or opened.
    #[error("cannot use the directory {path}: {source}")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store failed.
    #[error("the store failed at {path}: {source}")]
    Store {
        /// The object.
        path: String,
        /// Why.
        source: object_store::Error,
    },
    /// The store did not answer in time.
    #[error("the store did not answer within {}s at {path}", STORE_TIMEOUT.as_secs())]
    Timeout {
        /// The object.
        path: String,
    },
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

/// What became of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// The view is in the log.
    Written,
    /// The view is not in the log and never will be: another coordinator wrote a view of this chain before.
    Beaten,
}

#[derive(Serialize, Deserialize)]
struct ClusterRecord {
    format: u32,
    cluster_id: ClusterId,
    /// For people only.
    created: String,
}

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    seq: u64,
    /// Tells whose record it is when creating it ended without a clear answer.
    nonce: Uuid,
    /// The nonce of the record before; none in the first.
    previous: Option<Uuid>,
    #[serde(flatten)]
    body: Body,
    /// For people only.
    wall_time: String,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Body {
    /// A chain's next view.
    View { view: View },
}

/// The log, open, and what stands in it.
#[derive(Debug)]
pub struct Log {
    store: Arc<dyn ObjectStore>,
    cluster: ClusterId,
    /// The number of the next record.
    next: u64,
    /// The nonce of the newest record.
    newest: Option<Uuid>,
    views: BTreeMap<ChainId, View>,
}

impl Log {
    /// Opens the log in a directory, which is made if it does not exist (mode 0700).
    pub async fn open_directory(path: &path::Path) -> Result<Self, LogError> {
        let failed = |source| LogError::Directory { path: path.display().to_string(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| failed(e.into()))?;
        let store = LocalFileSystem::new_with_prefix(path).map_err(|e| failed(e.into()))?.with_fsync(true);
        Self::open(Arc::new(store)).await
    }

    /// Opens the log in a store: reads all of it, or founds a cluster in an empty one.
    pub async fn open(store: Arc<dyn ObjectStore>) -> Result<Self, LogError> {
        let records = count(&*store).await?;
        let cluster = cluster(&*store, records == 0).await?;
        let mut log = Self { store, cluster, next: 1, newest: None, views: BTreeMap::new() };
        let reads = stream::iter(1..=records).map(|seq| log.read(seq)).buffered(READS_AT_ONCE);
        let records: Vec<Option<Record>> = reads.try_collect().await?;
        for record in records {
            match record {
                Some(record) => log.take(record)?,
                None => return Err(corrupt(log.next, "it is missing, though later ones are there")),
            }
        }
        log.catch_up().await?;
        let (records, cluster) = (log.next - 1, log.cluster);
        tracing::info!(%cluster, records, "opened the log");
        for view in log.views.values() {
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

    /// The newest view of each chain, as far as the log has been read.
    pub fn views(&self) -> impl Iterator<Item = &View> {
        self.views.values()
    }

    /// Writes the next view of a chain. Durable when it returns `Written`. After `Beaten` [`Log::views`] has the
    /// newest ones. Tries again while the store fails, up to [`APPEND_PATIENCE`].
    pub async fn append(&mut self, view: View) -> Result<Appended, LogError> {
        let until = Instant::now() + APPEND_PATIENCE;
        let mut nonce = Uuid::new_v4();
        loop {
            let newest = self.views.get(&view.chain).map(|view| view.epoch).unwrap_or_default();
            if newest.next() != view.epoch {
                return Ok(Appended::Beaten);
            }
            match self.try_append(nonce, &view).await {
                Ok(true) => return Ok(Appended::Written),
                Ok(false) => {
                    self.catch_up().await?;
                    nonce = Uuid::new_v4();
                }
                Err(error @ (LogError::Store { .. } | LogError::Timeout { .. }))
                    if Instant::now() < until =>
                {
                    // Whether the record is there is unknown. The same number with the same nonce is safe to try.
                    tracing::warn!(%error, chain = %view.chain, epoch = %view.epoch, "cannot write to the log yet");
                    sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what other coordinators have written since.
    pub async fn catch_up(&mut self) -> Result<(), LogError> {
        while let Some(record) = self.read(self.next).await? {
            self.take(record)?;
        }
        Ok(())
    }

    /// True: the record is there and it is ours. False: another one has its number.
    async fn try_append(&mut self, nonce: Uuid, view: &View) -> Result<bool, LogError> {
        let record = Record {
            format: FORMAT,
            seq: self.next,
            nonce,
            previous: self.newest,
            body: Body::View { view: view.clone() },
            wall_time: now(),
        };
        let created = match create(&*self.store, &record_path(self.next), &record).await {
            Err(_) if planted::is(Bug::AmbiguousAppendDone) => true,
            created => created?,
        };
        if !created {
            let found = self.read(self.next).await?;
            if found.is_none_or(|found| found.nonce != nonce) {
                return Ok(false);
            }
        }
        self.take(record)?;
        Ok(true)
    }

    async fn read(&self, seq: u64) -> Result<Option<Record>, LogError> {
        get(&*self.store, &record_path(seq)).await
    }

    /// Checks that the record is the next one, and takes it over.
    fn take(&mut self, record: Record) -> Result<(), LogError> {
        if record.seq != self.next {
            return Err(corrupt(self.next, &format!("it says that it is number {}", record.seq)));
        }
        if record.previous != self.newest {
            return Err(corrupt(self.next, "it follows another record than the one before it"));
        }
        let Body::View { view } = record.body;
        let newest = self.views.get(&view.chain).map(|view| view.epoch).unwrap_or_default();
        view.check().map_err(|wrong| corrupt(self.next, wrong))?;
        if view.epoch != newest.next() {
            let text = format!("epoch {} of chain {} does not follow epoch {newest}", view.epoch, view.chain);
            return Err(corrupt(self.next, &text));
        }
        self.views.insert(view.chain.clone(), view);
        self.newest = Some(record.nonce);
        self.next += 1;
        Ok(())
    }
}

fn record_path(seq: u64) -> Path {
    Path::from(format!("log/{seq:020}"))
}

fn corrupt(seq: u64, what: &str) -> LogError {
    LogError::Corrupt { path: record_path(seq).to_string(), what: what.to_owned() }
}

fn now() -> String {
    humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string()
}

/// How many records there are. Objects that are no records are an error: the directory is somebody else's.
async fn count(store: &dyn ObjectStore) -> Result<u64, LogError> {
    let list = store.list(Some(&Path::from("log"))).try_collect::<Vec<_>>();
    let objects = bounded(&Path::from("log"), list).await?;
    let mut last = 0;
    for object in objects {
        let number =
            object.location.filename().filter(|name| name.len() == 20).and_then(|name| name.parse().ok());
        let Some(number) = number.filter(|number| *number > 0) else {
            let what = "its name is no record's: is this a coordinator's directory?".to_owned();
            return Err(LogError::Corrupt { path: object.location.to_string(), what });
        };
        last = last.max(number);
    }
    Ok(last)
}

/// The cluster's id: read, or made once for an empty log.
async fn cluster(store: &dyn ObjectStore, empty: bool) -> Result<ClusterId, LogError> {
    let path = Path::from("cluster");
    if let Some(record) = get::<ClusterRecord>(store, &path).await? {
        return Ok(record.cluster_id);
    }
    if !empty {
        let what = "it is missing, though the log has records".to_owned();
        return Err(LogError::Corrupt { path: path.to_string(), what });
    }
    let record = ClusterRecord { format: FORMAT, cluster_id: ClusterId(Uuid::new_v4()), created: now() };
    create(store, &path, &record).await?;
    match get::<ClusterRecord>(store, &path).await? {
        Some(record) => Ok(record.cluster_id),
        None => Err(LogError::Corrupt { path: path.to_string(), what: "it vanished".to_owned() }),
    }
}

/// False: the object exists already.
async fn create<T: Serialize>(store: &dyn ObjectStore, path: &Path, record: &T) -> Result<bool, LogError> {
    let bytes = serde_json::to_vec_pretty(record)
        .map_err(|e| LogError::Corrupt { path: path.to_string(), what: e.to_string() })?;
    let is_planted = planted::is(Bug::UnconditionalPut);
    let mode = if is_planted { PutMode::Overwrite } else { PutMode::Create };
    match bounded(path, store.put_opts(path, bytes.into(), mode.into())).await {
        Ok(_) => Ok(true),
        Err(LogError::Store { source: object_store::Error::AlreadyExists { .. }, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// None: there is no such object.
async fn get<T: DeserializeOwned>(store: &dyn ObjectStore, path: &Path) -> Result<Option<T>, LogError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let bytes = match bounded(path, async { store.get(path).await?.bytes().await }).await {
        Ok(bytes) => bytes,
        Err(LogError::Store { source: object_store::Error::NotFound { .. }, .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let corrupt = |e: serde_json::Error| LogError::Corrupt { path: path.to_string(), what: e.to_string() };
    let Format { format } = serde_json::from_slice(&bytes).map_err(corrupt)?;
    if format > FORMAT {
        return Err(LogError::NewerFormat { path: path.to_string(), found: format });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(corrupt)
}

/// The operation's result, or an error when it takes too long.
async fn bounded<T>(
    path: &Path,
    operation: impl Future<Output = Result<T, object_store::Error>>,
) -> Result<T, LogError> {
    match timeout(STORE_TIMEOUT, operation).await {
        Ok(result) => result.map_err(|source| LogError::Store { path: path.to_string(), source }),
        Err(_) => Err(LogError::Timeout { path: path.to_string() }),
    }
}
