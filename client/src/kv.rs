//! Reading and writing one key.

use std::time::Duration;

use bytes::Bytes;
use craq_proto::{
    Epoch, ErrorKind, Key, Seq, Time, Value, Version,
    entry::checksum,
    key::{MESSAGE_BYTES_MAX, VALUE_BYTES_CEILING},
    wire,
};
use tokio::time::Instant;
use tonic::transport::Channel;
use wire::{kv_client::KvClient, session_answer::Answer, session_call::Call};

use crate::{
    Client, Condition, Error, Options, ReadOutcome, RequestToken, WriteOutcome,
    call::{self, in_session, reply, run},
    failure::Failure,
    request::Ticket,
    retry::Retries,
    routing::Routes,
    shared::Shared,
};

/// How long one replica may take over a read before another is asked.
pub const READ_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

impl Client {
    /// Reads a key's newest committed value.
    pub async fn read(&self, key: impl Into<Bytes>) -> Result<ReadOutcome, Error> {
        self.read_with(key, &Options::new()).await
    }

    /// Reads a key. Of the options, `consistency`, `timeout`, `node` and `at_least` count.
    pub async fn read_with(&self, key: impl Into<Bytes>, options: &Options) -> Result<ReadOutcome, Error> {
        let call = ReadCall { key: Shared::key(key)?, options };
        run(&self.shared, &call, &mut Retries::of_read(), self.begin(options)?).await
    }

    /// Writes a key. When this returns well, the write is on stable storage at every member of the chain.
    pub async fn write(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<WriteOutcome, Error> {
        self.write_with(key, value, &Options::new()).await
    }

    /// Writes a key if the condition is true.
    pub async fn write_if(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        condition: Condition,
    ) -> Result<WriteOutcome, Error> {
        self.write_with(key, value, &Options::new().condition(condition)).await
    }

    /// Writes a key. Of the options, `condition`, `timeout`, `request` and `node` count.
    pub async fn write_with(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        options: &Options,
    ) -> Result<WriteOutcome, Error> {
        let value = Value::new(value, VALUE_BYTES_CEILING)?;
        self.change(Shared::key(key)?, Some(value.into_bytes()), options).await
    }

    /// Deletes a key; [`Error::NotFound`] if it does not exist.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<WriteOutcome, Error> {
        self.delete_with(key, &Options::new()).await
    }

    /// Deletes a key. Of the options, `condition`, `timeout`, `request` and `node` count.
    pub async fn delete_with(&self, key: impl Into<Bytes>, options: &Options) -> Result<WriteOutcome, Error> {
        self.change(Shared::key(key)?, None, options).await
    }

    async fn change(&self, key: Key, value: Option<Bytes>, options: &Options) -> Result<WriteOutcome, Error> {
        let until = self.begin(options)?;
        let shared = &self.shared;
        let ticket = match options.request {
            Some(token) => Ticket::of(token),
            None => shared.requests.begin(shared.seen()),
        };
        let mut retries = Retries::of_write(ticket.token());
        let call = ChangeCall { key, value, options, ticket };
        let outcome = run(shared, &call, &mut retries, until).await;
        if matches!(outcome, Err(Error::OutcomeUnknown { .. })) {
            shared.requests.keep(call.ticket, uuid::Uuid::new_v4());
        }
        outcome.map(|outcome| WriteOutcome { attempts: retries.attempts() + 1, ..outcome })
    }
}

/// Reads one key.
pub(crate) struct ReadCall<'a> {
    pub(crate) key: Key,
    pub(crate) options: &'a Options,
}

impl call::Call for ReadCall<'_> {
    type Reply = ReadOutcome;

    fn fixed(&self) -> Option<&str> {
        self.options.node.as_deref()
    }

    fn route(&self, routes: &mut Routes, now: Time) -> Option<String> {
        routes.reader(now, self.options.consistency.is_weak())
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
    ) -> Result<ReadOutcome, Failure> {
        let connection = shared.channels.get(target, until).await?;
        let asked = read_epoch(shared, self.options);
        let sent = in_session(shared, target, &connection, asked, until, question(&self.key, self.options));
        let (epoch, answer) = match reply(shared, target, until, false, sent).await? {
            (epoch, Answer::Read(answer)) => (epoch, answer),
            _ => return Err(Failure::no_answer(target, "a read was answered with something else")),
        };
        outcome(shared, target, &self.key, epoch, answer)
    }
}

