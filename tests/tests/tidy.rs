//! Is the source as the conventions say, where that can be held by a test?

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lines of a file without its tests; the point at which to split it.
const LINES_MAX: usize = 600;
/// Lines of a file of tests.
const TEST_LINES_MAX: usize = 800;

/// The modules that decide: no clock, no socket, no disk, no thread.
const PURE: [&str; 8] = [
    "node/src/replica",
    "coordinator/src/cluster",
    "coordinator/src/leadership",
    "client/src/routing.rs",
    "client/src/retry.rs",
    "proto/src/view.rs",
    "proto/src/entry.rs",
    "proto/src/id.rs",
];

/// What a pure module never names.
const IMPURE: [&str; 9] = [
    "tokio::",
    "tonic::",
    "redb::",
    "fjall::",
    "std::fs",
    "std::net",
    "std::thread",
    "Instant::now",
    "SystemTime",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// A source file: its path from the workspace's root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The text without its inline test module.
    fn shipped(&self) -> &str {
        let end = self.text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        &self.text[..end]
    }

    /// Whether it is a test, whole.
    fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    fn is_pure(&self) -> bool {
        !self.is_test() && PURE.iter().any(|pure| self.path.starts_with(pure))
    }

    /// The lines of code, comments left out, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.shipped().lines().enumerate();
        lines
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(number, line)| (number + 1, line.split(" // ").next().unwrap_or(line)))
    }
}

fn sources() -> Vec<Source> {
    let mut found = vec![];
    for member in ["proto", "node", "coordinator", "client", "storetest", "tests"] {
        collect(&root().join(member), &mut found);
    }
    assert!(found.len() > 80, "only {} files were found", found.len());
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            let path = path.strip_prefix(root()).expect("below the root").display().to_string();
            found.push(Source { path, text });
        }
    }
}

/// Fails with every line that was found wrong.
fn none(what: &str, wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}

#[test]
fn every_file_says_what_it_is() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//! "));
    none("files without a header", silent.map(|source| source.path).collect());
}

#[test]
fn no_file_is_too_long() {
    let lines = |source: &Source| source.shipped().lines().count();
    let most = |source: &Source| if source.is_test() { TEST_LINES_MAX } else { LINES_MAX };
    let long = sources().into_iter().filter(|source| lines(source) > most(source));
    none("split by concern", long.map(|source| format!("{}: {}", source.path, lines(&source))).collect());
}

#[test]
fn nothing_is_left_to_be_done() {
    // In pieces, so that this file does not name them.
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["dbg", "!("].concat(), ["XX", "X"].concat()];
    let mut wrong = vec![];
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                wrong.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    none("left over", wrong);
}

#[test]
fn pure_modules_name_nothing_impure() {
    let mut wrong = vec![];
    let sources = sources();
    let pure: Vec<_> = sources.iter().filter(|source| source.is_pure()).collect();
    for of in PURE {
        assert!(pure.iter().any(|source| source.path.starts_with(of)), "{of} is gone");
    }
    for source in pure {
        for (number, line) in source.code() {
            if IMPURE.iter().any(|impure| line.contains(impure)) {
                wrong.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    none("impure", wrong);
}

/// The lints of the pure modules hold for what is below the file that turns them on.
#[test]
fn pure_modules_turn_their_lints_on() {
    let deny = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";
    let roots = [
        "node/src/replica/mod.rs",
        "coordinator/src/cluster/mod.rs",
        "coordinator/src/leadership/mod.rs",
        "client/src/routing.rs",
        "client/src/retry.rs",
        "proto/src/view.rs",
    ];
    let off = roots.into_iter().filter(|path| {
        let text = fs::read_to_string(root().join(path)).unwrap_or_default();
        !text.contains(deny)
    });
    none("without the lints", off.map(str::to_owned).collect());
}

#[test]
fn a_backend_alone_names_its_crate() {
    // From the root: `super::redb::` is the module's own name.
    let names = |line: &str, name: &str| {
        let path = format!("::{name}::");
        let is_absolute = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric());
        line.starts_with(&format!("use {name}::")) || line.match_indices(&path).any(|(at, _)| is_absolute(at))
    };
    assert!(names("fn of(error: &::redb::Error) {", "redb") && !names("super::redb::open()", "redb"));
    let mut wrong = vec![];
    for (name, home) in [("redb", "node/src/store/redb.rs"), ("fjall", "node/src/store/fjall/")] {
        for source in sources().iter().filter(|source| source.path.starts_with("node/src")) {
            if !source.path.starts_with(home) && source.code().any(|(_, line)| names(line, name)) {
                wrong.push(format!("{name} in {}", source.path));
            }
        }
    }
    none("a backend's crate is named outside of its home", wrong);
}

/// What ARCHITECTURE.md names as a file or folder is there.
#[test]
fn the_architecture_names_what_exists() {
    let Ok(text) = fs::read_to_string(root().join("ARCHITECTURE.md")) else { return };
    let mut wrong = vec![];
    for word in text.split('`').skip(1).step_by(2) {
        let is_path = word.contains('/') && !word.contains([' ', '*', '<', '{', ':', '$', '(']);
        let first = word.split('/').next().unwrap_or_default();
        let is_ours = ["proto", "node", "coordinator", "client", "storetest", "tests"].contains(&first);
        if is_path && is_ours && !root().join(word).exists() {
            wrong.push(word.to_owned());
        }
    }
    none("named, but not there", wrong);
}
