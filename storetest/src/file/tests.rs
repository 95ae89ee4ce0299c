//! Does the simulated file lose what a real one may lose, and nothing else?

use craq_node::store::{Backend, Redb};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::numbered;

const CACHE_BYTES: usize = 1 << 20;

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.len().expect("a length") as usize];
    file.read(0, &mut bytes).expect("read");
    bytes
}

fn holding(len: u64, byte: u8) -> File {
    let file = File::new();
    file.set_len(len).expect("set the length");
    file.write(0, &vec![byte; len as usize]).expect("write");
    file.sync_data().expect("sync");
    file
}

#[test]
fn what_is_synced_survives_and_sectors_are_whole() {
    let file = holding(20_000, 1);
    file.write(700, &[2; 9000]).expect("write");
    file.write(1024, &[3; 4096]).expect("write");
    let mut seen = [0; 4];
    for seed in 0..200 {
        let bytes = content(&file.after_power_loss(&mut StdRng::seed_from_u64(seed)));
        assert!(bytes[..700].iter().chain(&bytes[9700..]).all(|byte| *byte == 1), "seed {seed}");
        for sector in (1024..9216).step_by(512) {
            assert!(bytes[sector..sector + 512].iter().all(|byte| *byte == bytes[sector]), "seed {seed}");
            seen[usize::from(bytes[sector])] += 1;
        }
    }
    assert!(seen[1] > 100 && seen[2] > 100 && seen[3] > 100, "{seen:?}");
    assert_eq!(content(&file)[1024..5120], [3; 4096], "a look at what would be left has changed the file");
}

#[test]
fn a_kill_loses_nothing_but_the_handle() {
    let file = holding(1000, 1);
    file.write(10, &[2; 10]).expect("write");
    let next = file.kill();
    assert!(file.read(0, &mut [0]).is_err() && file.write(0, &[1]).is_err() && file.sync_data().is_err());
    assert!(file.set_len(1).is_err() && file.len().is_err());
    assert_eq!(content(&next)[10..20], [2; 10]);
    let lost = (0..50).map(|seed| content(&next.after_power_loss(&mut StdRng::seed_from_u64(seed)))[10]);
    assert!(lost.into_iter().any(|byte| byte == 1), "a kill has synced what was written");
}

#[test]
fn a_length_is_lost_unless_it_is_synced() {
    let file = holding(1000, 1);
    file.set_len(3000).expect("grow");
    file.write(2000, &[2; 1000]).expect("write");
    let mut lengths: Vec<usize> =
        (0..50).map(|seed| content(&file.after_power_loss(&mut StdRng::seed_from_u64(seed))).len()).collect();
    lengths.sort_unstable();
    lengths.dedup();
    assert_eq!(lengths, [1000, 3000]);
    file.set_len(10).expect("shrink");
    file.set_len(2500).expect("grow");
    file.sync_data().expect("sync");
    let bytes = content(&file.lose_power(&mut StdRng::seed_from_u64(0)));
    assert_eq!((bytes.len(), &bytes[..10]), (2500, &[1; 10][..]));
    assert!(bytes[10..].iter().all(|byte| *byte == 0), "what was cut off is back");
}

#[test]
fn what_a_failed_sync_had_to_write_is_lost() {
    let file = holding(10_000, 1);
    file.write(0, &[2; 100]).expect("write");
    file.fail(Failure::Once(Call::Sync, 0));
    assert!(file.sync_data().is_err() && file.has_failed());
    file.write(5000, &[3; 100]).expect("write");
    file.sync_data().expect("the next sync succeeds");
    assert_eq!(content(&file)[..100], [2; 100], "as Linux has it, readers still see it");
    let bytes = content(&file.after_power_loss(&mut StdRng::seed_from_u64(0)));
    assert_eq!((bytes[0], bytes[5000]), (1, 3));
    file.cure();
    assert_eq!(content(&file)[0], 1);
}

#[test]
fn failures_come_when_they_are_due() {
    let file = holding(1000, 1);
    let before = file.calls();
    file.fail(Failure::Everything(2));
    assert!(file.read(0, &mut [0]).is_ok() && file.sync_data().is_ok() && !file.has_failed());
    assert!(file.read(0, &mut [0]).is_err() && file.sync_data().is_err() && file.has_failed());
    assert_eq!(file.calls(), before + 4);
    file.fail(Failure::Full(0));
    assert!(file.read(0, &mut [0]).is_ok() && file.sync_data().is_ok() && !file.has_failed());
    assert!(file.write(0, &[1]).is_err() && file.set_len(9).is_err() && file.has_failed());
    file.cure();
    assert!(file.write(0, &[1]).is_ok());
}

/// How many of so many crashes lost an acknowledged batch.
fn losses(ignore_syncs: bool) -> usize {
    let lost = |seed: &u64| {
        let mut random = StdRng::seed_from_u64(*seed);
        let file = File::new();
        drop(Redb::open_on(file.clone(), CACHE_BYTES).expect("create"));
        if ignore_syncs {
            file.ignore_syncs();
        }
        let redb = Redb::open_on(file.clone(), CACHE_BYTES).expect("open");
        let batches = random.random_range(1..6);
        (1..=batches).for_each(|n| redb.apply(numbered::batch(n)).expect("apply"));
        let left = file.lose_power(&mut random);
        let found =
            std::panic::catch_unwind(|| Redb::open_on(left, CACHE_BYTES).map(|redb| numbered::check(&redb)));
        !matches!(found, Ok(Ok(found)) if found == batches)
    };
    (0..30).filter(lost).count()
}

#[test]
fn a_sync_that_does_nothing_is_noticed() {
    assert_eq!(losses(false), 0);
    assert!(losses(true) > 20, "{} of 30", losses(true));
}

#[test]
fn the_same_calls_come_at_every_run() {
    let run = || {
        let file = File::new();
        let redb = Redb::open_on(file.clone(), 1 << 16).expect("create");
        (1..40).for_each(|n| redb.apply(numbered::batch(n)).expect("apply"));
        file.fail(Failure::Power(7));
        assert!(redb.apply(numbered::batch(40)).is_err());
        (file.calls(), content(&file.after_power_loss(&mut StdRng::seed_from_u64(3))))
    };
    let (calls, left) = run();
    for _ in 0..5 {
        let (again, left_again) = run();
        assert!(again == calls && left_again == left, "{calls} calls, then {again}");
    }
}
