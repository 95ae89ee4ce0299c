//! Whether these schedules find the bugs that can be planted in a replica.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::Mutex,
    thread,
};

use craq_proto::planted::{self, Bug};

use super::run;
use crate::replica::tests::planted::ELSEWHERE;

/// What these schedules do not try: conditions, pages, and clocks that drift.
const NOT_TRIED: &[Bug] = &[
    Bug::ConditionOfClean,
    Bug::RefusedWithoutLease,
    Bug::RefusedOnDirty,
    Bug::PageMixesDirty,
    Bug::DriftIgnored,
];

/// The seed that finds the bug, and what it says.
fn find(bug: Bug, seeds: u64) -> Option<(u64, String)> {
    planted::set(Some(bug));
    let found = (0..seeds).find_map(|seed| {
        let error = panic::catch_unwind(AssertUnwindSafe(|| run(seed))).err()?;
        let text = error.downcast_ref::<String>().cloned();
        let text = text.or_else(|| error.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Some((seed, text.unwrap_or_default().chars().take(120).collect()))
    });
    planted::set(None);
    found
}

#[test]
fn schedules_find_what_whole_clusters_do_not() {
    for bug in Bug::SCHEDULED {
        let (seed, what) = find(*bug, 1_000).expect("found");
        println!("{}: seed {seed}, {what}", bug.name());
    }
}

/// `PLANT=no-gate` tries one bug; `SEEDS` is how many schedules each gets.
#[test]
#[ignore = "takes many minutes; run it when a rule or the schedules change"]
fn schedules_find_every_bug_of_a_replica() {
    let seeds = std::env::var("SEEDS").map_or(1_000, |seeds| seeds.parse().unwrap());
    let named = std::env::var("PLANT").ok().map(|name| Bug::from_name(&name).expect("there is such a bug"));
    let mine =
        |bug: &Bug| named.map_or(!ELSEWHERE.contains(bug) && !NOT_TRIED.contains(bug), |named| *bug == named);
    let left: Mutex<Vec<Bug>> =
        Mutex::new(Bug::ALL.iter().chain(Bug::SCHEDULED).copied().filter(mine).rev().collect());
    let missed = Mutex::new(Vec::new());
    let work = || {
        while let Some(bug) = { left.lock().unwrap().pop() } {
            let found = find(bug, seeds);
            println!("{:30} {found:?}", bug.name());
            if found.is_none() {
                missed.lock().unwrap().push(bug);
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    assert_eq!(*missed.lock().unwrap(), [], "not found within {seeds} seeds");
}
