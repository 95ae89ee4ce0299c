//! `write`, `read` and `delete`: one key each.

use std::io::{IsTerminal as _, Read as _};

use anyhow::Context as _;
use craq_client::{Condition, Error, Options, ReadOutcome, WriteOutcome, proto::Version};
use serde::Serialize;

use super::{
    args::{DeleteArgs, Format, Globals, ReadArgs, WriteArgs},
    encoding::Encoding,
    exit::not_found,
    output::{Number, Output},
    session::Session,
};

/// Writes a key.
pub(crate) async fn write(globals: &Globals, args: WriteArgs) -> anyhow::Result<()> {
    let encoding = Encoding::of(globals);
    let key = encoding.decode(&args.key)?;
    let value = value(encoding, &args)?;
    let session = Session::open(globals).await?;
    let mut options = session.options;
    if args.if_absent {
        options = options.condition(Condition::Absent);
    }
    if let Some(version) = args.if_version {
        options = options.condition(Condition::Version(Version(version)));
    }
    if let Some(request) = args.request_id {
        options = options.request(request);
    }
    let outcome = session.client.write_with(key.clone(), value, &options).await?;
    changed(globals, &key, &outcome)
}

/// Deletes a key.
pub(crate) async fn delete(globals: &Globals, args: DeleteArgs) -> anyhow::Result<()> {
    let key = Encoding::of(globals).decode(&args.key)?;
    let session = Session::open(globals).await?;
    let mut options: Options = session.options;
    if let Some(version) = args.if_version {
        options = options.condition(Condition::Version(Version(version)));
    }
    if let Some(request) = args.request_id {
        options = options.request(request);
    }
    match session.client.delete_with(key.clone(), &options).await {
        Ok(outcome) => changed(globals, &key, &outcome),
        Err(Error::NotFound) => Err(not_found(&key)),
        Err(error) => Err(error.into()),
    }
}

/// Reads a key.
pub(crate) async fn read(globals: &Globals, args: ReadArgs) -> anyhow::Result<()> {
    let key = Encoding::of(globals).decode(&args.key)?;
    let session = Session::open(globals).await?;
    let options = session.of_read(globals).consistency(args.consistency);
    let read = session.client.read_with(key.clone(), &options).await?;
    let Some(value) = &read.value else { return Err(not_found(&key)) };
    let mut output = Output::new(globals);
    let encoding = output.encoding;
    match output.format() {
        Format::Plain if args.raw => output.raw(&encoding.plain(value))?,
        Format::Plain => {
            if args.meta {
                output.line(meta(&read))?;
            }
            output.line(encoding.plain(value))?;
        }
        Format::Json => output.json(&ReadJson::new(encoding, &key, value, &read))?,
        Format::Table | Format::Csv => {
            let row =
                [encoding.table(&key), encoding.table(value), read.version.to_string(), read.seq.to_string()];
            output.table(
                ["key", "value", "version", "seq", "epoch", "path", "node"],
                [extend(row, [read.epoch.to_string(), read.path.as_str().to_owned(), read.node.clone()])],
            )?;
        }
    }
    output.finish()
}

fn extend(front: [String; 4], back: [String; 3]) -> [String; 7] {
    let ([a, b, c, d], [e, f, g]) = (front, back);
    [a, b, c, d, e, f, g]
}

/// The value that is meant: words, a file, or stdin.
fn value(encoding: Encoding, args: &WriteArgs) -> anyhow::Result<Vec<u8>> {
    if let Some(file) = &args.file {
        return std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    }
    if args.value.is_empty() || args.value == ["-"] {
        let mut stdin = std::io::stdin();
        if stdin.is_terminal() {
            eprintln!("The value is read from the terminal; Ctrl-D ends it.");
        }
        let mut value = Vec::new();
        stdin.read_to_end(&mut value).context("cannot read stdin")?;
        return Ok(value);
    }
    encoding.decode(&args.value.join(std::ffi::OsStr::new(" ")))
}

/// Prints what a write or a deletion made.
fn changed(globals: &Globals, key: &[u8], outcome: &WriteOutcome) -> anyhow::Result<()> {
    let mut output = Output::new(globals);
    match output.format() {
        Format::Plain => output.line(format!("OK version={}", outcome.version))?,
        Format::Json => output.json(&WriteJson::new(output.encoding, key, outcome))?,
        Format::Table | Format::Csv => {
            let numbers =
                [outcome.version.0, outcome.seq.0, outcome.epoch.0].map(|number| number.to_string());
            let [version, seq, epoch] = numbers;
            output.table(
                ["key", "version", "seq", "epoch"],
                [[output.encoding.table(key), version, seq, epoch]],
            )?;
        }
    }
    output.finish()
}

fn meta(read: &ReadOutcome) -> String {
    let ReadOutcome { version, seq, commit, epoch, node, .. } = read;
    let path = read.path.as_str();
    format!("version={version} seq={seq} commit={commit} epoch={epoch} path={path} node={node}")
}

/// A value that was read. The names of the fields are a contract.
#[derive(Serialize)]
struct ReadJson<'a> {
    key: String,
    #[serde(skip_serializing_if = "is_utf8")]
    key_encoding: &'static str,
    value: String,
    encoding: &'static str,
    version: Number,
    seq: Number,
    commit: Number,
    chain: &'static str,
    epoch: Number,
    path: &'static str,
    node: &'a str,
}

impl<'a> ReadJson<'a> {
    fn new(encoding: Encoding, key: &[u8], value: &[u8], read: &'a ReadOutcome) -> Self {
        let ((key, key_encoding), (value, encoding)) = (encoding.json(key), encoding.json(value));
        Self {
            key,
            key_encoding,
            value,
            encoding,
            version: Number(read.version.0),
            seq: Number(read.seq.0),
            commit: Number(read.commit.0),
            chain: "default",
            epoch: Number(read.epoch.0),
            path: read.path.as_str(),
            node: &read.node,
        }
    }
}

/// A write or a deletion. The names of the fields are a contract.
#[derive(Serialize)]
struct WriteJson {
    key: String,
    #[serde(skip_serializing_if = "is_utf8")]
    key_encoding: &'static str,
    version: Number,
    seq: Number,
    chain: &'static str,
    epoch: Number,
    request_id: String,
}

impl WriteJson {
    fn new(encoding: Encoding, key: &[u8], outcome: &WriteOutcome) -> Self {
        let (key, key_encoding) = encoding.json(key);
        Self {
            key,
            key_encoding,
            version: Number(outcome.version.0),
            seq: Number(outcome.seq.0),
            chain: "default",
            epoch: Number(outcome.epoch.0),
            request_id: outcome.request.to_string(),
        }
    }
}

/// Whether a field is what JSON strings are anyway, so that its encoding need not be told.
pub(crate) fn is_utf8(encoding: &&'static str) -> bool {
    *encoding == "utf8"
}
