//! A store's directory: whose it is, who has it open, and how it is made.
//!
//! Beside fjall's own files lies a mark. It is locked as long as the store is open, and it is empty until the store is made
//! whole: what a crash left of a creation holds nothing, and is made anew.
//! Never here: what is in the store.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
};

use ::fjall::{Database, Keyspace, KeyspaceCreateOptions};

use super::{StoreError, config, journal};

/// The file that says that a directory is a store of this program, and how its keys are laid out.
const MARK: &str = "craq-store";
const MARK_TEXT: &str = "fjall 1\n";
/// fjall's name for the one key space in which everything is.
const KEYSPACE: &str = "craq";
const REDB_MAGIC: &[u8] = b"redb";

/// A store that is open, and the locked mark.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) keyspace: Keyspace,
    pub(super) mark: File,
}

/// Opens the store in this directory, or makes it; the directory above must exist.
pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<Opened, StoreError> {
    let shown = path.display();
    let refuse = |error: io::Error| StoreError::Open(format!("{shown}: {error}"));
    if path.is_file() {
        return Err(StoreError::Open(is_a_file(path)));
    }
    make_directory(path)?;
    let mut mark = take_mark(path)?;
    let mut text = String::new();
    mark.read_to_string(&mut text).map_err(refuse)?;
    match text.as_str() {
        MARK_TEXT => {
            journal::check(path)?;
            let database = database(path, cache_bytes)?;
            if !database.keyspace_exists(KEYSPACE) {
                return Err(StoreError::Corrupt(format!("{shown}: the key space is gone")));
            }
            let keyspace = keyspace(path, &database)?;
            Ok(Opened { database, keyspace, mark })
        }
        "" => {
            remove_remains(path).map_err(refuse)?;
            let database = database(path, cache_bytes)?;
            let keyspace = keyspace(path, &database)?;
            sync_all(path).map_err(refuse)?;
            mark.write_all(MARK_TEXT.as_bytes()).and_then(|()| mark.sync_all()).map_err(refuse)?;
            Ok(Opened { database, keyspace, mark })
        }
        other => Err(StoreError::Open(format!(
            "{shown} has format {:?}; this version of craq reads {:?}",
            other.trim_end(),
            MARK_TEXT.trim_end()
        ))),
    }
}

/// Whether this directory is a store of the kind that this module makes.
pub(in crate::store) fn is_store(path: &Path) -> bool {
    path.join(MARK).is_file()
}

fn is_a_file(path: &Path) -> String {
    let mut magic = [0; REDB_MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    let shown = path.display();
    if read.is_ok() && magic == REDB_MAGIC {
        format!("{shown} is a store of redb: open it with --store redb, or name another --file")
    } else {
        format!("{shown} is a file; a store of fjall is a directory")
    }
}

fn make_directory(path: &Path) -> Result<(), StoreError> {
    let shown = path.display();
    let refuse = |error| StoreError::Open(format!("{shown}: {error}"));
    match fs::create_dir(path) {
        Ok(()) => {
            // What is acknowledged later must not vanish with the directory's entry.
            let above = path.parent().filter(|above| !above.as_os_str().is_empty());
            sync(above.unwrap_or(Path::new("."))).map_err(refuse)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(StoreError::Open(format!("the directory of {shown} does not exist")))
        }
        Err(error) => Err(refuse(error)),
    }
}

/// Opens and locks the mark; only an empty directory gets a new one.
fn take_mark(path: &Path) -> Result<File, StoreError> {
    let shown = path.display();
    let refuse = |error| StoreError::Open(format!("{shown}: {error}"));
    if !is_store(path) && fs::read_dir(path).map_err(refuse)?.next().is_some() {
        return Err(StoreError::Open(format!("{shown} is a directory that is no store of craq")));
    }
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join(MARK));
    let mark = open.map_err(refuse)?;
    match mark.try_lock() {
        Ok(()) => Ok(mark),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::Open(in_use(path))),
        Err(fs::TryLockError::Error(error)) => Err(refuse(error)),
    }
}

fn in_use(path: &Path) -> String {
    format!("{} is open already, in this process or in another one", path.display())
}

/// Removes what was left of a creation. The mark is empty, so that nothing was ever put into the store.
fn remove_remains(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false if entry.file_name() != MARK => fs::remove_file(entry.path())?,
            false => {}
        }
    }
    Ok(())
}

fn database(path: &Path, cache_bytes: usize) -> Result<Database, StoreError> {
    config(Database::builder(path), cache_bytes).open().map_err(|error| match error {
        ::fjall::Error::Locked => StoreError::Open(in_use(path)),
        ::fjall::Error::Io(error) => StoreError::Open(format!("{}: {error}", path.display())),
        error => match super::translate(&error) {
            StoreError::Corrupt(why) => StoreError::Corrupt(format!("{}: {why}", path.display())),
            other => StoreError::Open(format!("{}: {other}", path.display())),
        },
    })
}

fn keyspace(path: &Path, database: &Database) -> Result<Keyspace, StoreError> {
    let options = || {
        // Almost every lookup is of a row that is there.
        KeyspaceCreateOptions::default().max_memtable_size(super::MEMTABLE_BYTES).expect_point_read_hits(true)
    };
    let opened = database.keyspace(KEYSPACE, options);
    opened.map_err(|error| StoreError::Open(format!("{}: {error}", path.display())))
}

/// Makes all that is below this directory durable, names included.
fn sync_all(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { sync_all(&entry.path()) } else { sync(&entry.path()) }?;
    }
    sync(directory)
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
