//! What happens when a call of the storage fails?

use craq_node::store::{Backend, Redb, StoreError};
use craq_storetest::{
    file::{Call, Failure, File},
    numbered,
};
use rand::{SeedableRng, rngs::StdRng};

use crate::CACHE_BYTES;

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
            let file = File::new();
            let redb = Redb::open_on(file.clone(), CACHE_BYTES).expect("open");
            file.fail(Failure::Once(call, n));
            let acknowledged = write_until_error(&redb);
            assert!(file.has_failed(), "an error came that was not planted");
            for later in acknowledged + 1..acknowledged + 4 {
                assert!(redb.apply(numbered::batch(later)).is_err(), "{call:?} {n}: a later batch succeeded");
                assert!(redb.apply(vec![]).is_err(), "{call:?} {n}: an empty batch succeeded");
            }
            assert!(redb.get(craq_node::store::Table(0), b"k").is_err(), "a failed store was read");
            assert!(redb.snapshot().is_err(), "a failed store was read");
            drop(redb);
            let left = file.after_power_loss(&mut StdRng::seed_from_u64(n));
            let rebooted = Redb::open_on(left, CACHE_BYTES).expect("open after the reboot");
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
        let file = File::new();
        file.fail(Failure::Once(Call::Sync, n));
        let opened = Redb::open_on(file.clone(), CACHE_BYTES);
        if file.has_failed() {
            assert!(matches!(opened, Err(StoreError::Open(_))), "sync {n} failed, and the store opened");
        }
    }
    let file = File::new();
    file.fail(Failure::Once(Call::SetLen, 0));
    assert!(matches!(Redb::open_on(file, CACHE_BYTES), Err(StoreError::Open(_))));
}
