//! Rows of the log on disk: their keys, their records, and the checksums that let no flipped bit pass.
//!
//! The layout is final: a change gets a new format number, and the old one stays readable. All numbers are big endian.
//!
//! ```text
//! key     seq u64, index u32
//! record  0  format        u8    1
//!         1  flags         u8    1: request, 2: mutation, 4: the mutation is a deletion, 8: expiry (refused so far)
//!         2  checksum      u32   CRC-32 of the key, and of the record up to the mutation's key without this field
//!         6  count         u32   rows that the entry had when it was made
//!        10  origin epoch  u64
//!        18  forget_through u64
//!        26  request       client 16 bytes, number u64, floor u64, born u64           if flagged
//!            mutation      version u64, checksum u32, key length u16, key, value      if flagged
//! ```
//!
//! The mutation's own checksum covers its key and value; it was made where the write entered, and is stored as it came.
//! Decoding copies nothing, never panics whatever the bytes are, and refuses what no encoder writes.
//! Never here: which rows are kept, and why (see `chain_store`). The smaller records are in `records`.

use bytes::{BufMut, Bytes, BytesMut};
use craq_proto::{
    ClientId, Epoch, Key, Mutation, Op, RequestId, Row, Seq, Value, Version, id::NUMBER_MAX,
    key::VALUE_BYTES_CEILING,
};

use super::StoreError;

/// Length of a row's key, in bytes.
pub const ROW_KEY_BYTES: usize = 12;

const FORMAT: u8 = 1;
const CHECKSUM: std::ops::Range<usize> = 2..6;
const FIXED_BYTES: usize = 26;
const REQUEST_BYTES: usize = 40;
const MUTATION_BYTES: usize = 14;

mod flag {
    pub(super) const REQUEST: u8 = 1;
    pub(super) const MUTATION: u8 = 2;
    pub(super) const DELETE: u8 = 4;
    pub(super) const EXPIRY: u8 = 8;
    pub(super) const KNOWN: u8 = REQUEST | MUTATION | DELETE;
}

