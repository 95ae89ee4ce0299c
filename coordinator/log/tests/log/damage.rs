//! Is a log that somebody has damaged refused, by the name of the record?

use std::{fs, path::Path};

use craq_log::{Log, LogError, Written};
use uuid::Uuid;

use super::support::{at, directory, open, soon, view};

async fn four_records(path: &Path) {
    let mut log = open(&directory(path), 1).await;
    assert_eq!(log.claim(soon()).await.unwrap(), Written::Won);
    for view in [view("default", 1, 1), view("default", 2, 1), view("other", 1, 1)] {
        assert_eq!(log.append(view, soon()).await.unwrap(), Written::Won);
    }
}

async fn refused(path: &Path) -> LogError {
    let me = craq_log::Holder { id: craq_proto::HolderId(Uuid::nil()), address: String::new() };
    let opened = Log::open(directory(path), me, std::time::Duration::ZERO).await;
    opened.expect_err("damage is noticed")
}

fn replace(path: &Path, seq: u64, from: &str, to: &str) {
    let text = fs::read_to_string(at::record(path, seq)).unwrap();
    let begin = text.find(from).unwrap() + from.len();
    fs::write(at::record(path, seq), format!("{}{to}{}", &text[..begin], &text[begin + to.len()..])).unwrap();
}

#[tokio::test]
async fn damage_is_refused_with_the_name_of_the_record() {
    type Damage = fn(&Path);
    let nil = "00000000-0000-0000-0000-000000000000";
    assert_eq!(nil, Uuid::nil().to_string());
    let damages: [(Damage, &str, &str); 9] = [
        (|path| fs::write(at::record(path, 2), "{").unwrap(), "00000000000000000002", "EOF"),
        (|path| fs::remove_file(at::record(path, 2)).unwrap(), "00000000000000000002", "missing"),
        (|path| fs::remove_file(at::record(path, 1)).unwrap(), "00000000000000000001", "missing"),
        (
            |path| assert!(fs::copy(at::record(path, 1), at::record(path, 5)).is_ok()),
            "00000000000000000005",
            "number 1",
        ),
        (|path| fs::write(path.join("log/readme"), "").unwrap(), "log/readme", "name"),
        (|path| fs::remove_file(path.join("cluster")).unwrap(), "cluster", "missing"),
        (
            |path| replace(path, 3, "\"previous\": \"", "00000000-0000-0000-0000-000000000000"),
            "00000000000000000003",
            "follows another record",
        ),
        (|path| replace(path, 4, "\"term\": ", "2"), "00000000000000000004", "the claim of its term 2"),
        (
            |path| replace(path, 3, "\"id\": \"", "00000000-0000-0000-0000-000000000000"),
            "00000000000000000003",
            "not by who leads",
        ),
    ];
    for (damage, name, what) in damages {
        let data = tempfile::tempdir().unwrap();
        four_records(data.path()).await;
        damage(data.path());
        let error = refused(data.path()).await;
        assert!(matches!(error, LogError::Corrupt { .. }) && !error.is_passing(), "{error}");
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(what), "{name}, {what}: {text}");
    }
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let data = tempfile::tempdir().unwrap();
    four_records(data.path()).await;
    fs::write(at::record(data.path(), 5), r#"{"format": 3, "what": "nobody knows"}"#).unwrap();
    let error = refused(data.path()).await;
    assert!(matches!(error, LogError::NewerFormat { found: 3, .. }), "{error}");
}
