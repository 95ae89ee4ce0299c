//! Does a disk keep what it has acknowledged, through every crash, and does it fail when it is told to?

use craq_node::store::{Store, Table};
use craq_proto::NodeId;
use craq_storetest::numbered;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use uuid::Uuid;

use super::*;

const KINDS: [DiskKind; 2] = [DiskKind::Model, DiskKind::Redb];

fn mounted(disk: &Disk) -> Arc<dyn Backend> {
    disk.mount().expect("mount")
}

/// Applies batches up to the first that fails, at most to this one; returns the last that was acknowledged.
fn apply_up_to(backend: &dyn Backend, from: u64, to: u64) -> u64 {
    (from..=to).take_while(|n| backend.apply(numbered::batch(*n)).is_ok()).last().unwrap_or(from - 1)
}

/// Fails unless the disk holds all that was acknowledged, and at most one batch more, whole.
fn check(disk: &Disk, acknowledged: u64, what: &str) -> u64 {
    let found = numbered::check(&*mounted(disk));
    let expected = acknowledged..=acknowledged + 1;
    assert!(expected.contains(&found), "{what}: {acknowledged} batches were acknowledged, {found} are there");
    found
}

#[test]
fn a_batch_survives_whole_or_not_at_all_and_an_acknowledged_one_whole() {
    for kind in KINDS {
        let (mut with, mut without) = (0, 0);
        for seed in 0..60 {
            let mut random = StdRng::seed_from_u64(seed);
            let disk = Disk::new(kind);
            let mut acknowledged = 0;
            for crash in 0..6 {
                let backend = mounted(&disk);
                let last = acknowledged + random.random_range(0..4);
                acknowledged = apply_up_to(&*backend, acknowledged + 1, last);
                let in_flight = random.random_bool(0.8).then(|| numbered::batch(acknowledged + 1));
                let was_under_way = in_flight.is_some();
                let power = random.random();
                disk.crash(&mut random, in_flight, power);
                let found = check(&disk, acknowledged, &format!("{kind:?} {seed}, crash {crash}"));
                assert!(was_under_way || found == acknowledged);
                *(if found > acknowledged { &mut with } else { &mut without }) += 1;
                acknowledged = found;
                disk.crash(&mut random, None, true);
            }
        }
        assert!(with > 30 && without > 60, "{kind:?}: {with} with the batch under way, {without} without");
    }
}

#[test]
fn a_second_crash_at_any_operation_of_the_recovery_loses_nothing() {
    let mut openings = 0;
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let disk = Disk::new(DiskKind::Redb);
        let backend = mounted(&disk);
        let mut acknowledged = apply_up_to(&*backend, 1, 7);
        disk.crash(&mut random, Some(numbered::batch(acknowledged + 1)), true);
        // Each opening comes one operation further than the one before, until one comes to its end.
        for operations in 0.. {
            disk.trouble_after(operations, Trouble::PowerLoss);
            openings += 1;
            let opened = disk.mount();
            let is_done = opened.is_ok() && !disk.has_failed();
            disk.crash(&mut random, None, true);
            disk.cure();
            if operations % 3 == 0 || is_done {
                acknowledged = check(&disk, acknowledged, &format!("{seed}, after {operations} operations"));
                disk.crash(&mut random, None, true);
            }
            if is_done {
                break;
            }
        }
    }
    assert!(openings > 100, "only {openings} openings were broken off");
}

#[test]
fn a_crash_while_the_store_is_first_made_leaves_an_empty_disk() {
    for operations in 0..40 {
        let mut random = StdRng::seed_from_u64(operations);
        let disk = Disk::new(DiskKind::Redb);
        disk.trouble_after(operations, Trouble::PowerLoss);
        let acknowledged = disk.mount().map_or(0, |backend| apply_up_to(&*backend, 1, 1));
        disk.crash(&mut random, None, true);
        disk.cure();
        check(&disk, acknowledged, &format!("{operations} operations"));
    }
}

