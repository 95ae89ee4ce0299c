//! A store in memory that goes wrong as it is told to: for tests and simulations alone.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory,
    path::Path,
};

/// What becomes of a creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing unusual.
    None,
    /// Done, and then an error is told.
    DoneUnsaid,
    /// Not done, and an error is told.
    NotDone,
    /// Not done, and it is said that there is such an object: what some stores say (409) when two creations meet.
    Conflict,
    /// An error is told, and it is done only when [`Faulty::land`] is called.
    Late,
}

/// A store in memory, with troubles to come.
#[derive(Debug, Default)]
pub struct Faulty {
    inner: InMemory,
    troubles: Mutex<VecDeque<Trouble>>,
    late: Mutex<VecDeque<(Path, PutPayload)>>,
    is_out: AtomicBool,
}

impl Faulty {
    /// What becomes of the next creations.
    pub fn expect(&self, troubles: impl IntoIterator<Item = Trouble>) {
        lock(&self.troubles).extend(troubles);
    }

    /// No trouble is to come any more. What is late is still under way.
    pub fn expect_nothing(&self) {
        lock(&self.troubles).clear();
    }

    /// No trouble is to come any more, and nothing late.
    pub fn cure(&self) {
        self.expect_nothing();
        lock(&self.late).clear();
        self.out(false);
    }

    /// Whether nothing is answered at all.
    pub fn out(&self, is_out: bool) {
        self.is_out.store(is_out, Ordering::Relaxed);
    }

    /// Whether creations are under way that are late.
    #[must_use]
    pub fn has_late(&self) -> bool {
        !lock(&self.late).is_empty()
    }

    /// The oldest late creation arrives. Whether it found no such object there, so that it is done.
    pub async fn land(&self) -> bool {
        let late = lock(&self.late).pop_front();
        let Some((path, payload)) = late else { return false };
        self.inner.put_opts(&path, payload, object_store::PutMode::Create.into()).await.is_ok()
    }

    /// How many objects there are.
    pub async fn objects(&self) -> usize {
        self.inner.list(None).count().await
    }

    /// Takes an object away, or nothing.
    pub async fn lose(&self, path: &str) {
        // It need not be there.
        let _ = self.inner.delete(&Path::from(path)).await;
    }

    fn trouble(&self) -> Trouble {
        lock(&self.troubles).pop_front().unwrap_or(Trouble::None)
    }

    fn check(&self) -> Result<()> {
        if self.is_out.load(Ordering::Relaxed) { Err(silence()) } else { Ok(()) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn silence() -> Error {
    Error::Generic { store: "faulty", source: "no answer in time".into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a faulty store")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.check()?;
        match self.trouble() {
            Trouble::None => self.inner.put_opts(location, payload, opts).await,
            Trouble::DoneUnsaid => {
                // Done, or refused since it is there: nobody is told.
                let _ = self.inner.put_opts(location, payload, opts).await;
                Err(silence())
            }
            Trouble::NotDone => Err(silence()),
            Trouble::Conflict => {
                Err(Error::AlreadyExists { path: location.to_string(), source: "409 Conflict".into() })
            }
            Trouble::Late => {
                lock(&self.late).push_back((location.clone(), payload));
                Err(silence())
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check()?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.check() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.check()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
