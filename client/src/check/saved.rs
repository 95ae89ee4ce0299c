//! A history as lines of JSON, one call a line, to be kept and judged again. Times are in nanoseconds.

use std::{
    io::{self, BufRead, Write},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::history::{self, Op};

/// Writes a history down.
pub fn save(ops: &[Op], mut to: impl Write) -> io::Result<()> {
    for op in ops {
        serde_json::to_writer(&mut to, &Line::from(op))?;
        to.write_all(b"\n")?;
    }
    to.flush()
}

/// Reads a history; the number of the line that is none, and why, if there is one.
pub fn load(from: impl BufRead) -> Result<Vec<Op>, String> {
    let mut ops = Vec::new();
    for (number, line) in (1..).zip(from.lines()) {
        let at = |what: String| format!("line {number}: {what}");
        let line = line.map_err(|error| at(error.to_string()))?;
        if !line.trim().is_empty() {
            let line: Line = serde_json::from_str(&line).map_err(|error| at(error.to_string()))?;
            ops.push(line.op().map_err(at)?);
        }
    }
    Ok(ops)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    client: u32,
    invoked: u64,
    returned: u64,
    call: Call,
    outcome: Outcome,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    Read(Vec<String>),
    Write(Vec<Change>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    key: String,
    value: Option<Value>,
    #[serde(rename = "if")]
    condition: Condition,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Condition {
    Always,
    Version(u64),
    Exists,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Value {
    Utf8(String),
    Base64(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Applied { seq: u64, versions: Vec<u64> },
    Found(Vec<Found>),
    ConditionFailed { key: String, observed: u64 },
    NotApplied(String),
    Unknown(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Found {
    value: Option<Value>,
    version: u64,
    seq: u64,
}

impl Value {
    fn of(bytes: &Bytes) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Utf8(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    fn bytes(self) -> Result<Bytes, String> {
        match self {
            Self::Utf8(text) => Ok(text.into()),
            Self::Base64(text) => STANDARD.decode(text).map(Bytes::from).map_err(|error| error.to_string()),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl From<&Op> for Line {
    fn from(op: &Op) -> Self {
        let change = |change: &history::Change| Change {
            key: change.key.clone(),
            value: change.value.as_ref().map(Value::of),
            condition: match change.condition {
                history::Condition::Always => Condition::Always,
                history::Condition::Version(version) => Condition::Version(version),
                history::Condition::Exists => Condition::Exists,
            },
        };
        let found = |found: &history::Found| Found {
            value: found.value.as_ref().map(Value::of),
            version: found.version,
            seq: found.seq,
        };
        let call = match &op.call {
            history::Call::Read { keys } => Call::Read(keys.clone()),
            history::Call::Write { changes } => Call::Write(changes.iter().map(change).collect()),
        };
        let outcome = match op.outcome.clone() {
            history::Outcome::Applied { seq, versions } => Outcome::Applied { seq, versions },
            history::Outcome::Found(all) => Outcome::Found(all.iter().map(found).collect()),
            history::Outcome::ConditionFailed { key, observed } => Outcome::ConditionFailed { key, observed },
            history::Outcome::NotApplied(why) => Outcome::NotApplied(why),
            history::Outcome::Unknown(why) => Outcome::Unknown(why),
        };
        Self { client: op.client, invoked: nanos(op.invoked), returned: nanos(op.returned), call, outcome }
    }
}

impl Line {
    fn op(self) -> Result<Op, String> {
        let change = |change: Change| {
            Ok(history::Change {
                key: change.key,
                value: change.value.map(Value::bytes).transpose()?,
                condition: match change.condition {
                    Condition::Always => history::Condition::Always,
                    Condition::Version(version) => history::Condition::Version(version),
                    Condition::Exists => history::Condition::Exists,
                },
            })
        };
        let found = |found: Found| {
            let value = found.value.map(Value::bytes).transpose()?;
            Ok(history::Found { value, version: found.version, seq: found.seq })
        };
        let call = match self.call {
            Call::Read(keys) => history::Call::Read { keys },
            Call::Write(changes) => history::Call::Write {
                changes: changes.into_iter().map(change).collect::<Result<_, String>>()?,
            },
        };
        let outcome = match self.outcome {
            Outcome::Applied { seq, versions } => history::Outcome::Applied { seq, versions },
            Outcome::Found(all) => {
                history::Outcome::Found(all.into_iter().map(found).collect::<Result<_, String>>()?)
            }
            Outcome::ConditionFailed { key, observed } => history::Outcome::ConditionFailed { key, observed },
            Outcome::NotApplied(why) => history::Outcome::NotApplied(why),
            Outcome::Unknown(why) => history::Outcome::Unknown(why),
        };
        let (invoked, returned) = (Duration::from_nanos(self.invoked), Duration::from_nanos(self.returned));
        Ok(Op { client: self.client, call, invoked, returned, outcome })
    }
}
