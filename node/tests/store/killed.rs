//! Does a process that is killed in the middle of a batch leave a whole store?

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use craq_node::store::Backend;
use craq_storetest::numbered;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::OPENERS;

const STORE: &str = "CRAQ_TEST_STORE";
const KIND: &str = "CRAQ_TEST_KIND";

fn open(kind: &str, path: &Path) -> Arc<dyn Backend> {
    let (_, open) = OPENERS.iter().find(|(name, _)| *name == kind).expect("a known kind");
    open(path)
}

/// The process that is killed: tells the number of each batch once it is acknowledged.
#[test]
#[ignore = "run, and killed, by the test below"]
fn the_writing_process() {
    let path = PathBuf::from(env::var_os(STORE).expect("the path of the store"));
    let store = open(&env::var(KIND).expect("the kind of the store"), &path);
    for n in numbered::check(&*store) + 1.. {
        store.apply(numbered::batch(n)).expect("apply");
        println!("\n{n}");
    }
}

#[test]
fn a_killed_process_leaves_every_acknowledged_batch_and_no_half_one() {
    OPENERS.iter().for_each(|(kind, _)| killed_again_and_again(kind));
}

fn killed_again_and_again(kind: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let mut random = StdRng::seed_from_u64(1);
    let mut before = 0;
    for round in 0..10 {
        let alive = Duration::from_millis(random.random_range(1..150));
        let acknowledged = write_until_killed(kind, &path, alive);
        let store = open(kind, &path);
        let found = numbered::check(&*store);
        assert!(acknowledged > before, "{kind}, round {round}: nothing was written");
        assert!(
            (acknowledged..=acknowledged + 1).contains(&found),
            "{kind}, round {round}: {acknowledged} batches were acknowledged, {found} are there"
        );
        before = found;
    }
}

/// Starts the writing process and kills it this long after its first batch; returns the last number that it told.
fn write_until_killed(kind: &str, path: &Path, alive: Duration) -> u64 {
    let mut child = Command::new(env::current_exe().expect("this test"))
        .args(["killed::the_writing_process", "--exact", "--ignored", "--nocapture"])
        .env(STORE, path)
        .env(KIND, kind)
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let (tell, told) = mpsc::channel();
    let reader = thread::spawn(move || {
        let numbers = lines.map_while(Result::ok).filter_map(|line| line.parse::<u64>().ok());
        numbers.for_each(|number| tell.send(number).expect("the test waits"));
    });
    let first = told.recv_timeout(Duration::from_secs(20)).expect("the process writes");
    thread::sleep(alive);
    child.kill().expect("kill");
    child.wait().expect("wait");
    reader.join().expect("the reader ends");
    told.try_iter().last().unwrap_or(first)
}
