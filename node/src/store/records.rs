//! The store's smaller records: numbers, names, the view, outcomes of requests.
//!
//! Each is sealed: a format byte, a CRC-32 over the record's key and its content, the content. A record that stands under
//! another key than its own does not open. Numbers are big endian; the view is JSON, so that fields can be added to it.
//! Never here: rows of the log (see `encoding`), and which records there are (see `directory` and `chain_store`).

use bytes::{BufMut, Bytes, BytesMut};
use craq_proto::{ClientId, NodeId, Outcome, Seq, Version, View, id::NUMBER_MAX};
use serde::{Deserialize, Serialize};

use super::{StoreError, encoding::Fields};
use crate::replica::event::StoredView;

const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 5;

/// The record for this content, to be put under this key.
pub(super) fn seal(key: &[u8], content: &[u8]) -> Bytes {
    let mut record = BytesMut::with_capacity(HEAD_BYTES + content.len());
    record.put_u8(FORMAT);
    record.put_u32(checksum(key, content));
    record.put_slice(content);
    record.freeze()
}

/// The content of the record that was found under this key.
pub(super) fn unseal<'a>(key: &[u8], record: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let Some(([format, sum @ ..], content)) = record.split_first_chunk::<HEAD_BYTES>() else {
        return Err(corrupt(key, "it is cut off"));
    };
    if *format != FORMAT {
        return Err(corrupt(key, "its format is unknown"));
    }
    if u32::from_be_bytes(*sum) != checksum(key, content) {
        return Err(corrupt(key, "its checksum does not match"));
    }
    Ok(content)
}

/// The number that was sealed under this key.
pub(super) fn unseal_number(key: &[u8], record: &[u8]) -> Result<u64, StoreError> {
    let content = unseal(key, record)?;
    let number = content.try_into().map(u64::from_be_bytes).map_err(|_| corrupt(key, "it is no number"))?;
    if number > NUMBER_MAX { Err(corrupt(key, "its number is out of range")) } else { Ok(number) }
}

/// The record of a view.
pub(super) fn seal_view(key: &[u8], stored: &StoredView) -> Bytes {
    let record = ViewRecord { view: stored.view.clone(), bound: stored.bound.clone() };
    let json = serde_json::to_vec(&record).expect("a view has only fields that JSON can hold");
    seal(key, &json)
}

/// The view that was sealed under this key.
pub(super) fn unseal_view(key: &[u8], record: &[u8]) -> Result<StoredView, StoreError> {
    let record: ViewRecord = serde_json::from_slice(unseal(key, record)?)
        .map_err(|error| corrupt(key, &format!("it is no view: {error}")))?;
    record.view.check().map_err(|wrong| corrupt(key, wrong))?;
    Ok(StoredView { view: record.view, bound: record.bound })
}

/// The key of an outcome. Keys have the order of the sequences.
pub(super) fn outcome_key(seq: Seq) -> [u8; 8] {
    seq.0.to_be_bytes()
}

/// The record of an outcome.
pub(super) fn seal_outcome(outcome: &Outcome) -> Bytes {
    let mut content = BytesMut::with_capacity(32 + 8 * outcome.versions.len());
    content.put_slice(outcome.client.0.as_bytes());
    content.put_u64(outcome.number);
    content.put_u64(outcome.floor);
    outcome.versions.iter().for_each(|version| content.put_u64(version.0));
    seal(&outcome_key(outcome.seq), &content)
}

/// The outcome that was sealed under this key.
pub(super) fn unseal_outcome(key: &[u8], record: &[u8]) -> Result<Outcome, StoreError> {
    let content = unseal(key, record)?;
    parse_outcome(key, content).ok_or_else(|| corrupt(key, "it is no outcome"))
}

fn parse_outcome(key: &[u8], content: &[u8]) -> Option<Outcome> {
    let seq = Seq(u64::from_be_bytes(key.try_into().ok()?));
    let mut fields = Fields(content);
    let (client, number, floor) = (ClientId(fields.uuid()?), fields.u64()?, fields.u64()?);
    let mut versions = Vec::with_capacity(fields.0.len() / 8);
    while !fields.0.is_empty() {
        versions.push(Version(fields.u64()?));
    }
    let is_in_range = [seq.0, number, floor].into_iter().all(|n| n <= NUMBER_MAX);
    is_in_range.then_some(Outcome { client, number, floor, seq, versions })
}

#[derive(Serialize, Deserialize)]
struct ViewRecord {
    view: View,
    bound: Vec<NodeId>,
}

fn checksum(key: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(content);
    hasher.finalize()
}

