//! Reading a range of keys, page by page, each page at one sequence (`protocol.md` 5).
//!
//! A page is planned while commits stand still and read from a snapshot taken then, so nothing in it can be swept away.
//! Pages are made as the caller takes them.

use std::sync::Arc;

use bytes::Bytes;
use craq_proto::{CallError, ErrorKind, Key, Seq, wire};

use super::{
    call::{Deadline, Patience, late},
    read::{Freshness, may_answer, with_newest_view},
};
use crate::{
    clock,
    driver::Chain,
    fatal,
    limits::{PAGE_BYTES_MAX, PAGE_KEYS_MAX},
    replica::{
        PageLook, Permit, Strength,
        event::{Input, Position, Reply},
    },
    store::ChainSnapshot,
};

/// What is left to read of a range.
#[derive(Debug, Clone)]
pub(super) struct Range {
    /// First key; empty: from the beginning.
    pub(super) start: Bytes,
    /// First key after it; none: to the end.
    pub(super) end: Option<Bytes>,
    /// At most so many keys; none: all.
    pub(super) limit: Option<u64>,
    pub(super) keys_only: bool,
}

/// A part of a range, as it was read.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) items: Vec<wire::Item>,
    pub(super) seq: Seq,
    /// Where the range goes on.
    pub(super) next: Option<Key>,
}

impl Range {
    /// What is left after this page; none: nothing.
    pub(super) fn after(mut self, page: &Page) -> Option<Self> {
        self.start = page.next.as_ref()?.as_bytes().clone();
        if let Some(limit) = &mut self.limit {
            *limit = limit.saturating_sub(page.items.len() as u64);
            if *limit == 0 {
                return None;
            }
        }
        Some(self)
    }

    fn keys_max(&self) -> usize {
        let limit = self.limit.and_then(|limit| usize::try_from(limit).ok());
        limit.unwrap_or(PAGE_KEYS_MAX).min(PAGE_KEYS_MAX)
    }
}

/// Reads the first page of the range.
pub(super) async fn page(
    chain: &Arc<Chain>,
    range: &Range,
    fresh: Freshness,
    deadline: Deadline,
) -> Result<Page, CallError> {
    let mut patience = Patience::new(deadline);
    loop {
        let refused = match attempt(chain, range, fresh, deadline).await {
            Err(error) if error.kind == ErrorKind::Unavailable => error,
            decided => return decided,
        };
        if !patience.wait().await {
            return Err(with_newest_view(chain, refused));
        }
    }
}

async fn attempt(
    chain: &Arc<Chain>,
    range: &Range,
    fresh: Freshness,
    deadline: Deadline,
) -> Result<Page, CallError> {
    let weak = Strength::Weak { bound: fresh.bound, min_seq: fresh.min_seq };
    let strength = if fresh.strong { Strength::Strong } else { weak };
    let (page, permit) = match read(chain, range, strength).await? {
        Some(read) => read,
        None => {
            let question = chain.ask(|ticket| Input::ReadPage { ticket });
            let answer = deadline.bound(question).await.ok_or_else(late)??;
            if let Reply::Refused(error) = answer.reply {
                return Err(error);
            }
            let read = read(chain, range, Strength::StrongAtOwnCommit).await?;
            read.ok_or_else(|| CallError::unavailable("the range is dirty again"))?
        }
    };
    if page.seq < fresh.min_seq {
        let text = format!("this replica knows the log up to {}, not to {}", page.seq, fresh.min_seq);
        return Err(CallError::unavailable(text));
    }
    if !may_answer(chain, permit) {
        return Err(CallError::unavailable("the read lease lapsed while the page was read"));
    }
    Ok(page)
}

/// Reads a page off the callers' threads; none: a key in it is dirty.
async fn read(
    chain: &Arc<Chain>,
    range: &Range,
    strength: Strength,
) -> Result<Option<(Page, Permit)>, CallError> {
    let (chain, range) = (Arc::clone(chain), range.clone());
    let reading = tokio::task::spawn_blocking(move || read_now(&chain, &range, strength));
    // A panic ends the process; what is left is a runtime that shuts down.
    reading.await.map_err(|_| CallError::unavailable("this node is stopping"))?
}

fn read_now(chain: &Chain, range: &Range, strength: Strength) -> Result<Option<(Page, Permit)>, CallError> {
    let mut snapshot = None;
    let mut pin = || snapshot = Some(chain.store.snapshot());
    let end = range.end.as_deref();
    let look = chain.reader.page(clock::now(), &range.start, end, range.keys_max(), strength, &mut pin);
    match look {
        PageLook::Serve { positions, permit, seq, next } => {
            let snapshot = match snapshot {
                Some(Ok(snapshot)) => snapshot,
                Some(Err(error)) => fatal::exit(&error.into()),
                None => return Err(CallError::unavailable("a page was planned without a snapshot")),
            };
            let (items, cut) = take(&snapshot, positions, range.keys_only)?;
            Ok(Some((Page { items, seq, next: cut.or(next) }, permit)))
        }
        PageLook::Dirty => Ok(None),
        PageLook::Refused(error) => Err(error),
    }
}

/// The items up to the page's limit in bytes, and the key that did not fit any more.
fn take(
    snapshot: &ChainSnapshot,
    positions: Vec<(Key, Position)>,
    keys_only: bool,
) -> Result<(Vec<wire::Item>, Option<Key>), CallError> {
    let mut items = Vec::with_capacity(positions.len());
    let mut bytes = 0;
    for (key, position) in positions {
        let item = if keys_only {
            wire::Item {
                key: key.as_bytes().clone(),
                version: position.version.0,
                seq: position.seq.0,
                ..wire::Item::default()
            }
        } else {
            item(snapshot, &key, position)?
        };
        bytes += item.key.len() + item.value.len();
        if bytes > PAGE_BYTES_MAX && !items.is_empty() {
            return Ok((items, Some(key)));
        }
        items.push(item);
    }
    Ok((items, None))
}

fn item(snapshot: &ChainSnapshot, key: &Key, position: Position) -> Result<wire::Item, CallError> {
    let found = snapshot.find(key, position).unwrap_or_else(|error| fatal::exit(&error.into()));
    let found = found.ok_or_else(|| {
        CallError::unavailable("a version was overwritten and swept while its page was read")
    })?;
    Ok(wire::Item {
        key: key.as_bytes().clone(),
        value: found.value,
        version: found.version.0,
        seq: found.seq.0,
        checksum: found.checksum,
    })
}