#[test]
fn what_a_process_has_mounted_dies_with_it() {
    for kind in KINDS {
        let disk = Disk::new(kind);
        let end: [&dyn Fn(); 3] =
            [&|| disk.crash(&mut StdRng::seed_from_u64(1), None, false), &|| disk.wipe(), &|| {
                drop(mounted(&disk))
            }];
        for end in end {
            let backend = mounted(&disk);
            let snapshot = backend.snapshot().expect("a snapshot");
            end();
            assert!(backend.apply(numbered::batch(1)).is_err(), "{kind:?}");
            assert!(backend.get(Table(0), b"k").is_err() && backend.snapshot().is_err(), "{kind:?}");
            assert!(snapshot.get(Table(0), b"k").is_err(), "{kind:?}");
        }
    }
}

#[test]
fn troubles_come_when_they_are_due_and_go_when_they_are_cured() {
    for kind in KINDS {
        for (trouble, reads) in [(Trouble::Eio, false), (Trouble::Full, true), (Trouble::PowerLoss, false)] {
            for operations in (0..60).step_by(3) {
                let mut random = StdRng::seed_from_u64(operations);
                let disk = Disk::new(kind);
                let backend = mounted(&disk);
                let before = disk.operations();
                disk.trouble_after(operations, trouble);
                assert!(!disk.has_failed());
                let acknowledged = apply_up_to(&*backend, 1, 1_000);
                assert!(disk.has_failed() && acknowledged < 1_000, "{kind:?} {trouble:?}");
                assert!(disk.operations() >= before + operations);
                assert!(backend.apply(numbered::batch(acknowledged + 1)).is_err());
                disk.crash(&mut random, None, trouble == Trouble::PowerLoss);
                let restarted = disk.mount();
                assert!(disk.has_failed() || reads, "{kind:?} {trouble:?} went by itself");
                drop(restarted);
                disk.cure();
                check(&disk, acknowledged, &format!("{kind:?} {trouble:?} after {operations}"));
            }
        }
    }
}

#[test]
fn a_wiped_disk_is_empty_and_a_node_on_it_a_new_one() {
    for kind in KINDS {
        let disk = Disk::new(kind);
        let node =
            |n| Store::open_with(mounted(&disk), || NodeId(Uuid::from_u128(n))).expect("open").identity();
        assert_eq!((node(1).node, node(2).node), (NodeId(Uuid::from_u128(1)), NodeId(Uuid::from_u128(1))));
        let (before, incarnation) = (disk.operations(), node(3).incarnation);
        disk.trouble_after(0, Trouble::Eio);
        disk.wipe();
        assert_eq!(node(4).node, NodeId(Uuid::from_u128(4)));
        assert!(node(5).incarnation < incarnation && disk.operations() > before);
    }
}

#[test]
fn a_disk_that_only_says_that_it_syncs_is_found_out() {
    let is_lost = |seed: &u64| {
        let mut random = StdRng::seed_from_u64(*seed);
        let disk = Disk::new(DiskKind::Redb);
        apply_up_to(&*mounted(&disk), 1, 3);
        disk.ignore_syncs();
        let backend = mounted(&disk);
        let acknowledged = apply_up_to(&*backend, 4, 8);
        disk.crash(&mut random, None, true);
        let look = std::panic::AssertUnwindSafe(|| disk.mount().map(|backend| numbered::check(&*backend)));
        let found = std::panic::catch_unwind(look);
        !matches!(found, Ok(Ok(found)) if found >= acknowledged)
    };
    assert!((0..20).filter(is_lost).count() > 15);
}

#[test]
fn the_same_random_numbers_leave_the_same() {
    let run = || {
        let mut random = StdRng::seed_from_u64(7);
        let disk = Disk::new(DiskKind::Redb);
        let mut found = vec![];
        for _ in 0..10 {
            let backend = mounted(&disk);
            let last = numbered::check(&*backend);
            apply_up_to(&*backend, last + 1, last + 2);
            disk.crash(&mut random, Some(numbered::batch(last + 3)), true);
            found.push((numbered::check(&*mounted(&disk)), disk.operations()));
            disk.crash(&mut random, None, true);
        }
        found
    };
    assert_eq!(run(), run());
}