/// The key under which a row stands. Keys have the order of `(seq, index)`.
#[must_use]
pub fn row_key(seq: Seq, index: u32) -> [u8; ROW_KEY_BYTES] {
    let mut key = [0; ROW_KEY_BYTES];
    key[..8].copy_from_slice(&seq.0.to_be_bytes());
    key[8..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The sequence and index that a row's key names.
pub fn decode_row_key(key: &[u8]) -> Result<(Seq, u32), StoreError> {
    let mut fields = Fields(key);
    match (fields.u64(), fields.u32(), fields.0) {
        (Some(seq), Some(index), []) => Ok((Seq(seq), index)),
        _ => Err(StoreError::Corrupt(format!("a row's key has {} bytes", key.len()))),
    }
}

/// The record of a row.
#[must_use]
pub fn encode_row(row: &Row) -> Bytes {
    let body = row.mutation.as_ref().map_or(0, |m| m.key.as_bytes().len() + m.value_bytes().len());
    let mut record = BytesMut::with_capacity(FIXED_BYTES + REQUEST_BYTES + MUTATION_BYTES + body);
    record.put_u8(FORMAT);
    record.put_u8(flags(row));
    record.put_u32(0);
    record.put_u32(row.count);
    record.put_u64(row.origin_epoch.0);
    record.put_u64(row.forget_through.0);
    if let Some(request) = &row.request {
        record.put_slice(request.client.0.as_bytes());
        record.put_u64(request.number);
        record.put_u64(request.floor);
        record.put_u64(request.born.0);
    }
    if let Some(mutation) = &row.mutation {
        let key_bytes = u16::try_from(mutation.key.as_bytes().len()).expect("a key's limit fits in 16 bits");
        record.put_u64(mutation.version.0);
        record.put_u32(mutation.checksum);
        record.put_u16(key_bytes);
    }
    let sum = checksum(row.seq, row.index, &record);
    record[CHECKSUM].copy_from_slice(&sum.to_be_bytes());
    if let Some(mutation) = &row.mutation {
        record.put_slice(mutation.key.as_bytes());
        record.put_slice(mutation.value_bytes());
    }
    record.freeze()
}

/// The row whose record this is. Its key and value are slices of the record.
///
/// Fails with [`StoreError::Corrupt`] if anything is not as it was written; the error names the row, never the value.
pub fn decode_row(seq: Seq, index: u32, record: &Bytes) -> Result<Row, StoreError> {
    decode(seq, index, record).map_err(|why| StoreError::Corrupt(format!("row ({seq}, {index}): {why}")))
}

fn decode(seq: Seq, index: u32, record: &Bytes) -> Result<Row, &'static str> {
    const SHORT: &str = "the record is cut off";
    let mut fields = Fields(record);
    let (format, flags) = (fields.u8().ok_or(SHORT)?, fields.u8().ok_or(SHORT)?);
    if format != FORMAT {
        return Err("the record's format is unknown");
    }
    if flags & flag::EXPIRY != 0 {
        return Err("the row has an expiry, which this version does not know");
    }
    let stored_sum = fields.u32().ok_or(SHORT)?;
    let count = fields.u32().ok_or(SHORT)?;
    let origin_epoch = Epoch(fields.u64().ok_or(SHORT)?);
    let forget_through = Seq(fields.u64().ok_or(SHORT)?);
    let request = if flags & flag::REQUEST == 0 { None } else { Some(fields.request().ok_or(SHORT)?) };
    let head = if flags & flag::MUTATION == 0 { None } else { Some(fields.mutation_head().ok_or(SHORT)?) };
    let body_at = record.len() - fields.0.len();
    if checksum(seq, index, &record[..body_at]) != stored_sum {
        return Err("the record's checksum does not match");
    }
    // From here on a refusal means that a program wrote what this one would not, not that bits have changed.
    if flags & !flag::KNOWN != 0 || index >= count {
        return Err("the record contradicts itself");
    }
    let version = head.as_ref().map_or(0, |head| head.version.0);
    let asked = request.as_ref().map_or(0, |request| request.number.max(request.floor).max(request.born.0));
    if [seq.0, origin_epoch.0, forget_through.0, version, asked].into_iter().any(|n| n > NUMBER_MAX) {
        return Err("a number is out of range");
    }
    let body = record.slice(body_at..);
    let mutation = match head {
        Some(head) => Some(head.with_body(flags & flag::DELETE != 0, &body)?),
        None if count == 1 && flags & flag::DELETE == 0 && body.is_empty() => None,
        None => return Err("the record contradicts itself"),
    };
    Ok(Row { seq, index, count, origin_epoch, request, mutation, forget_through })
}

fn flags(row: &Row) -> u8 {
    let request = if row.request.is_some() { flag::REQUEST } else { 0 };
    let mutation = match &row.mutation {
        Some(mutation) if mutation.is_delete() => flag::MUTATION | flag::DELETE,
        Some(_) => flag::MUTATION,
        None => 0,
    };
    request | mutation
}

/// Of the row's key and the record's head, without the field that holds it.
fn checksum(seq: Seq, index: u32, head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&row_key(seq, index));
    hasher.update(&head[..CHECKSUM.start]);
    hasher.update(&head[CHECKSUM.end..]);
    hasher.finalize()
}

/// The bytes that have not been read yet. Every read is `None` if there are too few.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn uuid(&mut self) -> Option<uuid::Uuid> {
        self.array().map(uuid::Uuid::from_bytes)
    }

    fn request(&mut self) -> Option<RequestId> {
        Some(RequestId {
            client: ClientId(self.uuid()?),
            number: self.u64()?,
            floor: self.u64()?,
            born: Seq(self.u64()?),
            retry: false,
        })
    }

    fn mutation_head(&mut self) -> Option<MutationHead> {
        let (version, checksum) = (Version(self.u64()?), self.u32()?);
        Some(MutationHead { version, checksum, key_bytes: usize::from(self.u16()?) })
    }
}

