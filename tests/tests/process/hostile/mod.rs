//! Do node and coordinator stand what no correct client sends, and are the others served all the while?
//!
//! [`requests`] makes malformed calls, [`frames`] abuses HTTP/2 below them. What must hold in the end is the same for all:
//! the processes live, have not panicked, have not grown, and no honest call has failed.

mod frames;
mod requests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use craq_client::{Client, Options};
use craq_tests::process::{Cluster, NodeSpec, Store, wait::wait_for};
use futures::future::join_all;
use tokio::task::JoinHandle;

use crate::support::{cluster, figure, number, turn};

/// A process may have grown so much in the end, in KiB.
const GROWTH_KIB_MAX: u64 = 64 * 1024;
/// An honest call takes no longer.
const HONEST_PATIENCE: Duration = Duration::from_secs(5);
/// An attacker's connection lives no longer, once the attack is over its first move.
const CLOSED_WITHIN: Duration = Duration::from_secs(30);

/// Honest clients, and what the processes were before the attack.
struct Witness {
    before: Vec<(u32, u64)>,
    stop: Arc<AtomicBool>,
    honest: Vec<JoinHandle<(usize, Duration)>>,
}

impl Witness {
    async fn new(cluster: &mut Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let addresses = [vec![cluster.coordinator_address().to_owned()], cluster.addresses()].concat();
        let lasting = cluster.client().await;
        let honest = vec![
            tokio::spawn(lasts(lasting, Arc::clone(&stop))),
            tokio::spawn(comes_anew(addresses, Arc::clone(&stop))),
        ];
        let before = pids(cluster).into_iter().map(|pid| (pid, rss_kib(pid))).collect();
        Self { before, stop, honest }
    }

    /// Ends the honest load and judges.
    async fn judge(self, cluster: &mut Cluster) {
        self.stop.store(true, Ordering::Relaxed);
        for honest in self.honest {
            let (calls, slowest) = honest.await.expect("an honest call failed");
            assert!(calls > 10, "only {calls} honest calls were made");
            figure("honest calls during an attack", format!("{calls}, slowest {} ms", slowest.as_millis()));
        }
        let pids: Vec<u32> = pids(cluster);
        assert!(pids.iter().eq(self.before.iter().map(|(pid, _)| pid)), "a process was started again");
        let panicked = |text: &str| text.contains("panicked") || text.contains("overflow");
        assert!(!panicked(&cluster.last_words()), "{}", cluster.last_words());
        assert!(!cluster.node(0).said("panicked") && !cluster.coordinator().said("panicked"));
        for (pid, before) in &self.before {
            let now = rss_kib(*pid);
            figure("growth of a process", format!("{} KiB, from {before}", now.saturating_sub(*before)));
            assert!(now.saturating_sub(*before) <= GROWTH_KIB_MAX, "{pid} grew from {before} to {now} KiB");
        }
        cluster.whole().await;
    }
}

fn pids(cluster: &mut Cluster) -> Vec<u32> {
    let mut pids = vec![cluster.coordinator().pid()];
    pids.extend((0..cluster.len()).map(|node| cluster.node(node).pid()));
    pids
}

/// Resident memory of a process.
fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A client that keeps its connections.
async fn lasts(client: Client, stop: Arc<AtomicBool>) -> (usize, Duration) {
    let (mut calls, mut slowest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        slowest = slowest.max(write_and_read(&client, "lasting", calls).await);
        calls += 2;
    }
    (calls, slowest)
}

/// A client that comes anew for every call.
async fn comes_anew(addresses: Vec<String>, stop: Arc<AtomicBool>) -> (usize, Duration) {
    let (mut calls, mut slowest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let client = Client::connect(addresses.clone()).await.expect("a new client is let in");
        slowest = slowest.max(write_and_read(&client, "new", calls).await);
        calls += 2;
    }
    (calls, slowest)
}

async fn write_and_read(client: &Client, key: &'static str, number: usize) -> Duration {
    let began = Instant::now();
    let options = Options::new().timeout(HONEST_PATIENCE);
    let value = number.to_string();
    client.write_with(key, value.clone(), &options).await.expect("an honest write");
    let read = client.read_with(key, &options).await.expect("an honest read");
    assert_eq!(read.value.as_deref(), Some(value.as_bytes()));
    tokio::task::yield_now().await;
    began.elapsed() / 2
}

