//! What happens when a call of the storage fails?

use craq_node::store::{Backend, Redb, StoreError};
use craq_storetest::numbered;

use crate::{
    CACHE_BYTES,
    disk::{Call, Disk},
};

/// Writes until an error, which must come; returns how many batches were acknowledged.
fn write_until_error(redb: &Redb) -> u64 {
    let result = (1..10_000).find_map(|n| redb.apply(numbered::batch(n)).err().map(|error| (n - 1, error)));
    let (acknowledged, error) = result.expect("the planted error never came");
    assert!(matches!(error, StoreError::Io(_)), "{error}");
    acknowledged
}

#[test]
fn after_a_failed_call_nothing_succeeds_and_nothing_acknowledged_is_lost() {
    // The file grows seldom; writes and syncs are many, of several kinds.
    for (call, failures) in [(Call::Write, 75), (Call::Sync, 25), (Call::SetLen, 1)] {
        for n in 0..failures {
            let disk = Disk::default();
            let redb = Redb::open_on(disk.clone(), CACHE_BYTES).expect("open");
            disk.plant(call, n);
            let acknowledged = write_until_error(&redb);
            assert!(disk.has_failed(), "an error came that was not planted");
            for later in acknowledged + 1..acknowledged + 4 {
                assert!(redb.apply(numbered::batch(later)).is_err(), "{call:?} {n}: a later batch succeeded");
                assert!(redb.apply(vec![]).is_err(), "{call:?} {n}: an empty batch succeeded");
            }
            assert!(redb.get(craq_node::store::Table(0), b"k").is_err(), "a failed store was read");
            assert!(redb.snapshot().is_err(), "a failed store was read");
            drop(redb);
            let rebooted =
                Redb::open_on(disk.after_power_loss(n), CACHE_BYTES).expect("open after the reboot");
            let found = numbered::check(&rebooted);
            assert!(
                (acknowledged..=acknowledged + 1).contains(&found),
                "{call:?} {n}: {acknowledged} batches were acknowledged, {found} are there"
            );
        }
    }
}

#[test]
fn an_error_while_opening_is_told() {
    for n in 0..3 {
        let disk = Disk::default();
        disk.plant(Call::Sync, n);
        let opened = Redb::open_on(disk.clone(), CACHE_BYTES);
        if disk.has_failed() {
            assert!(matches!(opened, Err(StoreError::Open(_))), "sync {n} failed, and the store opened");
        }
    }
    let disk = Disk::default();
    disk.plant(Call::SetLen, 0);
    assert!(matches!(Redb::open_on(disk, CACHE_BYTES), Err(StoreError::Open(_))));
}