/// What a record says of its mutation before the key.
struct MutationHead {
    version: Version,
    checksum: u32,
    key_bytes: usize,
}

impl MutationHead {
    fn with_body(self, delete: bool, body: &Bytes) -> Result<Mutation, &'static str> {
        if self.key_bytes > body.len() {
            return Err("the record is cut off");
        }
        let key = Key::new(body.slice(..self.key_bytes)).map_err(|_| "the key's length is not legal")?;
        let value = body.slice(self.key_bytes..);
        let op = if !delete {
            Op::Put(Value::new(value, VALUE_BYTES_CEILING).map_err(|_| "the value is too long")?)
        } else if value.is_empty() {
            Op::Delete
        } else {
            return Err("a deletion has a value");
        };
        let mutation = Mutation { key, version: self.version, op, checksum: self.checksum };
        if !mutation.is_intact() {
            return Err("the checksum of key and value does not match");
        }
        Ok(mutation)
    }
}

#[cfg(test)]
mod tests {
    use craq_proto::entry;
    use proptest::{collection::vec, prelude::*};
    use uuid::Uuid;

    use super::*;

    fn mutation(key: &[u8], version: u64, value: Option<&[u8]>) -> Mutation {
        let value = value.map(|value| Value::new(value.to_vec(), usize::MAX).unwrap());
        let checksum = entry::checksum(key, value.as_ref().map_or(&[], |value| value.as_bytes()));
        let op = value.map_or(Op::Delete, Op::Put);
        Mutation { key: Key::new(key.to_vec()).unwrap(), version: Version(version), op, checksum }
    }