fn corrupt(key: &[u8], why: &str) -> StoreError {
    StoreError::Corrupt(format!("record {}: {why}", key.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use craq_proto::{ChainId, Epoch, Incarnation, Learner, Member};
    use proptest::{collection::vec, prelude::*};
    use uuid::Uuid;

    use super::*;

    fn outcome() -> Outcome {
        let client = ClientId(Uuid::from_u128(1));
        Outcome { client, number: 5, floor: 4, seq: Seq(9), versions: vec![Version(1), Version(300)] }
    }

    fn stored_view() -> StoredView {
        let node = |n| NodeId(Uuid::from_u128(n));
        let address = "a:1".to_owned();
        let member = Member { node: node(1), incarnation: Incarnation(2), in_sync: true, address };
        let learner =
            Learner { node: node(2), incarnation: Incarnation(1), source: node(1), address: "b:1".into() };
        let view = View {
            chain: ChainId::default_chain(),
            epoch: Epoch(3),
            members: vec![member],
            learners: vec![learner],
            reason: "n2 joins".into(),
            rebuilt_in: Epoch::ZERO,
            expelled: Vec::new(),
        };
        StoredView { view, bound: vec![node(7)] }
    }

    #[test]
    fn records_survive() {
        let outcome = outcome();
        let key = outcome_key(outcome.seq);
        assert_eq!(unseal_outcome(&key, &seal_outcome(&outcome)).unwrap(), outcome);
        assert_eq!(unseal_view(b"view", &seal_view(b"view", &stored_view())).unwrap(), stored_view());
        assert_eq!(unseal_number(b"n", &seal(b"n", &7_u64.to_be_bytes())).unwrap(), 7);
    }

    #[test]
    fn the_layout_is_final() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let number = seal(b"commit", &7_u64.to_be_bytes());
        assert_eq!(hex(&number), "01 3be04247 0000000000000007".replace(' ', ""));
        let outcome_bytes = "01 da03c36c 00000000000000000000000000000001 0000000000000005 0000000000000004 \
                             0000000000000001 000000000000012c";
        assert_eq!(hex(&seal_outcome(&outcome())), outcome_bytes.replace(' ', ""));
        let view = seal_view(b"view", &stored_view());
        let (one, two) = ("00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002");
        let members = format!(r#"[{{"node":"{one}","incarnation":2,"in_sync":true,"address":"a:1"}}]"#);
        let learners = format!(r#"[{{"node":"{two}","incarnation":1,"source":"{one}","address":"b:1"}}]"#);
        let bound = r#"["00000000-0000-0000-0000-000000000007"]"#;
        let fields = format!(r#""chain":"default","epoch":3,"members":{members},"learners":{learners}"#);
        let json = format!(r#"{{"view":{{{fields},"reason":"n2 joins"}},"bound":{bound}}}"#);
        assert_eq!(std::str::from_utf8(unseal(b"view", &view).unwrap()).unwrap(), json);
    }

    #[test]
    fn a_view_that_a_later_version_wrote_with_more_fields_opens() {
        let record = seal_view(b"view", &stored_view());
        let mut json = unseal(b"view", &record).unwrap().to_vec();
        json.splice(0..1, *b"{\"later\":1,");
        assert_eq!(unseal_view(b"view", &seal(b"view", &json)).unwrap(), stored_view());
    }

    #[test]
    fn what_no_program_writes_is_refused_although_its_checksum_matches() {
        assert!(unseal_number(b"commit", &seal(b"commit", &u64::MAX.to_be_bytes())).is_err());
        let mut stored = stored_view();
        stored.view.learners[0].node = stored.view.members[0].node;
        let twice = unseal_view(b"view", &seal_view(b"view", &stored)).unwrap_err().to_string();
        assert_eq!(twice, "the store is corrupt: record view: a node stands twice in a view");
        let late = Outcome { seq: Seq(u64::MAX), ..outcome() };
        assert!(unseal_outcome(&outcome_key(late.seq), &seal_outcome(&late)).is_err());
    }

    #[test]
    fn no_changed_bit_passes_and_no_other_key() {
        let record = seal_view(b"view", &stored_view()).to_vec();
        for bit in 0..record.len() * 8 {
            let mut changed = record.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal_view(b"view", &changed).is_err(), "bit {bit}");
        }
        assert!(unseal_view(b"veiw", &record).is_err());
        assert!(unseal_number(b"n", &seal(b"n", b"short")).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoders_panic(key in vec(any::<u8>(), 0..12), bytes in vec(any::<u8>(), 0..80)) {
            prop_assert!(unseal(&key, &bytes).is_err());
            let sealed = seal(&key, &bytes);
            let in_range = |number: &[u8]| number.first().is_some_and(|first| *first < 128);
            let whole = key.len() == 8 && bytes.len() >= 32 && bytes.len() % 8 == 0;
            let counts = whole && in_range(&key) && in_range(&bytes[16..]) && in_range(&bytes[24..]);
            prop_assert_eq!(unseal_outcome(&key, &sealed).is_ok(), counts);
            prop_assert_eq!(unseal_number(&key, &sealed).is_ok(), bytes.len() == 8 && in_range(&bytes));
            prop_assert!(unseal_view(&key, &sealed).is_err());
        }
    }
}
