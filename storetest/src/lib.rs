//! The conformance suite that every storage backend of craq must pass.
//!
//! A backend is tested with one line. The expression makes a fresh [`Subject`]; each case gets its own.
//!
//! ```ignore
//! craq_storetest::conformance!(my_backend, MySubject::new());
//! ```
//!
//! This becomes a module with a `#[test]` for each case. [`tables`], [`scans`], [`snapshots`] and [`reopening`] take the
//! contract of `craq_node::store::backend` clause by clause; [`layout`] and [`log_pages`] take what a chain's store does
//! on top of it; [`model`] compares both with maps, over random operations. What needs a crash (a killed process, a
//! failing disk) cannot be written for all backends alike; [`numbered`] has the batches for such tests, and [`mod@file`] a file
//! that loses its power.
//! Call it from a crate's `tests/` folder, never from within the crate that has the trait: there two versions of it meet.
//! Never here: a backend, or anything that knows one.

use std::sync::Arc;

use craq_node::store::Backend;

/// Makes a module of this name with a `#[test]` for each case. The expression makes a fresh [`Subject`].
#[macro_export]
macro_rules! conformance {
    ($name:ident, $subject:expr) => {
        mod $name {
            use super::*;

            $crate::each_case!(tests $subject);
        }
    };
}

/// The list of cases, for [`conformance!`] and [`CASES`].
#[doc(hidden)]
#[macro_export]
macro_rules! each_case {
    (@list $($module:ident::$case:ident)*) => {
        &[$($crate::Case { name: stringify!($case), run: $crate::$module::$case }),*]
    };
    (@tests $subject:expr; $($module:ident::$case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::$module::$case(&$subject);
            }
        )*
    };
    (list) => { $crate::each_case! { @all list } };
    (tests $subject:expr) => { $crate::each_case! { @all tests $subject; } };
    (@all $how:ident $($subject:tt)*) => { $crate::each_case! { @$how $($subject)*
        tables::a_table_never_written_is_empty
        tables::what_is_put_is_found_until_it_is_deleted
        tables::the_last_change_on_a_key_wins
        tables::an_empty_batch_changes_nothing
        tables::tables_are_apart
        tables::a_cleared_table_is_empty_and_can_be_filled_again
        tables::values_of_every_size_come_back
        tables::keys_of_every_length_come_back
        tables::a_batch_of_many_changes_is_done_whole
        tables::the_size_is_told
        scans::keys_are_ordered_as_unsigned_bytes
        scans::a_range_has_its_start_and_not_its_end
        scans::an_empty_range_has_no_keys
        scans::a_scan_ends_when_it_is_told
        snapshots::a_snapshot_stands_still
        snapshots::a_snapshot_has_all_that_returned_before_it
        snapshots::each_snapshot_keeps_its_own_state
        snapshots::a_reader_sees_a_batch_whole_or_not_at_all
        snapshots::readers_and_the_writer_do_not_wait_for_each_other
        reopening::what_was_applied_is_there_again
        reopening::what_was_removed_stays_removed
        reopening::big_values_and_binary_keys_are_there_again
        reopening::tables_of_every_number_are_there_again
        reopening::a_node_and_its_chains_are_there_again
        layout::a_committed_write_is_read_back
        layout::an_unknown_position_has_no_row
        layout::dirty_versions_are_read_by_position
        layout::a_walk_yields_exactly_the_rows_in_order
        layout::a_sweep_drops_older_versions_and_nothing_else
        layout::writing_the_same_again_changes_nothing
        layout::a_sequence_thrown_away_can_be_written_anew
        layout::a_wipe_leaves_only_the_view
        layout::outcomes_are_kept_and_dropped
        layout::parts_of_a_write_take_effect_in_their_order
        layout::every_kind_of_row_comes_back
        layout::big_values_come_back
        layout::a_page_stands_still_while_rows_are_swept
        layout::readers_find_every_row_that_is_done
        layout::chains_are_apart
        layout::a_changed_byte_is_never_returned
        log_pages::only_rows_above_are_returned
        log_pages::a_page_ends_between_entries
        log_pages::a_page_has_at_least_one_entry
        log_pages::gaps_in_the_log_are_passed_over
        log_pages::an_empty_range_is_exhausted
        log_pages::pages_of_every_size_add_up_to_the_log
        model::random_batches_match_a_map
        model::random_store_writes_match_a_map
    } };
}

pub mod file;
pub mod layout;
pub mod log_pages;
pub mod model;
pub mod numbered;
pub mod reopening;
pub mod rows;
pub mod scans;
pub mod snapshots;
pub mod tables;

/// A store under test.
pub trait Subject {
    /// Opens the store: empty at first, later with all that was applied before. Called again only when everything that
    /// came from the call before has been dropped. A volatile one is opened once.
    fn open(&self) -> Arc<dyn Backend>;
}

/// One case of the suite.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What it states.
    pub name: &'static str,
    /// Panics if that isn't so. The subject must be fresh.
    pub run: fn(&dyn Subject),
}

/// All cases, for those who run them otherwise than by [`conformance!`].
pub const CASES: &[Case] = each_case!(list);

/// The backend that the README shows, compiled and put through the suite.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
