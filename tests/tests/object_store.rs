//! Does the log hold on a store that speaks S3, by the client that is shipped, whatever the store does?
//!
//! `CRAQ_TEST_LOCATION` runs the first test on another store too, by the client that is shipped for it; the bucket must be there,
//! and credentials come from the environment as they do for a coordinator. S3 by `moto`, from PyPI:
//!
//! ```sh
//! moto_server -p 5000 & curl -X PUT localhost:5000/craq-test
//! AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret CRAQ_TEST_LOCATION=s3://craq-test \
//!     CRAQ_TEST_ENDPOINT=http://localhost:5000 cargo test -p craq-tests --test object_store
//! ```
//!
//! Azure by `azurite` and `@azure/storage-blob`, from npm. With `CRAQ_TEST_ENDPOINT` too, and the account's variables instead of
//! the first one, it is reached as another Azure would be:
//!
//! ```sh
//! npx azurite-blob --inMemoryPersistence --skipApiVersionCheck --disableTelemetry &
//! node -e "require('@azure/storage-blob').BlobServiceClient \
//!     .fromConnectionString('UseDevelopmentStorage=true').createContainer('craq-test')"
//! AZURE_STORAGE_USE_EMULATOR=true CRAQ_TEST_LOCATION=az://craq-test cargo test -p craq-tests --test object_store
//! ```
//!
//! Google Cloud Storage (`gs://`) has no emulator that honours the condition of a creation.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is how it fails")]

use std::{sync::Arc, time::Duration};

use craq_log::{Holder, Location, Log, ProbeError, Store, Written, history, probe};
use craq_proto::{Epoch, HolderId, Incarnation, Member, NodeId, Term, View};
use craq_tests::s3::{Fault, S3};
use object_store::{BackoffConfig, ClientOptions, RetryConfig, aws::AmazonS3Builder, prefix::PrefixStore};
use tokio::time::Instant;
use uuid::Uuid;

/// One operation of the store.
const PATIENCE: Duration = Duration::from_millis(400);

fn store(endpoint: &str, prefix: &str) -> Store {
    // As shipped, save for the credentials, which that takes from the environment; it sets up TLS for the process.
    "s3://craq-test".parse::<Location>().unwrap().open(Some(endpoint), PATIENCE).unwrap();
    let backoff = BackoffConfig { init_backoff: PATIENCE / 20, ..BackoffConfig::default() };
    let retry = RetryConfig { backoff, max_retries: 2, retry_timeout: PATIENCE / 2 };
    let s3 = AmazonS3Builder::new()
        .with_bucket_name("craq-test")
        .with_endpoint(endpoint)
        .with_access_key_id("key")
        .with_secret_access_key("secret")
        .with_client_options(ClientOptions::new().with_timeout(PATIENCE * 2).with_allow_http(true))
        .with_retry(retry)
        .with_disable_bulk_delete(true)
        .build()
        .unwrap();
    Store::new(Arc::new(PrefixStore::new(s3, prefix)), PATIENCE)
}

async fn open(store: &Store, author: u128) -> Log {
    let me = Holder { id: HolderId(Uuid::from_u128(author)), address: format!("localhost:{author}") };
    Log::open(store.clone(), me, Duration::from_secs(2)).await.unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(3)
}

fn view(epoch: u64) -> View {
    let member = Member {
        node: NodeId(Uuid::from_u128(1)),
        incarnation: Incarnation(1),
        in_sync: true,
        address: "localhost:1".to_owned(),
    };
    View {
        chain: "default".parse().unwrap(),
        epoch: Epoch(epoch),
        members: vec![member],
        learners: Vec::new(),
        rebuilt_in: Epoch::ZERO,
        expelled: Vec::new(),
        reason: "a test".to_owned(),
    }
}

