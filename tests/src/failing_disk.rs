//! A node whose disk can be made to fail: `craq-node-on-failing-disk NODE-BINARY FLAGS…` is `craq-node FLAGS…`, but once a
//! file `FILE.fails` stands beside its store, the kernel answers every `fsync` and `fdatasync` of the process with EIO.
//!
//! Never here: anything else than the shipped node does.

use std::{path::Path, process::ExitCode, thread, time::Duration};

use clap::Parser;
use craq_node::Config;

fn main() -> ExitCode {
    let config = Config::parse_from(std::env::args().skip(1));
    let mark = config.file.with_extension("fails");
    thread::spawn(move || fail_from(&mark));
    craq_node::start(&config)
}

/// Waits for the mark; from then on nothing reaches the disk.
fn fail_from(mark: &Path) {
    while !mark.exists() {
        thread::sleep(Duration::from_millis(1));
    }
    fail_syncs();
}

#[cfg(target_os = "linux")]
fn fail_syncs() {
    use std::{collections::BTreeMap, env::consts::ARCH};

    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter_all_threads};

    const EIO: u32 = 5;
    let syncs = [libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_sync_file_range, libc::SYS_msync];
    let always = BTreeMap::from(syncs.map(|call| (call, Vec::new())));
    let arch = ARCH.try_into().expect("an architecture that seccomp knows");
    let filter = SeccompFilter::new(always, SeccompAction::Allow, SeccompAction::Errno(EIO), arch);
    let program = filter.and_then(BpfProgram::try_from).expect("a filter of four calls");
    apply_filter_all_threads(&program).expect("the kernel takes the filter");
}

#[cfg(not(target_os = "linux"))]
fn fail_syncs() {
    panic!("only Linux can let a process's system calls fail");
}
