//! What the playground says when the binaries beside it are missing or die. That it works is shown with the real ones,
//! in the whole-system tests.
//!
//! A test program of its own, one test at a time: a file that has just been written can't be executed while another
//! thread forks.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the message")]

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn playground(directory: &Path) -> (i32, String) {
    let craq = directory.join("craq");
    if !craq.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_craq"), &craq).unwrap();
    }
    let data = directory.join("data");
    let output = Command::new(craq)
        .args(["playground", "--once", "--data"])
        .arg(data)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn script(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_missing_binary_is_named_with_the_command_that_builds_it() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let (code, err) = playground(directory.path());
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("craq-coordinator is missing") && err.contains("cargo build"), "{err}");
}

#[test]
fn a_child_that_dies_is_told_of_with_its_last_words() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    script(directory.path(), "craq-coordinator", "echo no disk >&2; exit 5");
    script(directory.path(), "craq-node", "exit 0");
    let (code, err) = playground(directory.path());
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("coordinator") && err.contains("exit code 5") && err.contains("| no disk"), "{err}");
    let log = std::fs::read_to_string(directory.path().join("data/coordinator.log")).unwrap();
    assert_eq!(log, "no disk\n");
}

#[test]
fn the_other_children_are_stopped_when_one_dies() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    // Says on SIGTERM that it was stopped in order.
    let coordinator = "trap 'echo stopped >&2; exit 0' TERM; echo listening on 127.0.0.1:9 >&2; \
                       while :; do sleep 0.05; done";
    script(directory.path(), "craq-coordinator", coordinator);
    script(directory.path(), "craq-node", "echo no luck >&2; exit 1");
    let (code, err) = playground(directory.path());
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("node-1") && err.contains("| no luck"), "{err}");
    let log = std::fs::read_to_string(directory.path().join("data/coordinator.log")).unwrap();
    assert!(log.ends_with("stopped\n"), "{log}");
}
