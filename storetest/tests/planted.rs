//! Does the suite catch a backend that breaks the contract? Each bug is planted in one that keeps it otherwise.
#![expect(clippy::unwrap_used, reason = "a test's own helpers")]

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use craq_node::store::{Backend, Batch, Change, Memory, Snapshot, StoreError, Table, backend::Visit};
use craq_storetest::{CASES, Subject};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    DropsTheLastChange,
    IsNotAtomic,
    FirstChangeWins,
    SharesTables,
    ClearLeavesAKey,
    CutsLongValues,
    AbsentIsEmpty,
    ScansToTheEndInclusive,
    ScansFromTheStartExclusive,
    OrdersAsSignedBytes,
    IgnoresBreak,
    SnapshotSeesLaterWrites,
    SnapshotIsABatchBehind,
    SnapshotBlocksTheWriter,
    LosesTheNewestBatch,
    ForgetsDeletions,
    LosesTableNumbers,
}

/// A "disk": every batch that was applied. Opened again, a store is made of them anew.
struct Planted {
    bug: Bug,
    disk: Arc<Mutex<Vec<Batch>>>,
}

impl Subject for Planted {
    fn open(&self) -> Arc<dyn Backend> {
        let mut batches = self.disk.lock().unwrap().clone();
        match self.bug {
            Bug::LosesTheNewestBatch => drop(batches.pop()),
            Bug::ForgetsDeletions => {
                batches.iter_mut().for_each(|batch| batch.retain(|c| !matches!(c, Change::Delete(..))));
            }
            Bug::LosesTableNumbers => batches.iter_mut().flatten().for_each(|change| {
                if let Change::Put(table, ..) = change {
                    table.0 &= 0xff;
                }
            }),
            _ => {}
        }
        let memory = Memory::new();
        batches.into_iter().for_each(|batch| memory.apply(batch).unwrap());
        Arc::new(Buggy {
            bug: self.bug,
            disk: Arc::clone(&self.disk),
            before: Mutex::new(memory.snapshot().unwrap()),
            memory,
            held: Arc::new(AtomicUsize::new(0)),
        })
    }
}

struct Buggy {
    bug: Bug,
    disk: Arc<Mutex<Vec<Batch>>>,
    memory: Memory,
    /// The state before the newest batch.
    before: Mutex<Box<dyn Snapshot>>,
    /// How many snapshots live.
    held: Arc<AtomicUsize>,
}

impl Buggy {
    fn planted(&self, mut batch: Batch) -> Batch {
        match self.bug {
            Bug::DropsTheLastChange if batch.len() > 1 => drop(batch.pop()),
            Bug::FirstChangeWins => batch.reverse(),
            Bug::SharesTables => batch.iter_mut().for_each(|change| match change {
                Change::Put(table, ..) | Change::Delete(table, _) | Change::Clear(table) => table.0 &= 0xff,
            }),
            Bug::ClearLeavesAKey => {
                let first = |table| first_key(&*self.memory.snapshot().unwrap(), table);
                let cleared =
                    batch.iter().find_map(|c| if let Change::Clear(t) = c { Some(*t) } else { None });
                if let Some((table, (key, value))) = cleared.and_then(|table| Some((table, first(table)?))) {
                    batch.push(Change::Put(table, key, value));
                }
            }
            Bug::CutsLongValues => batch.iter_mut().for_each(|change| {
                if let Change::Put(_, _, value) = change {
                    value.truncate(65_535);
                }
            }),
            Bug::OrdersAsSignedBytes => batch.iter_mut().for_each(|change| match change {
                Change::Put(_, key, _) | Change::Delete(_, key) => *key = signed(key).into(),
                Change::Clear(_) => {}
            }),
            _ => {}
        }
        batch
    }
}

