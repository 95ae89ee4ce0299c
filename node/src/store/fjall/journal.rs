//! What is read of fjall's journals before fjall does: how far each of them is whole.
//!
//! A loss of power amid a batch can leave its end on the disk without its middle. fjall refuses to open such a store,
//! although nobody was told that the batch is done: the batch is cut off here. A journal that is damaged further up is
//! refused here, since fjall would drop what follows the damage, in silence. That the very last batch was damaged later,
//! and not torn, cannot be told.
//! Never here: what the batches hold.
//!
//! A journal (format 3) is a row of batches and then zeros: it is made with its full length. Numbers are little endian.
//!
//! ```text
//! batch  01 | items: u32 | sequence: u64 |  item … |  03 | xxh3 of the items: u64 | "FJL" 03
//! item   02 | kind: u8 | 00 | keyspace: u64 | key's length: u16 | value's: u32 | the same: u32 | key | value
//! clear  04 | keyspace: u64          (an item too)
//! ```

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use super::StoreError;

const TRAILER: &[u8] = b"FJL\x03";

/// Checks the journals in a store's directory, and cuts off a batch that the newest of them ends amid.
///
/// Fails with [`StoreError::Corrupt`] if a journal is damaged before its end.
pub(super) fn check(directory: &Path) -> Result<(), StoreError> {
    let journals = journals(directory).map_err(|error| unreadable(directory, &error))?;
    let newest = journals.len().saturating_sub(1);
    for (place, path) in journals.iter().enumerate() {
        let bytes = fs::read(path).map_err(|error| unreadable(path, &error))?;
        match end(&bytes) {
            End::Clean => {}
            End::Torn(at) if place == newest => cut(path, at).map_err(|error| unreadable(path, &error))?,
            End::Torn(at) | End::Damaged(at) => {
                return Err(StoreError::Corrupt(format!("{} is damaged at byte {at}", path.display())));
            }
        }
    }
    Ok(())
}

/// The journals, the oldest first.
fn journals(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_journal = path.extension().is_some_and(|extension| extension == "jnl");
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let (true, Some(number)) = (is_journal, number) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn cut(path: &Path, at: usize) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(at as u64)?;
    file.sync_all()?;
    tracing::warn!("{}: a batch that was being written when the power failed is cut off", path.display());
    Ok(())
}

fn unreadable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Open(format!("{}: {error}", path.display()))
}

/// How a journal ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// With a batch, or with zeros after one.
    Clean,
    /// Amid a batch that begins here, the last one.
    Torn(usize),
    /// The batch that begins here is not whole, and others follow; or it is older than the one before it.
    Damaged(usize),
}

fn end(bytes: &[u8]) -> End {
    let bytes = without_zeros(bytes);
    let (mut at, mut sequence) = (0, 0);
    while let Some(found) = batch(&bytes[at..]) {
        // A batch's sequence is under no checksum. They rise.
        if found.sequence < sequence {
            return End::Damaged(at);
        }
        (at, sequence) = (at + found.bytes, found.sequence + 1);
    }
    let rest = &bytes[at..];
    if rest.iter().all(|byte| *byte == 0) {
        return End::Clean;
    }
    let others_follow = (1..rest.len()).any(|start| batch(&rest[start..]).is_some());
    if others_follow { End::Damaged(at) } else { End::Torn(at) }
}

/// The bytes without the blocks at their end that are all zero.
fn without_zeros(bytes: &[u8]) -> &[u8] {
    const BLOCK: [u8; 4096] = [0; 4096];
    let mut blocks = bytes.chunks(BLOCK.len()).enumerate();
    let last = blocks.rfind(|(_, block)| **block != BLOCK[..block.len()]);
    last.map_or(&[], |(number, block)| &bytes[..number * BLOCK.len() + block.len()])
}

/// A whole batch.
struct Found {
    bytes: usize,
    sequence: u64,
}

/// The whole batch that the bytes begin with.
fn batch(bytes: &[u8]) -> Option<Found> {
    let rest = &mut &bytes[..];
    if take(rest, 1)? != [1] {
        return None;
    }
    let items = number(rest)?;
    // The highest bit is never set; so the next one can be counted.
    let sequence = u64::from_le_bytes(take(rest, 8)?.try_into().ok()?) & (u64::MAX >> 1);
    let begin = bytes.len() - rest.len();
    for _ in 0..items {
        item(rest)?;
    }
    let sum = xxhash_rust::xxh3::xxh3_64(&bytes[begin..bytes.len() - rest.len()]);
    let is_whole = take(rest, 1)? == [3] && take(rest, 8)? == sum.to_le_bytes() && take(rest, 4)? == TRAILER;
    is_whole.then_some(Found { bytes: bytes.len() - rest.len(), sequence })
}

/// Passes over one item.
fn item(rest: &mut &[u8]) -> Option<()> {
    match take(rest, 1)? {
        [2] => {
            take(rest, 1)?;
            if take(rest, 1)? != [0] {
                return None; // It is compressed, which this program never asks for.
            }
            take(rest, 8)?;
            let key = u16::from_le_bytes(take(rest, 2)?.try_into().ok()?);
            let value = number(rest)?;
            if number(rest)? != value {
                return None;
            }
            take(rest, usize::from(key))?;
            take(rest, value as usize)?;
        }
        [4] => _ = take(rest, 8)?,
        _ => return None,
    }
    Some(())
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?))
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(bytes)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As fjall writes it: one put of this value.
    fn written(sequence: u64, value: &[u8]) -> Vec<u8> {
        let length = u32::try_from(value.len()).unwrap().to_le_bytes();
        let item = [&[2, 0, 0][..], &1_u64.to_le_bytes(), &[1, 0], &length, &length, b"k", value].concat();
        let sum = xxhash_rust::xxh3::xxh3_64(&item).to_le_bytes();
        let start = [&[1][..], &1_u32.to_le_bytes(), &sequence.to_le_bytes()].concat();
        [&start[..], &item, &[3], &sum, TRAILER].concat()
    }

    #[test]
    fn whole_batches_end_clean_with_and_without_zeros() {
        let mut bytes = [written(5, b"one"), written(6, &[0; 2000]), written(9, TRAILER)].concat();
        assert_eq!(end(&bytes), End::Clean);
        bytes.extend([0; 5000]);
        assert_eq!(end(&bytes), End::Clean);
        assert_eq!(end(&[]), End::Clean);
    }

    #[test]
    fn any_loss_in_the_last_batch_is_a_torn_end() {
        let (first, last) = (written(5, b"one"), written(6, &[7; 3000]));
        for lost in (0..last.len()).step_by(100) {
            let mut bytes = [&first[..], &last, &[0; 100]].concat();
            bytes[first.len() + lost..first.len() + last.len().min(lost + 512)].fill(0);
            assert!(matches!(end(&bytes), End::Torn(at) if at == first.len()), "{lost}");
            assert!(matches!(end(&bytes[..first.len() + lost]), End::Clean | End::Torn(_)), "{lost}");
        }
    }

    #[test]
    fn any_change_before_the_last_batch_is_damage() {
        let (first, last) = (written(5, b"one"), written(6, b"two"));
        for at in 0..first.len() {
            let mut bytes = [&first[..], &last].concat();
            bytes[at] ^= 0x10;
            assert!(matches!(end(&bytes), End::Damaged(_)), "byte {at}");
        }
    }
}
