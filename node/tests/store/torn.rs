//! What is left when the power fails while the store writes?

use craq_node::store::{Backend, ChainStore, Change, Redb, Store, StoreError};
use craq_proto::ChainId;
use craq_storetest::{
    file::{Failure, File},
    numbered, rows,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::CACHE_BYTES;

#[test]
fn every_acknowledged_batch_survives_a_loss_of_power_whole() {
    const FILES: u64 = 40;
    const CRASHES: u64 = 8;
    /// The power fails within so many calls of the storage; a batch takes several.
    const CALLS: u64 = 150;
    let mut acknowledged_at_all = 0;
    for seed in 0..FILES {
        let mut random = StdRng::seed_from_u64(seed);
        let mut file = File::new();
        // An empty store first: a file that is half created is another matter (see `opening`).
        drop(Redb::open_on(file.clone(), CACHE_BYTES).expect("create"));
        let mut acknowledged = 0;
        for crash in 0..CRASHES {
            file.fail(Failure::Power(random.random_range(0..CALLS)));
            // The power may fail already while the store opens, and repairs what the crash before has left.
            if let Ok(redb) = Redb::open_on(file.clone(), CACHE_BYTES) {
                let applied =
                    (1..CALLS).take_while(|n| redb.apply(numbered::batch(acknowledged + n)).is_ok());
                acknowledged += applied.count() as u64;
            }
            file = file.lose_power(&mut random);
            file.cure();
            let redb = Redb::open_on(file.clone(), CACHE_BYTES).expect("open after a loss of power");
            let found = numbered::check(&redb);
            assert!(
                (acknowledged..=acknowledged + 1).contains(&found),
                "file {seed}, crash {crash}: {acknowledged} batches were acknowledged, {found} are there"
            );
            acknowledged = found;
        }
        acknowledged_at_all += acknowledged;
    }
    assert!(acknowledged_at_all > FILES * CRASHES, "the power failed too soon for this to mean anything");
}

#[test]
fn a_store_opens_at_once_after_a_loss_of_power() {
    // A repair that walks the file would take a second per gigabyte.
    let file = File::new();
    let redb = Redb::open_on(file.clone(), CACHE_BYTES).expect("create");
    for n in 1..30 {
        redb.apply(numbered::batch(n)).expect("apply");
        let mut builder = redb::Builder::new();
        builder.set_repair_callback(|_| panic!("the whole file is being walked"));
        let left = file.after_power_loss(&mut StdRng::seed_from_u64(n));
        builder.create_with_backend(left).expect("open after a loss of power");
    }
}

#[test]
fn bytes_that_have_changed_on_the_disk_are_never_read_as_a_row() {
    let file = File::new();
    let entries: Vec<_> = (1..=60).map(|seq| rows::simple(seq, "key")).collect();
    let chain = |file: &File| -> Result<ChainStore, StoreError> {
        let redb = Redb::open_on(file.clone(), CACHE_BYTES)?;
        Store::open(std::sync::Arc::new(redb))?.chain(&ChainId::default_chain())
    };
    let first = chain(&file).expect("open");
    let mut batch: Vec<Change> = Vec::new();
    let write = craq_node::replica::event::StoreWrite { entries: entries.clone(), ..Default::default() };
    first.encode(&write, &mut batch);
    drop(first);
    Redb::open_on(file.clone(), CACHE_BYTES).expect("open").apply(batch).expect("apply");
    let (mut refused, mut same) = (0, 0);
    for seed in 0..400 {
        let changed = file.with_changed_bit(&mut StdRng::seed_from_u64(seed));
        // The database itself may find the damage first, and say so by an error or a panic: both end a node.
        let found = std::panic::catch_unwind(|| {
            let chain = chain(&changed)?;
            entries.iter().map(|entry| chain.get(entry.seq, 0)).collect::<Result<Vec<_>, _>>()
        });
        let Ok(Ok(found)) = found else {
            refused += 1;
            continue;
        };
        for (entry, row) in entries.iter().zip(found) {
            assert!(
                row.is_none() || row == entry.rows().next(),
                "change {seed}: row {} is another",
                entry.seq
            );
        }
        same += 1;
    }
    assert!(refused > 0 && same > 0, "{refused} refused, {same} not");
}
