//! Planted bugs: each is to be found within so many seeds, or the simulation is not worth its name.

use std::{
    fmt::Write,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use craq_proto::planted::{self, Bug};
use parking_lot::Mutex;

use super::{Setup, Violation, run};

/// The most seeds that a bug may take.
pub const SEEDS_MAX: u64 = 1_000;

/// What came of one bug.
#[derive(Debug, Clone)]
pub struct Found {
    /// Which.
    pub bug: Bug,
    /// The seed that found it, counted from zero, and what was wrong; none: no seed did.
    pub by: Option<(u64, Violation)>,
}

/// Looks for each bug, seed by seed, on several threads; tells each result as it comes.
pub fn hunt(bugs: &[Bug], duration: Duration, jobs: usize, told: impl Fn(&Found) + Sync) -> Vec<Found> {
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = look_for(*bug, duration);
                    told(&found);
                    all.lock().push(found);
                }
            });
        }
    });
    let mut all = all.into_inner();
    all.sort_by_key(|found| found.bug);
    all
}

fn look_for(bug: Bug, duration: Duration) -> Found {
    let by = (0..SEEDS_MAX).find_map(|seed| {
        let setup = Setup::draw(seed, duration);
        planted::set(Some(bug));
        let violation = run(&setup).violation;
        planted::set(None);
        // A seed that fails without the bug as well says nothing about it.
        violation.filter(|_| run(&setup).violation.is_none()).map(|violation| (seed, violation))
    });
    Found { bug, by }
}

/// The table of all bugs, as a page.
#[must_use]
pub fn page(found: &[Found], duration: Duration) -> String {
    let mut page = String::from(
        "# Planted bugs, and what finds them\n\n\
         A check that cannot fail is a defect. Each of these bugs can be compiled in, at the very rule that it breaks\n\
         (`proto/src/planted.rs` has the list, and the reasons for what is not in it). The whole-cluster simulation runs\n\
         with each of them, seed by seed, until something is found to be wrong. This page is written by that run:\n\n\
         ```sh\n\
         cargo run --profile sim -p craq-tests --features planted --bin simulate -- \\\n\
         \u{20}   --planted all --seconds 100 --page tests/PLANTED.md\n\
         ```\n\n",
    );
    let caught: Vec<u64> = found.iter().filter_map(|found| Some(found.by.as_ref()?.0 + 1)).collect();
    let mut sorted = caught.clone();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let most = sorted.last().copied().unwrap_or_default();
    // Writing to a string does not fail.
    let _ = writeln!(
        page,
        "{} of {} bugs found, each within {most} seeds of {} s; median {median}.\n",
        caught.len(),
        found.len(),
        duration.as_secs()
    );
    page.push_str("| bug | rule | what it breaks | seeds | found by |\n| --- | --- | --- | ---: | --- |\n");
    for Found { bug, by } in found {
        let (seeds, check) = match by {
            Some((seed, violation)) => ((seed + 1).to_string(), format!("`{}`", violation.check)),
            None => (format!("> {SEEDS_MAX}"), "**not found**".to_owned()),
        };
        let _ = writeln!(page, "| `{}` | {} | {} | {seeds} | {check} |", bug.name(), bug.rule(), bug.what());
    }
    page.push_str(ELSEWHERE);
    let elsewhere = [
        (Bug::SCHEDULED, "only with views that no coordinator makes: random schedules of one chain find it"),
        (
            Bug::RARE,
            "only when an operator accepts a loss, or a message is late by several views: golden scripts",
        ),
        (
            Bug::SLEPT,
            "only when a writer sleeps while ten leases pass and two others lead: tests of the log find it",
        ),
        (Bug::REDUNDANT, "never: another rule stands behind the broken one"),
    ];
    for (bugs, seen) in elsewhere {
        for bug in bugs {
            let _ = writeln!(page, "| `{}` | {} | {} | {seen} |", bug.name(), bug.rule(), bug.what());
        }
    }
    page
}

const ELSEWHERE: &str = "\n## Not seen by the clients of a whole cluster\n\n\
    Random schedules of one chain have a test that finds theirs within 1,000 seeds, too:\n\n\
    ```sh\n\
    cargo test -p craq-node --lib --features planted -- --nocapture schedules_find\n\
    ```\n\n\
    | bug | rule | what it breaks | seen |\n| --- | --- | --- | --- |\n";
