//! Arguments of the three programs, and keys and values as they stand among them.
//!
//! The command line of `craq` is no part of the client library, so its files are compiled here too.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use clap::Parser as _;

#[allow(dead_code, reason = "only what takes arguments is used")]
#[path = "../../../../client/src/cli"]
mod cli {
    pub(super) mod args;
    pub(super) mod bench {
        pub(super) mod args;
        mod keys;
    }
    pub(super) mod encoding;
    mod exit;
}

/// The first byte says which program; its arguments are separated by zero bytes, as the system has them.
pub(super) fn command_line(bytes: &[u8]) {
    let Some((program, bytes)) = bytes.split_first() else { return };
    let arguments = || bytes.split(|byte| *byte == 0).map(OsStr::from_bytes);
    match program % 3 {
        0 => craq(std::iter::once(OsStr::new("craq")).chain(arguments())),
        1 => {
            let words = std::iter::once(OsStr::new("craq-node")).chain(arguments());
            if let Ok(config) = craq_node::Config::try_parse_from(words)
                && config.check().is_ok()
            {
                let _ = config.replica();
                let _ = config.public_address(([0, 0, 0, 0], 1235).into());
            }
        }
        _ => {
            let words = std::iter::once(OsStr::new("craq-coordinator")).chain(arguments());
            let _ = craq_coordinator::Config::try_parse_from(words).map(|config| config.check());
        }
    }
}

fn craq<'a>(words: impl Iterator<Item = &'a OsStr>) {
    use cli::{
        args::{Args, Command},
        encoding::Encoding,
    };
    let Ok(args) = Args::try_parse_from(words) else { return };
    let encoding = Encoding::of(&args.globals);
    if let Command::Write(write) = &args.command {
        for text in std::iter::once(&write.key).chain(&write.value) {
            let Ok(bytes) = encoding.decode(text) else { continue };
            let shown = encoding.plain(&bytes);
            assert_eq!(encoding.decode(OsStr::from_bytes(&shown)).ok(), Some(bytes), "{text:?}");
        }
    }
}

/// Bytes in each encoding: there and back.
pub(super) fn encodings(bytes: &[u8]) {
    use cli::encoding::{Encoding, shown};
    for encoding in [Encoding::Plain, Encoding::Hex, Encoding::Base64] {
        let plain = encoding.plain(bytes);
        assert_eq!(encoding.decode(OsStr::from_bytes(&plain)).ok().as_deref(), Some(bytes));
        if let Ok(decoded) = encoding.decode(OsStr::from_bytes(bytes)) {
            assert_eq!(encoding.decode(OsStr::from_bytes(&encoding.plain(&decoded))).ok(), Some(decoded));
        }
        assert!(!encoding.table(bytes).chars().any(char::is_control), "a table stays in its lines");
        let (text, name) = encoding.json(bytes);
        assert!(name != "utf8" || text.as_bytes() == bytes);
    }
    assert!(shown(bytes).len() <= 64 * 4 + 32, "a key in a message is short");
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let lines = [
        "\x00write\0key\0a\0value",
        "\x00write\0--if-version\x003\0--hex\0ff00\0abcd",
        "\x00write\0--base64\0a2V5\0dmFsdWU=\0--request-id\0order-17",
        "\x00-c\0:1,b:2\0--timeout\x001s\0read\0key\0--consistency\0bounded:500ms",
        "\x00list\0user/\0--limit\x0020\0--keys-only\0-o\0json",
        "\x00delete\0key\0--if-version\x003",
        "\x00node\0remove\0a:1\0--accept-data-loss",
        "\x00chain\0reorder\0a:1\0b:2",
        "\x00playground\0--nodes\x005\0--once",
        "\x00bench\0mixed\0--clients\x001,8\0--distribution\0zipf:0.99\0--rate\x0010\0-o\0csv",
        "\x00bench\0paper\0dir\0--nodes\x001,3\0--cap\x0020",
        "\x01-a\0:7\0-p\0h:8\0-c\0:9,h:10\0-f\0x.db\0--cache-size\x0064MiB\0--lease\x00350ms",
        "\x01--value-bytes-max\x003MiB\0--requests-max\x0010\0--store\0memory\0--first",
        "\x02-a\0:7\0--failure-timeout\x003s\0--heartbeat-interval\x001s\0--log-format\0json",
    ];
    lines.iter().map(|line| line.as_bytes().to_vec()).collect()
}
