//! Does the cluster follow its rules? Golden scripts, one scenario a file, and chains under random faults.
//!
//! A script's first line is the question. Then come commands, each followed by what the cluster did, indented.
//! `UPDATE_SCRIPTS=1 cargo test` writes what the cluster does now; read the difference before you commit it.

mod faults;
mod model;
mod rules;
mod script;

use std::{fs, path::Path};

use script::Script;

#[test]
fn every_script_produces_its_text() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cluster/tests/scripts");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 20, "scripts are missing: {paths:?}");
    let update = std::env::var_os("UPDATE_SCRIPTS").is_some();
    let mut different = Vec::new();
    for path in paths {
        let expected = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let produced = Script::run(name, &expected);
        if produced == expected {
            continue;
        }
        if update {
            fs::write(&path, produced).unwrap();
        } else {
            different.push(format!("{name}:\n{}", first_difference(&expected, &produced)));
        }
    }
    assert!(
        different.is_empty(),
        "scripts differ (UPDATE_SCRIPTS=1 rewrites them):\n{}",
        different.join("\n")
    );
}

fn first_difference(expected: &str, produced: &str) -> String {
    let (mut expected, mut produced) = (expected.lines(), produced.lines());
    for line in 1.. {
        match (expected.next(), produced.next()) {
            (None, None) => break,
            (old, new) if old == new => {}
            (old, new) => {
                let (old, new) = (old.unwrap_or("(end)"), new.unwrap_or("(end)"));
                return format!("  line {line}\n  expected {old}\n  produced {new}");
            }
        }
    }
    "  only the line ends differ".to_owned()
}
