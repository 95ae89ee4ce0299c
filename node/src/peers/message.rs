//! What is said on links, to the wire and back.

use std::sync::Arc;

use craq_proto::{
    Entry, Epoch, Row, Seq,
    convert::{Malformed, number},
    wire,
};

use crate::replica::event::{Message, Run};

/// An entry or a row that is about to be sent does not match its checksum any more.
#[derive(Debug)]
pub(crate) struct Damaged(pub(super) Seq);

/// The message as it travels. Nothing damaged leaves: the receiver could not tell whose fault it is.
pub(crate) fn to_wire(message: Message) -> Result<wire::link_message::Body, Damaged> {
    use wire::link_message::Body;
    Ok(match message {
        Message::Hello { commit, last, suffix } => {
            let run = |run: &Run| wire::Run {
                first: run.first.0,
                last: run.last.0,
                origin_epoch: run.origin_epoch.0,
            };
            let suffix = suffix.iter().map(run).collect();
            Body::Hello(wire::Hello { commit: commit.0, last: last.0, suffix })
        }
        Message::Level { commit, truncate_to } => {
            Body::Level(wire::Level { commit: commit.0, truncate_to: truncate_to.0 })
        }
        Message::Rows { rows, through, from_nothing, gc_floor } => {
            let is_damaged = |row: &&Row| row.mutation.as_ref().is_some_and(|mutation| !mutation.is_intact());
            if let Some(row) = rows.iter().find(is_damaged) {
                return Err(Damaged(row.seq));
            }
            let rows = rows.iter().map(Into::into).collect();
            Body::Rows(wire::Rows { rows, through: through.0, from_nothing, gc_floor: gc_floor.0 })
        }
        Message::RowsAck { through } => Body::RowsAck(wire::RowsAck { through: through.0 }),
        Message::CaughtUp { through, outcomes, more, forgotten_through } => {
            let outcomes = outcomes.iter().map(Into::into).collect();
            let forgotten_through = forgotten_through.0;
            Body::CaughtUp(wire::CaughtUp { through: through.0, outcomes, more, forgotten_through })
        }
        Message::Append { entries, durable, commit } => {
            let is_damaged =
                |entry: &&Arc<Entry>| entry.mutations.iter().any(|mutation| !mutation.is_intact());
            if let Some(entry) = entries.iter().find(is_damaged) {
                return Err(Damaged(entry.seq));
            }
            let entries = entries.iter().map(|entry| entry.as_ref().into()).collect();
            Body::Append(wire::Append { entries, durable: durable.0, commit: commit.0 })
        }
        Message::Ack { commit } => Body::Ack(wire::Ack { commit: commit.0 }),
    })
}

/// The message as it is meant. `Open` is none: it stands only at the beginning, where the service reads it.
pub(crate) fn from_wire(body: Option<wire::link_message::Body>) -> Result<Message, Malformed> {
    use wire::link_message::Body;
    let seq = |value| number(value, "a sequence on a link").map(Seq);
    Ok(match body.ok_or(Malformed::Missing("body"))? {
        Body::Open(_) => return Err(Malformed::Bad { field: "body", expected: "message on an open link" }),
        Body::Hello(hello) => {
            let run = |run: wire::Run| -> Result<Run, Malformed> {
                let origin_epoch = Epoch(number(run.origin_epoch, "run.origin_epoch")?);
                Ok(Run { first: seq(run.first)?, last: seq(run.last)?, origin_epoch })
            };
            let suffix = hello.suffix.into_iter().map(run).collect::<Result<_, _>>()?;
            Message::Hello { commit: seq(hello.commit)?, last: seq(hello.last)?, suffix }
        }
        Body::Level(level) => {
            Message::Level { commit: seq(level.commit)?, truncate_to: seq(level.truncate_to)? }
        }
        Body::Rows(rows) => Message::Rows {
            rows: rows.rows.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            through: seq(rows.through)?,
            from_nothing: rows.from_nothing,
            gc_floor: seq(rows.gc_floor)?,
        },
        Body::RowsAck(ack) => Message::RowsAck { through: seq(ack.through)? },
        Body::CaughtUp(caught_up) => Message::CaughtUp {
            through: seq(caught_up.through)?,
            outcomes: caught_up.outcomes.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            more: caught_up.more,
            forgotten_through: seq(caught_up.forgotten_through)?,
        },
        Body::Append(append) => {
            let entry = |entry: wire::Entry| Entry::try_from(entry).map(Arc::new);
            Message::Append {
                entries: append.entries.into_iter().map(entry).collect::<Result<_, _>>()?,
                durable: seq(append.durable)?,
                commit: seq(append.commit)?,
            }
        }
        Body::Ack(ack) => Message::Ack { commit: seq(ack.commit)? },
    })
}