    fn golden() -> Row {
        let client = ClientId(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10));
        Row {
            seq: Seq(7),
            index: 1,
            count: 2,
            origin_epoch: Epoch(3),
            request: Some(RequestId { client, number: 5, floor: 4, born: Seq(6), retry: false }),
            mutation: Some(mutation(b"key", 9, Some(b"value"))),
            forget_through: Seq(2),
        }
    }

    fn count() -> std::ops::RangeInclusive<u64> {
        0..=NUMBER_MAX
    }

    fn any_row() -> impl Strategy<Value = Row> {
        let request =
            (any::<u128>(), [count(), count(), count()]).prop_map(|(client, [number, floor, born])| {
                RequestId {
                    client: ClientId(Uuid::from_u128(client)),
                    number,
                    floor,
                    born: Seq(born),
                    retry: false,
                }
            });
        let value = proptest::option::of(vec(any::<u8>(), 0..40));
        let changed = (vec(any::<u8>(), 1..40), count(), value, 0..5_u32, 1..5_u32).prop_map(
            |(key, version, value, index, more)| {
                (Some(mutation(&key, version, value.as_deref())), index, index + more)
            },
        );
        let body = prop_oneof![Just((None, 0, 1)), changed];
        let head = (count(), count(), count(), proptest::option::of(request));
        (head, body).prop_map(|((seq, epoch, forget, request), (mutation, index, count))| Row {
            seq: Seq(seq),
            index,
            count,
            origin_epoch: Epoch(epoch),
            request,
            mutation,
            forget_through: Seq(forget),
        })
    }

    proptest! {
        #[test]
        fn a_row_survives_its_record(row in any_row()) {
            let (seq, index) = decode_row_key(&row_key(row.seq, row.index)).unwrap();
            prop_assert_eq!(decode_row(seq, index, &encode_row(&row)).unwrap(), row);
        }

        #[test]
        fn keys_have_the_order_of_positions(a: (u64, u32), b: (u64, u32)) {
            prop_assert_eq!(a.cmp(&b), row_key(Seq(a.0), a.1).cmp(&row_key(Seq(b.0), b.1)));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(seq: u64, index: u32, bytes in vec(any::<u8>(), 0..200)) {
            prop_assert!(decode_row(Seq(seq), index, &bytes.clone().into()).is_err());
            let plausible = [&[FORMAT, bytes.first().map_or(0, |b| b & flag::KNOWN)][..], &bytes].concat();
            prop_assert!(decode_row(Seq(seq), index, &plausible.into()).is_err());
            prop_assert_eq!(decode_row_key(&bytes).is_ok(), bytes.len() == ROW_KEY_BYTES);
        }

        #[test]
        fn no_changed_bit_and_no_lost_byte_passes(row in any_row(), bit: prop::sample::Index) {
            let mut record = encode_row(&row).to_vec();
            let bit = bit.index(record.len() * 8);
            record[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode_row(row.seq, row.index, &record.clone().into()).is_err());
            record[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode_row(row.seq, row.index, &record[..bit / 8].to_vec().into()).is_err());
            record.push(0);
            prop_assert!(decode_row(row.seq, row.index, &record.into()).is_err());
        }
    }

    #[test]
    fn the_layout_is_final() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&row_key(Seq(7), 1)), "000000000000000700000001");
        let fixed = "00000002 0000000000000003 0000000000000002";
        let request = "0102030405060708090a0b0c0d0e0f10 0000000000000005 0000000000000004 0000000000000006";
        let body = "0000000000000009 af3c3810 0003 6b6579 76616c7565";
        let expected = format!("01 03 3fd41f33 {fixed} {request} {body}").replace(' ', "");
        assert_eq!(hex(&encode_row(&golden())), expected);
    }

    #[test]
    fn a_row_under_another_position_is_refused() {
        let record = encode_row(&golden());
        assert!(decode_row(Seq(7), 1, &record).is_ok());
        assert!(decode_row(Seq(7), 0, &record).is_err());
        assert!(decode_row(Seq(8), 1, &record).is_err());
    }

    #[test]
    fn a_refusal_names_the_row_and_not_the_value() {
        let mut record = encode_row(&golden()).to_vec();
        *record.last_mut().unwrap() ^= 1;
        let text = decode_row(Seq(7), 1, &record.into()).unwrap_err().to_string();
        assert_eq!(text, "the store is corrupt: row (7, 1): the checksum of key and value does not match");
    }

    #[test]
    fn an_expiry_is_refused_and_so_is_a_later_format() {
        let refusal = |at: usize, value: u8| {
            let mut record = encode_row(&golden()).to_vec();
            record[at] = value;
            decode_row(Seq(7), 1, &record.into()).unwrap_err().to_string()
        };
        assert!(refusal(1, 3 | flag::EXPIRY).contains("expiry"), "{}", refusal(1, 3 | flag::EXPIRY));
        assert!(refusal(0, 2).contains("format"), "{}", refusal(0, 2));
    }

    /// What counts on from them would run past the end, and end the process.
    #[test]
    fn numbers_that_cannot_be_counted_on_from_are_refused() {
        let refusal = |row: Row| decode_row(row.seq, row.index, &encode_row(&row)).unwrap_err().to_string();
        for row in [
            Row { seq: Seq(u64::MAX), ..golden() },
            Row { origin_epoch: Epoch(NUMBER_MAX + 1), ..golden() },
            Row { forget_through: Seq(u64::MAX), ..golden() },
            Row { mutation: Some(mutation(b"key", u64::MAX, None)), ..golden() },
            Row { request: golden().request.map(|r| RequestId { born: Seq(u64::MAX), ..r }), ..golden() },
        ] {
            assert!(refusal(row.clone()).ends_with("a number is out of range"), "{row:?} was taken");
        }
    }

    #[test]
    fn decoding_copies_neither_key_nor_value() {
        let record = encode_row(&golden());
        let within = record.as_ptr_range();
        let mutation = decode_row(Seq(7), 1, &record).unwrap().mutation.unwrap();
        assert!(within.contains(&mutation.key.as_bytes().as_ptr()));
        assert!(within.contains(&mutation.value_bytes().as_ptr()));
    }
}