async fn started() -> Cluster {
    cluster().nodes(2).store(Store::Memory).start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_malformed_requests_harm_nobody() {
    let _turn = turn().await;
    let mut cluster = started().await;
    let about = requests::About::of(&cluster).await;
    let witness = Witness::new(&mut cluster).await;
    let count = number("CRAQ_TEST_REQUESTS", 10_000);
    let address = cluster.address(0);
    let node = requests::attack(&address, &about, 1, count / 2);
    let coordinator = requests::attack(cluster.coordinator_address(), &about, 2, count / 2);
    let (node, coordinator) = tokio::join!(node, coordinator);
    figure("malformed requests at a node", &node);
    figure("malformed requests at the coordinator", &coordinator);
    assert!(node.answered > count / 4 && coordinator.answered > count / 4, "{node}; {coordinator}");
    assert_eq!((node.late, coordinator.late), (0, 0), "every request is answered or its connection closed");
    witness.judge(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abuse_of_http2_harms_nobody_and_ends() {
    let _turn = turn().await;
    let mut cluster = started().await;
    cluster.client().await.write(frames::LARGE_KEY, vec![b'v'; 1 << 20]).await.unwrap();
    let witness = Witness::new(&mut cluster).await;
    let targets = [cluster.address(0), cluster.coordinator_address().to_owned()];
    let attacks = targets.iter().map(|target| async move {
        let first = join_all(frames::Attack::ALL.map(|attack| frames::closed_after(target, attack)));
        let (closed, body, streams) =
            tokio::join!(first, frames::slow_body(target), frames::random_frames(target, 100));
        let slowest = closed.iter().map(|(_, after)| *after).max().unwrap_or_default();
        figure("abuse of HTTP/2 ended", format!("{closed:?}, slow body {body:?}, random frames {streams:?}"));
        slowest.max(body).max(streams)
    });
    let slowest = join_all(attacks).await.into_iter().max().unwrap_or_default();
    assert!(slowest < CLOSED_WITHIN, "an attacker's connection lived for {slowest:?}");
    witness.judge(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_silent_connections_harm_nobody_and_end() {
    let _turn = turn().await;
    let mut cluster = started().await;
    let witness = Witness::new(&mut cluster).await;
    let count = number("CRAQ_TEST_CONNECTIONS", 3_000);
    let targets = [cluster.address(0), cluster.coordinator_address().to_owned()];
    let all = targets.iter().map(|target| frames::silent_connections(target, count));
    for slowest in join_all(all).await {
        figure("silent connections closed after", format!("{slowest:?}"));
        assert!(slowest < CLOSED_WITHIN, "a silent connection lived for {slowest:?}");
    }
    witness.judge(&mut cluster).await;
}

/// The limit follows from the number of files that the process may have open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_limit_are_refused_and_those_that_are_there_go_on() {
    const FILES_MAX: usize = 400;
    const CONNECTIONS_MAX: usize = 200;
    let _turn = turn().await;
    let limited = |_: usize, spec: &mut NodeSpec| {
        spec.prefix = vec!["prlimit".into(), format!("--nofile={FILES_MAX}:{FILES_MAX}"), "--".into()];
    };
    let mut cluster = cluster().nodes(1).store(Store::Memory).each(limited).start().await;
    let client = cluster.client().await;
    client.write("before", "1").await.unwrap();
    let held = frames::hold_connections(&cluster.address(0), CONNECTIONS_MAX + 100).await;
    figure("connections that were taken", held.len());
    assert!((CONNECTIONS_MAX - 20..=CONNECTIONS_MAX).contains(&held.len()), "{} were taken", held.len());
    wait_for("a line in the log", HONEST_PATIENCE, async || {
        let said = cluster.node(0).times_said("refused connections");
        if said > 0 { Ok(()) } else { Err(cluster.last_words()) }
    })
    .await;
    for number in 0..20 {
        client.write("during", number.to_string()).await.expect("a connection that was there before goes on");
    }
    assert_eq!(cluster.node(0).times_said("refused connections"), 1, "{}", cluster.last_words());
    drop(held);
    let (address, options) = (cluster.address(0), Options::new().timeout(HONEST_PATIENCE));
    let late = wait_for("a new client", HONEST_PATIENCE, async || {
        Client::connect([address.clone()]).await.map_err(|error| error.to_string())
    });
    late.await.read_with("during", &options).await.expect("there is room again");
    cluster.whole().await;
}