/// The read of a key as a call of a session.
pub(crate) fn question(key: &Key, options: &Options) -> Call {
    let (consistency, bound_ms) = options.consistency.to_wire();
    Call::Read(wire::ReadRequest {
        header: None,
        key: key.as_bytes().clone(),
        consistency: consistency.into(),
        bound_ms,
        min_seq: options.at_least.0,
    })
}

/// What a replica's answer to a read says.
pub(crate) fn outcome(
    shared: &Shared,
    target: &str,
    key: &Key,
    epoch: Epoch,
    answer: wire::ReadReply,
) -> Result<ReadOutcome, Failure> {
    let path = answer.path().into();
    if answer.found && checksum(key.as_bytes(), &answer.value) != answer.checksum {
        return Err(Failure::bad_answer(target, ErrorKind::Corrupt, "the value does not match its checksum"));
    }
    shared.saw(answer.commit.max(answer.seq));
    Ok(ReadOutcome {
        value: answer.found.then_some(answer.value),
        version: Version(answer.version),
        seq: Seq(answer.seq),
        commit: Seq(answer.commit),
        epoch,
        path,
        node: target.to_owned(),
    })
}

/// Writes or deletes one key.
struct ChangeCall<'a> {
    key: Key,
    /// None: delete.
    value: Option<Bytes>,
    options: &'a Options,
    ticket: Ticket,
}

impl call::Call for ChangeCall<'_> {
    type Reply = WriteOutcome;

    fn fixed(&self) -> Option<&str> {
        self.options.node.as_deref()
    }

    fn route(&self, routes: &mut Routes, now: Time) -> Option<String> {
        routes.writer(now)
    }

    fn attempt_timeout(&self) -> Option<Duration> {
        None
    }

    async fn attempt(
        &self,
        shared: &Shared,
        target: &str,
        until: Instant,
        request: Option<RequestToken>,
    ) -> Result<WriteOutcome, Failure> {
        let connection = shared.channels.get(target, until).await?;
        let asked = if self.fixed().is_some() { Epoch::ZERO } else { shared.epoch() };
        let key = self.key.as_bytes().clone();
        let if_version = self.options.condition.map(Condition::version);
        let request = request.expect("every attempt of a write has its request");
        let request_id = Some((&self.ticket.id(request)).into());
        let call = if let Some(value) = self.value.clone() {
            let checksum = Some(checksum(&key, &value));
            Call::Write(wire::WriteRequest {
                header: None,
                key,
                value,
                if_version,
                request_id,
                checksum,
                handed_on: false,
            })
        } else {
            Call::Delete(wire::DeleteRequest { header: None, key, if_version, request_id, handed_on: false })
        };
        let sent = in_session(shared, target, &connection, asked, until, call);
        let (epoch, answer) = match reply(shared, target, until, self.fixed().is_none(), sent).await? {
            (epoch, Answer::Write(answer)) => (epoch, answer),
            _ => return Err(Failure::no_answer(target, "a write was answered with something else")),
        };
        shared.saw(answer.seq);
        Ok(WriteOutcome {
            version: Version(answer.version),
            seq: Seq(answer.seq),
            epoch,
            request: request.repeated(),
            attempts: 1,
        })
    }
}

/// The epoch under which a read is to be answered: any, if the replica answers alone or is the only one that may.
pub(crate) fn read_epoch(shared: &Shared, options: &Options) -> Epoch {
    let any = options.consistency.is_weak() || options.node.is_some();
    if any { Epoch::ZERO } else { shared.epoch() }
}

/// A client of the key-value service on a connection, with the limits of all messages.
pub(crate) fn client(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}
