//! Does the log remember everything, does each record have one writer, and is damage noticed?
#![expect(clippy::unwrap_used, reason = "in a test, a panic is how it fails")]

use std::{
    fmt, fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use craq_coordinator::log::{Appended, Log, LogError};
use craq_proto::{ChainId, Epoch, Incarnation, Member, NodeId, View};
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory,
    path::Path as StorePath,
};
use uuid::Uuid;

fn view(chain: &str, epoch: u64, author: u128) -> View {
    let member = Member {
        node: NodeId(Uuid::from_u128(author)),
        incarnation: Incarnation(1),
        in_sync: true,
        address: "localhost:1".to_owned(),
    };
    View {
        chain: chain.parse().unwrap(),
        epoch: Epoch(epoch),
        members: vec![member],
        learners: Vec::new(),
        rebuilt_in: Epoch::ZERO,
        reason: format!("by {author}"),
    }
}

async fn open(path: &Path) -> Log {
    Log::open_directory(path).await.unwrap()
}

async fn three_records(path: &Path) {
    let mut log = open(path).await;
    for view in [view("default", 1, 1), view("default", 2, 1), view("other", 1, 1)] {
        assert_eq!(log.append(view).await.unwrap(), Appended::Written);
    }
}

fn record(path: &Path, seq: u64) -> std::path::PathBuf {
    path.join(format!("log/{seq:020}"))
}

#[tokio::test]
async fn a_log_that_is_opened_again_knows_the_cluster_and_the_newest_view_of_each_chain() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("made/here");
    let cluster = open(&path).await.cluster();
    three_records(&path).await;
    let log = open(&path).await;
    assert_eq!(log.cluster(), cluster);
    let views: Vec<View> = log.views().cloned().collect();
    assert_eq!(views, [view("default", 2, 1), view("other", 1, 1)]);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

/// Writes views of one chain until it has won `wins` times; on defeat it decides anew on what it then knows.
async fn write(mut log: Log, author: u128, wins: usize) {
    let mut won = 0;
    while won < wins {
        let known = log.views().find(|view| view.chain == ChainId::default_chain()).map(|view| view.epoch);
        let next = known.unwrap_or_default().next();
        match log.append(view("default", next.0, author)).await.unwrap() {
            Appended::Written => won += 1,
            Appended::Beaten => {
                let newest = log.views().next().unwrap();
                assert!(newest.epoch >= next && newest.reason != format!("by {author}"));
            }
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_coordinators_on_one_directory_each_epoch_has_one_author() {
    let data = tempfile::tempdir().unwrap();
    let (first, second) = (open(data.path()).await, open(data.path()).await);
    assert_eq!(first.cluster(), second.cluster());
    let first = tokio::spawn(write(first, 1, 40));
    let second = tokio::spawn(write(second, 2, 40));
    first.await.unwrap();
    second.await.unwrap();
    // Opening checks that records follow each other and that no epoch is missing or written twice.
    let log = open(data.path()).await;
    assert_eq!(log.views().next().unwrap().epoch, Epoch(80));
}

#[tokio::test]
async fn a_view_of_another_chain_in_between_is_no_defeat() {
    let data = tempfile::tempdir().unwrap();
    let (mut first, mut second) = (open(data.path()).await, open(data.path()).await);
    assert_eq!(first.append(view("other", 1, 1)).await.unwrap(), Appended::Written);
    assert_eq!(second.append(view("default", 1, 2)).await.unwrap(), Appended::Written);
    assert_eq!(first.append(view("default", 1, 1)).await.unwrap(), Appended::Beaten);
    assert!(first.views().any(|view| view.reason == "by 2"));
}

#[tokio::test]
async fn damage_is_refused_with_the_name_of_the_record() {
    type Damage = fn(&Path);
    let damages: [(Damage, &str, &str); 7] = [
        (|path| fs::write(record(path, 2), "{").unwrap(), "00000000000000000002", "EOF"),
        (|path| fs::remove_file(record(path, 2)).unwrap(), "00000000000000000002", "missing"),
        (
            |path| assert!(fs::copy(record(path, 1), record(path, 4)).is_ok()),
            "00000000000000000004",
            "number 1",
        ),
        (
            |path| assert!(fs::copy(record(path, 1), record(path, 2)).is_ok()),
            "00000000000000000002",
            "number 1",
        ),
        (|path| fs::write(path.join("log/readme"), "").unwrap(), "log/readme", "name"),
        (|path| fs::remove_file(path.join("cluster")).unwrap(), "cluster", "missing"),
        (
            |path| {
                let text = fs::read_to_string(record(path, 3)).unwrap();
                let nonce = text.find("\"previous\": \"").unwrap() + 13;
                let other = format!("{}{}{}", &text[..nonce], Uuid::nil(), &text[nonce + 36..]);
                fs::write(record(path, 3), other).unwrap();
            },
            "00000000000000000003",
            "follows another record",
        ),
    ];
    for (damage, name, what) in damages {
        let data = tempfile::tempdir().unwrap();
        three_records(data.path()).await;
        damage(data.path());
        let error = Log::open_directory(data.path()).await.expect_err("damage is noticed");
        assert!(matches!(error, LogError::Corrupt { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(what), "{text}");
    }
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let data = tempfile::tempdir().unwrap();
    three_records(data.path()).await;
    fs::write(record(data.path(), 4), r#"{"format": 2, "what": "nobody knows"}"#).unwrap();
    let error = Log::open_directory(data.path()).await.expect_err("a newer format is refused");
    assert!(matches!(error, LogError::NewerFormat { found: 2, .. }), "{error}");
}

/// A store that does what it is told and then says that it failed, so many times.
#[derive(Debug)]
struct Ambiguous {
    store: InMemory,
    lies: AtomicUsize,
}

impl fmt::Display for Ambiguous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ambiguous")
    }
}

#[tonic::async_trait]
impl ObjectStore for Ambiguous {
    async fn put_opts(
        &self,
        path: &StorePath,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let result = self.store.put_opts(path, payload, options).await?;
        let lies = self.lies.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |lies| lies.checked_sub(1));
        match lies {
            Ok(_) => Err(object_store::Error::Generic { store: "ambiguous", source: "timeout".into() }),
            Err(_) => Ok(result),
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &StorePath,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &StorePath, options: GetOptions) -> Result<GetResult> {
        self.store.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<StorePath>>,
    ) -> BoxStream<'static, Result<StorePath>> {
        self.store.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&StorePath>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&StorePath>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &StorePath, to: &StorePath, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_record_that_was_written_though_the_store_said_otherwise_is_ours_and_written_once() {
    let store = Arc::new(Ambiguous { store: InMemory::new(), lies: AtomicUsize::new(0) });
    let mut log = Log::open(Arc::clone(&store) as Arc<dyn ObjectStore>).await.unwrap();
    store.lies.store(1, Ordering::SeqCst);
    assert_eq!(log.append(view("default", 1, 1)).await.unwrap(), Appended::Written);
    assert_eq!(log.append(view("default", 2, 1)).await.unwrap(), Appended::Written);
    let again = Log::open(store).await.unwrap();
    assert_eq!(again.views().next().unwrap().epoch, Epoch(2));
}