fn first_key(snapshot: &dyn Snapshot, table: Table) -> Option<(Bytes, Bytes)> {
    let mut first = None;
    let mut visit = |key: &[u8], value: &[u8]| {
        first = Some((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        ControlFlow::Break(())
    };
    snapshot.scan(table, &[], None, &mut visit).unwrap();
    first
}

/// Turns the order of unsigned bytes into the one of signed bytes, and back.
fn signed(key: &[u8]) -> Vec<u8> {
    key.iter().map(|byte| byte ^ 0x80).collect()
}

impl Backend for Buggy {
    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        while self.bug == Bug::SnapshotBlocksTheWriter && self.held.load(Ordering::Acquire) > 0 {
            thread::sleep(Duration::from_millis(1));
        }
        *self.before.lock().unwrap() = self.memory.snapshot()?;
        let batch = self.planted(batch);
        self.disk.lock().unwrap().push(batch.clone());
        if self.bug != Bug::IsNotAtomic {
            return self.memory.apply(batch);
        }
        batch.into_iter().try_for_each(|change| {
            thread::yield_now();
            self.memory.apply(vec![change])
        })
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.bug {
            Bug::AbsentIsEmpty => Ok(Some(self.memory.get(table, key)?.unwrap_or_default())),
            Bug::SharesTables => self.memory.get(Table(table.0 & 0xff), key),
            Bug::OrdersAsSignedBytes => self.memory.get(table, &signed(key)),
            _ => self.memory.get(table, key),
        }
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.held.fetch_add(1, Ordering::AcqRel);
        let newest = self.memory.snapshot()?;
        let still = match self.bug {
            Bug::SnapshotIsABatchBehind => std::mem::replace(&mut *self.before.lock().unwrap(), newest),
            _ => newest,
        };
        Ok(Box::new(View { bug: self.bug, still, live: self.memory.clone(), held: Arc::clone(&self.held) }))
    }

    fn is_volatile(&self) -> bool {
        false
    }

    fn size_bytes(&self) -> u64 {
        self.memory.size_bytes()
    }
}

struct View {
    bug: Bug,
    still: Box<dyn Snapshot>,
    live: Memory,
    held: Arc<AtomicUsize>,
}

impl Drop for View {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Snapshot for View {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.bug {
            Bug::SnapshotSeesLaterWrites => self.live.get(table, key),
            Bug::SharesTables => self.still.get(Table(table.0 & 0xff), key),
            Bug::OrdersAsSignedBytes => self.still.get(table, &signed(key)),
            _ => self.still.get(table, key),
        }
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, visit: Visit<'_>) -> Result<(), StoreError> {
        let after = |bound: &[u8]| [bound, b"\0"].concat();
        match self.bug {
            Bug::SnapshotSeesLaterWrites => self.live.snapshot()?.scan(table, from, to, visit),
            Bug::SharesTables => self.still.scan(Table(table.0 & 0xff), from, to, visit),
            Bug::ScansToTheEndInclusive => self.still.scan(table, from, to.map(after).as_deref(), visit),
            Bug::ScansFromTheStartExclusive => self.still.scan(table, &after(from), to, visit),
            Bug::IgnoresBreak => self.still.scan(table, from, to, &mut |key, value| {
                let _ = visit(key, value);
                ControlFlow::Continue(())
            }),
            Bug::OrdersAsSignedBytes => self.still.scan(table, &[], None, &mut |key, value| {
                let key = signed(key);
                let inside = key.as_slice() >= from && to.is_none_or(|to| key.as_slice() < to);
                if inside { visit(&key, value) } else { ControlFlow::Continue(()) }
            }),
            _ => self.still.scan(table, from, to, visit),
        }
    }
}

/// Whether the case fails on a store with this bug.
fn fails(bug: Bug, name: &str) -> bool {
    let case = CASES.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case {name}"));
    let subject = Planted { bug, disk: Arc::default() };
    catch_unwind(AssertUnwindSafe(|| (case.run)(&subject))).is_err()
}

#[test]
fn a_backend_without_a_bug_passes_every_case() {
    let failed: Vec<_> = CASES.iter().map(|case| case.name).filter(|name| fails(Bug::None, name)).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

macro_rules! caught {
    ($($test:ident: $bug:ident by $($case:ident)+;)+) => {
        $(
            #[test]
            fn $test() {
                for case in [$(stringify!($case)),+] {
                    assert!(fails(Bug::$bug, case), "{:?} passes {case}", Bug::$bug);
                }
            }
        )+
    };
}

caught! {
    the_suite_catches_a_backend_that_drops_the_last_change: DropsTheLastChange by
        what_is_put_is_found_until_it_is_deleted a_batch_of_many_changes_is_done_whole random_batches_match_a_map
        a_committed_write_is_read_back random_store_writes_match_a_map;
    the_suite_catches_a_backend_that_is_not_atomic: IsNotAtomic by a_reader_sees_a_batch_whole_or_not_at_all;
    the_suite_catches_a_backend_in_which_the_first_change_wins: FirstChangeWins by
        the_last_change_on_a_key_wins random_batches_match_a_map parts_of_a_write_take_effect_in_their_order
        a_wipe_leaves_only_the_view;
    the_suite_catches_a_backend_that_shares_tables: SharesTables by tables_are_apart;
    the_suite_catches_a_backend_whose_clear_leaves_a_key: ClearLeavesAKey by
        a_cleared_table_is_empty_and_can_be_filled_again random_batches_match_a_map a_wipe_leaves_only_the_view;
    the_suite_catches_a_backend_that_cuts_long_values: CutsLongValues by
        values_of_every_size_come_back big_values_come_back;
    the_suite_catches_a_backend_that_takes_absent_for_empty: AbsentIsEmpty by
        a_table_never_written_is_empty an_unknown_position_has_no_row;
    the_suite_catches_a_backend_that_scans_too_far: ScansToTheEndInclusive by
        a_range_has_its_start_and_not_its_end an_empty_range_has_no_keys only_rows_above_are_returned;
    the_suite_catches_a_backend_that_scans_from_too_late: ScansFromTheStartExclusive by
        a_range_has_its_start_and_not_its_end only_rows_above_are_returned;
    the_suite_catches_a_backend_that_orders_as_signed_bytes: OrdersAsSignedBytes by
        keys_are_ordered_as_unsigned_bytes random_batches_match_a_map a_walk_yields_exactly_the_rows_in_order;
    the_suite_catches_a_backend_that_does_not_stop_a_scan: IgnoresBreak by a_scan_ends_when_it_is_told;
    the_suite_catches_a_backend_whose_snapshot_sees_later_writes: SnapshotSeesLaterWrites by
        a_snapshot_stands_still each_snapshot_keeps_its_own_state a_page_stands_still_while_rows_are_swept
        random_batches_match_a_map;
    the_suite_catches_a_backend_whose_snapshot_is_behind: SnapshotIsABatchBehind by
        a_snapshot_has_all_that_returned_before_it;
    the_suite_catches_a_backend_whose_snapshot_blocks_the_writer: SnapshotBlocksTheWriter by
        readers_and_the_writer_do_not_wait_for_each_other;
    the_suite_catches_a_backend_that_loses_the_newest_batch: LosesTheNewestBatch by
        what_was_applied_is_there_again a_node_and_its_chains_are_there_again random_batches_match_a_map;
    the_suite_catches_a_backend_that_forgets_deletions: ForgetsDeletions by
        what_was_removed_stays_removed random_batches_match_a_map;
    the_suite_catches_a_backend_that_loses_table_numbers: LosesTableNumbers by tables_of_every_number_are_there_again;
}
