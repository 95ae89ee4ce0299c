//! The only way to stdout. Data alone goes there.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};

use comfy_table::{Table, presets};
use serde::Serialize;

use super::{
    args::{Format, Globals},
    encoding::Encoding,
};

/// Writes results to stdout in the wanted form.
pub(crate) struct Output {
    /// The wanted form; none: the command's own default.
    pub(crate) format: Option<Format>,
    /// How keys and values stand in it.
    pub(crate) encoding: Encoding,
    stdout: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(globals: &Globals) -> Self {
        Self { format: globals.format, encoding: Encoding::of(globals), stdout: BufWriter::new(io::stdout()) }
    }

    /// For what is made for people only.
    pub(crate) fn for_people() -> Self {
        Self { format: None, encoding: Encoding::Plain, stdout: BufWriter::new(io::stdout()) }
    }

    /// The wanted form, plain unless named.
    pub(crate) fn format(&self) -> Format {
        self.format.unwrap_or(Format::Plain)
    }

    /// The wanted form; unless named, a table on a terminal and plain elsewhere.
    pub(crate) fn format_for_people(&self) -> Format {
        let default = if io::stdout().is_terminal() { Format::Table } else { Format::Plain };
        self.format.unwrap_or(default)
    }

    /// Bytes, as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.stdout.write_all(bytes)?)
    }

    /// Bytes and a newline.
    pub(crate) fn line(&mut self, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        self.raw(bytes.as_ref())?;
        self.raw(b"\n")
    }

    /// An object on a line of its own.
    pub(crate) fn json(&mut self, object: &impl Serialize) -> anyhow::Result<()> {
        self.line(serde_json::to_vec(object)?)
    }

    /// A table with these headings.
    pub(crate) fn table<const N: usize>(
        &mut self,
        headings: [&str; N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) -> anyhow::Result<()> {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(headings).add_rows(rows);
        self.line(table.to_string())
    }

    /// Hands on what has been written so far.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.stdout.flush()?)
    }

    /// Hands on all that has been written. To be called at the end: only here is it known whether it arrived.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        self.flush()
    }
}

/// A number in JSON.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
pub(crate) struct Number(#[serde(serialize_with = "craq_client::json_number")] pub(crate) u64);
