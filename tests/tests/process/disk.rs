//! Does a disk that fails take its node out, loudly and at once, and nothing else?

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use craq_tests::{
    load::{Load, Plan, is_pinned},
    process::{Cluster, NodeSpec, Store},
};

use crate::support::{cluster, figure, load_as, longest_gap, progress, turn, verdict};

const FAILING: usize = 0;
const VALUE_BYTES: usize = 32 * 1024;

/// Writes until the node's disk fails; checks its end and that the chain goes on; gives it a good disk again.
async fn until_the_disk_fails(
    what: &str,
    mut cluster: Cluster,
    spoil: impl FnOnce(),
    mend: impl FnOnce(&mut NodeSpec),
) -> Duration {
    let plan = Plan { value_bytes: VALUE_BYTES, own_keys: 20, shared_keys: 40, ..Plan::default() };
    let load = load_as(&cluster, plan).await;
    let from = load.recorder.now();
    let began = Instant::now();
    spoil();
    let exit = loud_end(&mut cluster, what).await;
    let ended = load.recorder.now();
    let lived_on = began.elapsed();
    assert_eq!(exit, Some(74), "a node whose disk fails ends with an I/O error");
    progress(&load, 20).await;
    let gap = longest_gap(&load.recorder.ops(), from, load.recorder.now());
    figure(&format!("{what}: the disk fails to writes going on elsewhere, at most"), format!("{gap:?}"));
    assert!(gap < Duration::from_secs(4), "writes stood still for {gap:?}");
    acknowledged_nothing_after(&load, &cluster, ended);
    mend(cluster.spec(FAILING));
    cluster.wipe(FAILING);
    cluster.start_node(FAILING);
    let (ops, counts) = verdict(&mut cluster, load).await;
    figure(&format!("{what}, history"), counts);
    let failed: Vec<_> = ops.iter().filter(|op| !op.is_ok() && !is_pinned(op)).take(3).collect();
    assert!(failed.is_empty(), "{failed:?}");
    lived_on
}

async fn loud_end(cluster: &mut Cluster, what: &str) -> Option<i32> {
    craq_tests::process::wait::wait_for(what, Duration::from_secs(60), async || {
        cluster.node(FAILING).exit().ok_or_else(|| "the node still runs".to_owned())
    })
    .await;
    let loud = cluster.node(FAILING).said("this node stops at once");
    assert!(loud, "it says why\n{}", cluster.node(FAILING).last_words());
    cluster.ended(FAILING, Duration::ZERO).await.code()
}

/// No reader that is bound to the node got an answer after its end.
fn acknowledged_nothing_after(load: &Load, cluster: &Cluster, ended: Duration) {
    let client = 200 + u32::try_from(FAILING).unwrap();
    let after = load.recorder.count(|op| op.client == client && op.is_ok() && op.invoked > ended);
    assert_eq!(after, 0, "{} answered after its end", cluster.address(FAILING));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_file_cannot_grow_stops_and_the_chain_goes_on() {
    let _turn = turn().await;
    let limited = |index: usize, spec: &mut NodeSpec| {
        if index == FAILING {
            // Beyond this size writes of the process fail (EFBIG), as they do on a full disk.
            let words = ["prlimit", "--fsize=12000000", "env", "--ignore-signal=XFSZ"];
            spec.prefix = words.map(str::to_owned).to_vec();
        }
    };
    let cluster = cluster().each(limited).start().await;
    until_the_disk_fails("a file that cannot grow", cluster, || (), |spec| spec.prefix.clear()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_is_full_stops_and_the_chain_goes_on() {
    full_disk(Store::Redb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_on_fjall_whose_disk_is_full_stops_and_the_chain_goes_on() {
    full_disk(Store::Fjall).await;
}

async fn full_disk(store: Store) {
    let _turn = turn().await;
    let disk = match SmallDisk::mount("12m") {
        Ok(disk) => disk,
        Err(why) => return println!("SKIPPED: a full disk needs the right to mount one: {why}"),
    };
    let file = disk.0.path().join("node");
    let small = move |index: usize, spec: &mut NodeSpec| {
        if index == FAILING {
            spec.file.clone_from(&file);
        }
    };
    let cluster = cluster().store(store).each(small).start().await;
    let elsewhere: PathBuf = cluster.dir().join("good");
    until_the_disk_fails("a full disk", cluster, || (), |spec| spec.file = elsewhere).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_answers_eio_stops_within_a_second_and_the_chain_goes_on() {
    failing_syncs(Store::Redb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_on_fjall_whose_disk_answers_eio_stops_within_a_second_and_the_chain_goes_on() {
    failing_syncs(Store::Fjall).await;
}

async fn failing_syncs(store: Store) {
    let _turn = turn().await;
    let on_failing_disk = |index: usize, spec: &mut NodeSpec| {
        if index == FAILING {
            spec.prefix = vec![env!("CARGO_BIN_EXE_craq-node-on-failing-disk").to_owned()];
        }
    };
    let mut cluster = cluster().store(store).each(on_failing_disk).start().await;
    let mark = cluster.spec(FAILING).file.with_extension("fails");
    let spoil = || std::fs::write(&mark, b"").expect("the mark is made");
    let lived_on =
        until_the_disk_fails("a disk that answers EIO", cluster, spoil, |spec| spec.prefix.clear()).await;
    figure("a disk that answers EIO: the error to the node's end, at most", format!("{lived_on:?}"));
    assert!(lived_on < Duration::from_secs(3), "the node lived on for {lived_on:?}");
}

/// A file system of its own, in memory.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Result<Self, String> {
        let dir = tempfile::TempDir::new().expect("a temporary directory");
        let size = format!("size={size}");
        let path = dir.path().display().to_string();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "craq-test", &path]).output();
        match done {
            Ok(output) if output.status.success() => Ok(Self(dir)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node may be about to end.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}
