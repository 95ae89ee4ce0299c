//! Reading a range of keys, page by page.
//!
//! Each page is read at one sequence. When a node fails, the range goes on after the last page that arrived, at another
//! node; so no key of the range is told twice, and none is left out.

use std::time::Duration;

use bytes::Bytes;
use craq_proto::{ErrorKind, Seq, Time, Version, entry::checksum, wire};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use tonic::Streaming;

use crate::{
    Client, Error, Item, Options, Page, RequestToken,
    call::{Call, failed, reply, run, sent},
    channels::Connection,
    failure::Failure,
    kv::{READ_ATTEMPT_TIMEOUT, client, read_epoch},
    retry::Retries,
    routing::Routes,
    shared::Shared,
};

/// Which keys to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Range {
    start: Bytes,
    end: Bytes,
    limit: Option<u64>,
    keys_only: bool,
}

impl Range {
    /// All keys.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The keys from `start` to before `end`; an empty `end` stands for the end of all keys.
    #[must_use]
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: end.into(), ..Self::default() }
    }

    /// The keys that begin with these bytes.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        // The first key after all that begin so: the last byte that can grow grows, what follows it falls away.
        let mut end = start.to_vec();
        while end.last() == Some(&u8::MAX) {
            end.pop();
        }
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Self { start, end: end.into(), ..Self::default() }
    }

    /// At most so many keys.
    #[must_use]
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Leaves the values out.
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }
}

impl Client {
    /// Reads a range of keys, in order. Of the options, `consistency`, `timeout` (for each page), `node` and
    /// `at_least` count. The stream ends after its first error.
    pub fn scan(
        &self,
        range: Range,
        options: Options,
    ) -> impl Stream<Item = Result<Item, Error>> + Send + use<> {
        self.scan_pages(range, options).map_ok(|page| stream::iter(page.items).map(Ok)).try_flatten()
    }

    /// As [`Client::scan`], page by page.
    pub fn scan_pages(
        &self,
        range: Range,
        options: Options,
    ) -> impl Stream<Item = Result<Page, Error>> + Send + use<> {
        let left = range.limit.unwrap_or(u64::MAX);
        let walk = Walk {
            client: self.clone(),
            call: PageCall { range, options, left, open: Mutex::new(None) },
            done: left == 0,
        };
        stream::unfold(walk, |mut walk| async move {
            let page = walk.next().await?;
            walk.done |= page.is_err();
            Some((page, walk))
        })
    }
}

/// A range on its way.
struct Walk {
    client: Client,
    call: PageCall,
    done: bool,
}

impl Walk {
    async fn next(&mut self) -> Option<Result<Page, Error>> {
        if self.done {
            return None;
        }
        let until = match self.client.begin(&self.call.options) {
            Ok(until) => until,
            Err(error) => return Some(Err(error)),
        };
        let (page, next) = match run(&self.client.shared, &self.call, &mut Retries::of_read(), until).await {
            Ok(read) => read,
            Err(error) => return Some(Err(error)),
        };
        self.call.left = self.call.left.saturating_sub(page.items.len() as u64);
        self.done = next.is_empty() || self.call.left == 0;
        self.call.range.start = next;
        Some(Ok(page))
    }
}

/// A stream of pages that is open at a node.
struct Open {
    target: String,
    connection: Connection,
    pages: Streaming<wire::Page>,
}

/// The next page of a range.
struct PageCall {
    range: Range,
    options: Options,
    left: u64,
    /// The stream from which the last page came.
    open: Mutex<Option<Open>>,
}

impl Call for PageCall {
    type Reply = (Page, Bytes);

    fn fixed(&self) -> Option<&str> {
        self.options.node.as_deref()
    }

    /// An open stream goes on where it is.
    fn route(&self, routes: &mut Routes, now: Time) -> Option<String> {
        let open = self.open.lock().as_ref().map(|open| open.target.clone());
        open.or_else(|| routes.reader(now, self.options.consistency.is_weak()))
    }

    fn attempt_timeout(&self) -> Option<Duration> {
        Some(READ_ATTEMPT_TIMEOUT)
    }

    async fn attempt(
        &self,
        shared: &Shared,
        target: &str,
        until: Instant,
        _: Option<RequestToken>,
    ) -> Result<(Page, Bytes), Failure> {
        let open = self.open.lock().take();
        let mut open = match open {
            Some(open) => open,
            None => self.open_at(shared, target, until).await?,
        };
        let page = match timeout_at(until, open.pages.message()).await {
            Ok(Ok(Some(page))) => page,
            Ok(Ok(None)) => return Err(Failure::no_answer(target, "the range ended without a last page")),
            Ok(Err(status)) => return Err(failed(shared, target, &open.connection, &status)),
            Err(_) => return Err(Failure::no_answer(target, "no page in time")),
        };
        let read = self.check(shared, target, page)?;
        *self.open.lock() = Some(open);
        Ok(read)
    }
}

impl PageCall {
    async fn open_at(&self, shared: &Shared, target: &str, until: Instant) -> Result<Open, Failure> {
        let connection = shared.channels.get(target, until).await?;
        let (consistency, bound_ms) = self.options.consistency.to_wire();
        let message = wire::ScanRequest {
            header: Some(shared.header(read_epoch(shared, &self.options))),
            start: self.range.start.clone(),
            end: self.range.end.clone(),
            limit: if self.range.limit.is_some() { self.left } else { 0 },
            keys_only: self.range.keys_only,
            consistency: consistency.into(),
            bound_ms,
            min_seq: self.options.at_least.0,
        };
        let mut client = client(connection.channel.clone());
        // Without a deadline: that would be one for the whole stream. Each page has its own.
        let opened = sent(shared, target, &connection, client.scan(message));
        let pages = reply(shared, target, until, false, opened).await?;
        Ok(Open { target: target.to_owned(), connection, pages })
    }

    /// Checks a page: checksums, order, and that the range goes on.
    fn check(&self, shared: &Shared, target: &str, page: wire::Page) -> Result<(Page, Bytes), Failure> {
        let epoch = shared.check(page.header, target)?;
        let corrupt = |reason| Failure::bad_answer(target, ErrorKind::Corrupt, reason);
        let mut last: Option<&Bytes> = None;
        for item in &page.items {
            if !self.range.keys_only && checksum(&item.key, &item.value) != item.checksum {
                return Err(corrupt("a value does not match its checksum"));
            }
            if item.key < self.range.start || last.is_some_and(|last| item.key <= *last) {
                return Err(corrupt("a page is out of order"));
            }
            last = Some(&item.key);
        }
        if !page.next.is_empty()
            && (page.next <= self.range.start || last.is_some_and(|last| page.next <= *last))
        {
            return Err(corrupt("a page does not go on"));
        }
        shared.saw(page.seq);
        let items = page.items.into_iter().map(|item| Item {
            key: item.key,
            value: item.value,
            version: Version(item.version),
            seq: Seq(item.seq),
        });
        let read = Page { items: items.collect(), seq: Seq(page.seq), epoch };
        Ok((read, page.next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_the_range_of_all_keys_that_begin_so() {
        let range = |prefix: &'static [u8]| {
            let range = Range::prefix(prefix);
            (range.start.to_vec(), range.end.to_vec())
        };
        assert_eq!(range(b"user/"), (b"user/".to_vec(), b"user0".to_vec()));
        assert_eq!(range(b"a\xff\xff"), (b"a\xff\xff".to_vec(), b"b".to_vec()));
        assert_eq!(range(b"\xff"), (b"\xff".to_vec(), vec![]));
        assert_eq!(range(b""), (vec![], vec![]));
    }
}
