//! `list`: a range of keys, page by page as they come.

use std::pin::pin;

use craq_client::{Item, Page, Range};
use futures::TryStreamExt as _;
use serde::Serialize;

use super::{
    args::{Format, Globals, ListArgs},
    encoding::Encoding,
    kv::is_utf8,
    output::{Number, Output},
    session::Session,
};

/// Lists keys and values.
pub(crate) async fn list(globals: &Globals, args: ListArgs) -> anyhow::Result<()> {
    let prefix = args.prefix.as_deref().map(|prefix| Encoding::of(globals).decode(prefix)).transpose()?;
    let mut range = Range::prefix(prefix.unwrap_or_default());
    if let Some(limit) = args.limit {
        range = range.limit(limit);
    }
    if args.keys_only {
        range = range.keys_only();
    }
    let session = Session::open(globals).await?;
    let options = session.of_read(globals).consistency(args.consistency);
    let mut pages = pin!(session.client.scan_pages(range, options));
    let mut output = Output::new(globals);
    while let Some(page) = pages.try_next().await? {
        print(&mut output, &page, args.keys_only)?;
        output.flush()?;
    }
    output.finish()
}

fn print(output: &mut Output, page: &Page, keys_only: bool) -> anyhow::Result<()> {
    let encoding = output.encoding;
    match output.format() {
        Format::Plain => {
            for item in &page.items {
                output.raw(&encoding.plain(&item.key))?;
                if !keys_only {
                    output.raw(b"\t")?;
                    output.raw(&encoding.plain(&item.value))?;
                }
                output.raw(b"\n")?;
            }
            Ok(())
        }
        Format::Json => page
            .items
            .iter()
            .try_for_each(|item| output.json(&ItemJson::new(encoding, item, page, keys_only))),
        Format::Table | Format::Csv if page.items.is_empty() => Ok(()),
        Format::Table | Format::Csv if keys_only => {
            let row = |item: &Item| [encoding.table(&item.key), item.version.to_string()];
            output.table(["key", "version"], page.items.iter().map(row))
        }
        Format::Table | Format::Csv => {
            let row = |item: &Item| {
                [encoding.table(&item.key), encoding.table(&item.value), item.version.to_string()]
            };
            output.table(["key", "value", "version"], page.items.iter().map(row))
        }
    }
}

/// One key of the range. The names of the fields are a contract, the same as with `read`.
#[derive(Serialize)]
struct ItemJson {
    key: String,
    #[serde(skip_serializing_if = "is_utf8")]
    key_encoding: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    version: Number,
    seq: Number,
    chain: &'static str,
    epoch: Number,
}

impl ItemJson {
    fn new(encoding: Encoding, item: &Item, page: &Page, keys_only: bool) -> Self {
        let (key, key_encoding) = encoding.json(&item.key);
        let (value, encoding) = (!keys_only).then(|| encoding.json(&item.value)).unzip();
        Self {
            key,
            key_encoding,
            value,
            encoding,
            version: Number(item.version.0),
            seq: Number(item.seq.0),
            chain: "default",
            epoch: Number(page.epoch.0),
        }
    }
}