/// Leads, is succeeded, and remembers.
async fn lives(store: &Store) {
    probe(store).await.unwrap();
    let (mut old, mut new) = (open(store, 1).await, open(store, 2).await);
    assert_eq!(old.cluster(), new.cluster());
    assert_eq!(old.claim(soon()).await.unwrap(), Written::Won);
    for epoch in 1..=3 {
        assert_eq!(old.append(view(epoch), soon()).await.unwrap(), Written::Won);
    }
    new.catch_up().await.unwrap();
    assert_eq!(new.claim(soon()).await.unwrap(), Written::Won);
    assert_eq!(old.append(view(4), soon()).await.unwrap(), Written::Lost);
    for _ in 0..50 {
        assert_eq!(new.renew(soon()).await.unwrap(), Written::Won);
    }
    assert!(new.prune(40, Duration::from_secs(60)).await.unwrap() > 10);
    let again = open(store, 3).await;
    assert_eq!((again.seen(), again.views().next()), (new.seen(), new.views().next()));
    assert_eq!(history(store).await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_follow_each_other_on_a_store_that_speaks_s3() {
    let s3 = S3::start(false).await;
    lives(&store(&s3.endpoint, "a/b")).await;
    assert!(!s3.names().iter().any(|name| name.contains("probe")), "the probe has left something behind");
    s3.list_all();
    lives(&store(&s3.endpoint, "lists/all")).await;
    if let Ok(place) = std::env::var("CRAQ_TEST_LOCATION") {
        let location: Location = format!("{place}/{}/a", Uuid::new_v4()).parse().unwrap();
        let endpoint = std::env::var("CRAQ_TEST_ENDPOINT").ok();
        lives(&location.open(endpoint.as_deref(), PATIENCE * 5).unwrap()).await;
        println!("{location} is sound");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_store_answers_the_nonce_tells() {
    for fault in [Fault::DoneThen500, Fault::Refused500, Fault::DoneThenSilence, Fault::Conflict] {
        for times in [1, 4] {
            let s3 = S3::start(false).await;
            let store = store(&s3.endpoint, &Uuid::new_v4().to_string());
            let mut log = open(&store, 1).await;
            assert_eq!(log.claim(soon()).await.unwrap(), Written::Won);
            s3.expect(std::iter::repeat_n(fault, times));
            assert_eq!(log.append(view(1), soon()).await.unwrap(), Written::Won, "{fault:?} {times} times");
            assert_eq!(log.append(view(2), soon()).await.unwrap(), Written::Won);
            assert_eq!(open(&store, 2).await.seen().records, 3);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_lands_after_a_takeover_changes_nothing() {
    let s3 = S3::start(false).await;
    let store = store(&s3.endpoint, "late");
    let (mut old, mut new) = (open(&store, 1).await, open(&store, 2).await);
    assert_eq!(old.claim(soon()).await.unwrap(), Written::Won);
    s3.expect([Fault::Late(Duration::from_millis(1_500))]);
    let until = Instant::now();
    assert_eq!(old.append(view(1), until).await.unwrap(), Written::Unknown);
    new.catch_up().await.unwrap();
    assert_eq!(new.claim(soon()).await.unwrap(), Written::Won);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(old.append(view(1), soon()).await.unwrap(), Written::Lost);
    assert_eq!((old.seen().term, old.views().count()), (Term(2), 0));
    assert_eq!(history(&store).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_ignores_the_condition_is_refused_in_clear_words() {
    let s3 = S3::start(true).await;
    let refused = probe(&store(&s3.endpoint, "any")).await.unwrap_err();
    assert!(matches!(refused, ProbeError::NotConditional), "{refused}");
    assert!(refused.to_string().contains("If-None-Match"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_lets_two_creations_win_is_refused_in_clear_words() {
    let s3 = S3::start(false).await;
    // The first two are one after the other; of those that meet, the second does not see the first.
    s3.expect([Fault::None, Fault::None, Fault::None, Fault::Unconditional]);
    let refused = probe(&store(&s3.endpoint, "any")).await.unwrap_err();
    assert!(matches!(refused, ProbeError::NotAtomic(2)), "{refused}");
    assert!(refused.to_string().contains("are not atomic"), "{refused}");
    assert_eq!(s3.names(), Vec::<String>::new(), "the probe has left something behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_store_is_not_refused_for_a_bad_moment() {
    let s3 = S3::start(false).await;
    let store = store(&s3.endpoint, "any");
    for fault in [Fault::DoneThen500, Fault::Refused500, Fault::DoneThenSilence, Fault::Conflict] {
        // The first creation, the one that is to be refused, one of those that meet.
        for after in 0..=2 {
            s3.expect(std::iter::repeat_n(Fault::None, after).chain([fault]));
            let judged = probe(&store).await;
            assert!(judged.is_ok(), "{fault:?} after {after} creations: {}", judged.unwrap_err());
        }
        // All that meet.
        s3.expect([Fault::None; 2].into_iter().chain([fault; 8]));
        let judged = probe(&store).await;
        assert!(judged.is_ok(), "{fault:?} for all that meet: {}", judged.unwrap_err());
        s3.expect_nothing();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_said_to_be_one() {
    let s3 = S3::start(false).await;
    let store = store(&s3.endpoint, "out");
    let mut log = open(&store, 1).await;
    assert_eq!(log.claim(soon()).await.unwrap(), Written::Won);
    s3.out(true);
    let until = Instant::now() + Duration::from_secs(1);
    assert_eq!(log.renew(until).await.unwrap(), Written::Unknown);
    assert!(until.elapsed() < PATIENCE * 4, "an operation that began in time ends in time");
    assert!(log.catch_up().await.unwrap_err().is_passing());
    s3.out(false);
    assert_eq!(log.renew(soon()).await.unwrap(), Written::Won);
}
