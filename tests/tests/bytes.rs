//! Does any decoder of bytes from outside panic, take memory without a bound, or take what is not canonical?
//!
//! The same functions as the targets in `tests/fuzz/`, with seeded bytes. `SEED=n` tries others; `SECONDS=n` tries for longer.

use std::{
    env,
    time::{Duration, Instant},
};

use craq_tests::hostile::{Mutator, TARGETS, target};

fn number(variable: &str, otherwise: u64) -> u64 {
    env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Tries one target for a while, and its seeds first.
fn try_target(name: &str) {
    let (target, seed) = (target(name), number("SEED", 1));
    let seeds = (target.seeds)();
    seeds.iter().for_each(|seed| (target.body)(seed));
    let mut inputs = Mutator::new(seed, seeds);
    let until = Instant::now() + Duration::from_secs(number("SECONDS", 1));
    let mut tried = 0_u64;
    while Instant::now() < until {
        let input = inputs.next_input();
        let outcome = std::panic::catch_unwind(|| (target.body)(&input));
        assert!(outcome.is_ok(), "{name}, input {tried} of seed {seed}: {}", input.escape_ascii());
        tried += 1;
    }
    assert!(tried > 100, "only {tried} inputs were tried");
}

#[test]
fn messages() {
    try_target("messages");
}

#[test]
fn what_is_said_on_links() {
    try_target("link");
}

#[test]
fn what_nodes_say_to_the_coordinator() {
    try_target("node_message");
}

#[test]
fn errors() {
    try_target("error");
}

#[test]
fn rows_on_disk() {
    try_target("row");
}

#[test]
fn records_on_disk() {
    try_target("store");
}

#[test]
fn the_log_of_views() {
    try_target("log");
}

#[test]
fn command_lines() {
    try_target("command_line");
}

#[test]
fn words() {
    try_target("text");
}

#[test]
fn every_target_has_its_file_for_libfuzzer_and_inputs_to_begin_from() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/fuzz_targets");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .expect("the targets")
        .map(|file| file.expect("a file").file_name().to_string_lossy().trim_end_matches(".rs").to_owned())
        .collect();
    files.sort();
    let mut names = TARGETS.map(|target| target.name.to_owned());
    names.sort();
    assert_eq!(files, names);
    assert!(TARGETS.iter().all(|target| !(target.seeds)().is_empty()));
}
