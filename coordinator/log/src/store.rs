//! The four things that the log does to an object store, each within a bounded time: create, get, list, delete.
//!
//! Nothing is ever written over, so nothing else is asked of a store than that creations are atomic and that lists are
//! up to date. It knows no records.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use craq_proto::planted::{self, Bug};
use futures::TryStreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, path::Path};
use tokio::time::timeout;

/// Why the store did not do what it was asked. What was asked may have been done, or may be done yet.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store failed.
    #[error("the store failed at {path}: {source}")]
    Failed {
        /// The object.
        path: String,
        /// Why.
        source: object_store::Error,
    },
    /// The store did not answer in time.
    #[error("the store did not answer within {patience:?} at {path}")]
    Late {
        /// The object.
        path: String,
        /// How long it was waited for.
        patience: Duration,
    },
}

/// What became of a creation that has a clear answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    /// The object is there, as it was to be.
    Done,
    /// The store says that there is an object of this name already. It may be the own one, of an earlier try; and some
    /// stores say so too when two creations met and none was done (409).
    Exists,
}

/// An object store, and how long it may take.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    patience: Duration,
}

impl Store {
    /// A store each of whose operations fails when it takes longer than this.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>, patience: Duration) -> Self {
        Self { objects, patience }
    }

    /// The same store, each of whose operations may take so long.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    pub(crate) async fn create(&self, path: &str, content: Vec<u8>) -> Result<Created, StoreError> {
        let mode = if planted::is(Bug::UnconditionalPut) { PutMode::Overwrite } else { PutMode::Create };
        let name = Path::from(path);
        match self.within(path, self.objects.put_opts(&name, content.into(), mode.into())).await {
            Ok(_) => Ok(Created::Done),
            Err(StoreError::Failed { source: object_store::Error::AlreadyExists { .. }, .. }) => {
                Ok(Created::Exists)
            }
            Err(error) => Err(error),
        }
    }

    /// None: there is no such object.
    pub(crate) async fn get(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        let name = Path::from(path);
        match self.within(path, async { self.objects.get(&name).await?.bytes().await }).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::Failed { source: object_store::Error::NotFound { .. }, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names in a folder that come after `after` (a whole path), in their order.
    pub(crate) async fn list_after(&self, folder: &str, after: &str) -> Result<Vec<String>, StoreError> {
        let (name, offset) = (Path::from(folder), Path::from(after));
        let list = self.objects.list_with_offset(Some(&name), &offset).try_collect::<Vec<_>>();
        let objects = self.within(folder, list).await?;
        let mut names: Vec<String> = objects.into_iter().map(|object| object.location.to_string()).collect();
        // Not every store knows where to begin.
        names.retain(|name| name.as_str() > after);
        names.sort_unstable();
        Ok(names)
    }

    /// An object that is not there is deleted already.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), StoreError> {
        let name = Path::from(path);
        match self.within(path, self.objects.delete(&name)).await {
            Err(StoreError::Failed { source: object_store::Error::NotFound { .. }, .. }) => Ok(()),
            done => done,
        }
    }

    async fn within<T>(
        &self,
        path: &str,
        operation: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<T, StoreError> {
        match timeout(self.patience, operation).await {
            Ok(result) => result.map_err(|source| StoreError::Failed { path: path.to_owned(), source }),
            Err(_) => Err(StoreError::Late { path: path.to_owned(), patience: self.patience }),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.objects)
    }
}
