//! The committed log, read a page at a time: for a link that opens, and for a learner.

use std::sync::Arc;

use craq_node::replica::event::StoreWrite;
use craq_proto::{Entry, Row, Seq};

use crate::{
    Subject,
    rows::{Chain, entry, mutation, rows_of, simple},
};

const ALL: usize = usize::MAX;

fn page(stage: &Chain, after: u64, up_to: u64, bytes_max: usize) -> (Vec<Row>, u64) {
    let (rows, through) = stage.chain.read_log(Seq(after), Seq(up_to), bytes_max).expect("read_log");
    (rows, through.0)
}

fn pair(seq: u64) -> Arc<Entry> {
    entry(seq, vec![mutation(b"a", seq, Some(&[1; 100])), mutation(b"b", seq, Some(&[2; 100]))])
}

fn filled(subject: &dyn Subject, entries: &[Arc<Entry>]) -> Chain {
    let stage = Chain::open(subject);
    stage.append(entries);
    stage
}

/// Exactly those above `after`, up to `up_to`.
pub fn only_rows_above_are_returned(subject: &dyn Subject) {
    let entries: Vec<_> = (1..=5).map(|seq| simple(seq, "k")).collect();
    let stage = filled(subject, &entries);
    assert_eq!(page(&stage, 0, 5, ALL), (rows_of(&entries), 5));
    assert_eq!(page(&stage, 2, 4, ALL), (rows_of(&entries[2..4]), 4));
    assert_eq!(page(&stage, 4, 99, ALL), (rows_of(&entries[4..]), 99));
    assert_eq!(page(&stage, 5, 99, ALL), (vec![], 99));
    assert_eq!(page(&stage, 3, u64::MAX, ALL), (rows_of(&entries[3..]), u64::MAX));
}

/// An entry is in a page whole or not at all, and the page keeps to its bytes.
pub fn a_page_ends_between_entries(subject: &dyn Subject) {
    let entries: Vec<_> = (1..=4).map(pair).collect();
    let stage = filled(subject, &entries);
    let weight = |entries: &[Arc<Entry>]| rows_of(entries).iter().map(Row::weight).sum::<usize>();
    let two = weight(&entries[..2]);
    assert_eq!(page(&stage, 0, 4, two), (rows_of(&entries[..2]), 2));
    assert_eq!(page(&stage, 0, 4, two + 1), (rows_of(&entries[..2]), 2));
    assert_eq!(page(&stage, 0, 4, two - 1), (rows_of(&entries[..1]), 1));
    let half_more = two + rows_of(&entries[2..3])[0].weight();
    assert_eq!(page(&stage, 0, 4, half_more), (rows_of(&entries[..2]), 2), "half of an entry fits");
    assert_eq!(page(&stage, 0, 4, weight(&entries)), (rows_of(&entries), 4));
}

/// However small the page.
pub fn a_page_has_at_least_one_entry(subject: &dyn Subject) {
    let stage = filled(subject, &[pair(1), pair(2)]);
    assert_eq!(page(&stage, 0, 2, 0), (rows_of(&[pair(1)]), 1));
    assert_eq!(page(&stage, 1, 2, 1), (rows_of(&[pair(2)]), 2));
}

/// A compacted log has gaps, and entries of which not all rows are left.
pub fn gaps_in_the_log_are_passed_over(subject: &dyn Subject) {
    let stage = filled(subject, &[pair(1), pair(2), pair(9), pair(10)]);
    stage.write(&StoreWrite { remove_rows: vec![(Seq(1), 0), (Seq(9), 1)], ..StoreWrite::default() });
    let rows = stage.rows();
    assert_eq!(rows.len(), 6);
    assert_eq!(page(&stage, 0, 10, ALL), (rows.clone(), 10));
    assert_eq!(page(&stage, 2, 8, ALL), (vec![], 8), "nothing lies in the gap");
    let (found, through) = page(&stage, 1, 10, rows[1].weight() * 2);
    assert_eq!(found, rows[1..3]);
    assert!((2..=8).contains(&through), "nothing is missing up to {through}");
    assert_eq!(page(&stage, through, 10, 0), (rows[3..4].to_vec(), 9));
}

/// Also one that ends before it begins.
pub fn an_empty_range_is_exhausted(subject: &dyn Subject) {
    let stage = filled(subject, &[simple(1, "a"), simple(2, "b")]);
    assert_eq!(page(&stage, 2, 2, ALL), (vec![], 2));
    assert_eq!(page(&stage, 0, 0, 0), (vec![], 0));
    assert_eq!(page(&stage, 2, 1, ALL), (vec![], 1));
    assert_eq!(page(&stage, u64::MAX, u64::MAX, ALL), (vec![], u64::MAX));
}

/// From page to page nothing is lost or doubled, whatever their size.
pub fn pages_of_every_size_add_up_to_the_log(subject: &dyn Subject) {
    let wide = |seq: u64| (0..seq % 4).map(|i| mutation(&[i as u8], seq, Some(&[0; 30]))).collect();
    let entries: Vec<_> = (1..60).filter(|seq| seq % 7 > 1).map(|seq| entry(seq, wide(seq))).collect();
    let stage = filled(subject, &entries);
    for bytes_max in [0, 100, 130, 300, 1000, 5000] {
        let (mut rows, mut after, mut pages) = (Vec::new(), 0, 0);
        while after < 70 {
            let (more, through) = page(&stage, after, 70, bytes_max);
            assert!(through > after, "a page after {after} leads to {through}");
            rows.extend(more);
            (after, pages) = (through, pages + 1);
        }
        assert!(rows == rows_of(&entries), "pages of {bytes_max} bytes do not add up");
        assert!(pages > 1, "{bytes_max} bytes are one page");
    }
}
