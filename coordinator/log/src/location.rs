//! Where the log is: a directory, or a place on an object store, and how to get there.
//!
//! Credentials come from the variables that each store's own tools read; they never stand in a location.

use std::{
    fmt, fs::DirBuilder, os::unix::fs::DirBuilderExt as _, path::PathBuf, str::FromStr, sync::Arc,
    time::Duration,
};

use object_store::{ObjectStore, local::LocalFileSystem, memory::InMemory, prefix::PrefixStore};

use crate::Store;

/// A place for a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A directory of this machine, or one that several machines mount and that has hard links.
    Directory(PathBuf),
    /// In memory: gone when the process ends.
    Memory,
    /// An object store.
    Cloud {
        /// Which.
        kind: Cloud,
        /// The bucket; Azure calls it a container.
        bucket: String,
        /// What all names begin with; may be empty. Clusters with different ones can share a bucket.
        prefix: String,
    },
}

/// A kind of object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon S3, and what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

/// Why a location is none, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// The text is no location.
    #[error(
        "{0:?} is no place for a log: give a directory, file:///DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, \
         az://CONTAINER/PREFIX or memory://"
    )]
    Malformed(String),
    /// The directory cannot be made or opened.
    #[error("cannot use the directory {path}: {source}")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store's client cannot be set up.
    #[error("cannot use {location}: {source}")]
    Client {
        /// Which.
        location: String,
        /// Why.
        source: object_store::Error,
    },
    /// Built without it.
    #[error("this program was built without the feature {feature:?}, which {location} needs")]
    NotBuilt {
        /// Which.
        location: String,
        /// What is missing.
        feature: &'static str,
    },
    /// An endpoint makes no sense here.
    #[error("{0} has no endpoint: that is for object stores")]
    NoEndpoint(String),
}

impl Cloud {
    /// The scheme of its locations, and the feature of this crate that it needs.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::S3 => ("s3", "aws"),
            Self::Gcs => ("gs", "gcp"),
            Self::Azure => ("az", "azure"),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Memory => f.write_str("memory://"),
            Self::Cloud { kind, bucket, prefix } => write!(f, "{}://{bucket}/{prefix}", kind.names().0),
        }
    }
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let malformed = || LocationError::Malformed(text.to_owned());
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.is_empty() { Err(malformed()) } else { Ok(Self::Directory(text.into())) };
        };
        let kind = match scheme {
            "file" if rest.starts_with('/') => return Ok(Self::Directory(rest.into())),
            "memory" if rest.is_empty() => return Ok(Self::Memory),
            "s3" => Cloud::S3,
            "gs" => Cloud::Gcs,
            "az" => Cloud::Azure,
            _ => return Err(malformed()),
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || bucket.contains(['@', ':', '?', '#']) {
            return Err(malformed());
        }
        Ok(Self::Cloud { kind, bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
    }
}

impl Location {
    /// Whether an operation takes a network and not a disk.
    #[must_use]
    pub fn is_cloud(&self) -> bool {
        matches!(self, Self::Cloud { .. })
    }

    /// The store there, each of whose operations may take so long. `endpoint` is the URL of a store that is not the
    /// provider's own. A directory is made if it does not exist (mode 0700).
    pub fn open(&self, endpoint: Option<&str>, patience: Duration) -> Result<Store, LocationError> {
        if endpoint.is_some() && !self.is_cloud() {
            return Err(LocationError::NoEndpoint(self.to_string()));
        }
        let objects: Arc<dyn ObjectStore> = match self {
            Self::Directory(path) => {
                let failed = |source| LocationError::Directory { path: path.display().to_string(), source };
                DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| failed(e.into()))?;
                let store = LocalFileSystem::new_with_prefix(path).map_err(|e| failed(e.into()))?;
                Arc::new(store.with_fsync(true))
            }
            Self::Memory => Arc::new(InMemory::new()),
            Self::Cloud { kind, bucket, prefix } => {
                let store = cloud::open(self, *kind, bucket, endpoint, patience)?;
                if prefix.is_empty() { store } else { Arc::new(PrefixStore::new(store, prefix.as_str())) }
            }
        };
        Ok(Store::new(objects, patience))
    }
}

/// The clients of object stores. Each tries little by itself: the log tries again, and knows for how long that makes sense.
#[cfg(feature = "tls")]
mod cloud {
    use std::{sync::Arc, time::Duration};

    use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

    use super::{Cloud, Location, LocationError};

    type Opened = object_store::Result<Arc<dyn ObjectStore>>;

    pub(super) fn open(
        location: &Location,
        kind: Cloud,
        bucket: &str,
        endpoint: Option<&str>,
        patience: Duration,
    ) -> Result<Arc<dyn ObjectStore>, LocationError> {
        // Refused if the process has one already, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store: Opened = match kind {
            #[cfg(feature = "aws")]
            Cloud::S3 => s3(bucket, endpoint, patience),
            #[cfg(feature = "gcp")]
            Cloud::Gcs => gcs(bucket, endpoint, patience),
            #[cfg(feature = "azure")]
            Cloud::Azure => azure(bucket, endpoint, patience),
            #[cfg(not(all(feature = "aws", feature = "gcp", feature = "azure")))]
            missing => {
                let (location, feature) = (location.to_string(), missing.names().1);
                return Err(LocationError::NotBuilt { location, feature });
            }
        };
        store.map_err(|source| LocationError::Client { location: location.to_string(), source })
    }

    fn retry(patience: Duration) -> RetryConfig {
        let backoff = BackoffConfig {
            init_backoff: patience / 20,
            max_backoff: patience / 5,
            ..BackoffConfig::default()
        };
        RetryConfig { backoff, max_retries: 2, retry_timeout: patience / 2 }
    }

    fn client(patience: Duration) -> ClientOptions {
        ClientOptions::new().with_timeout(patience).with_connect_timeout(patience)
    }

    fn is_plain(endpoint: Option<&str>) -> bool {
        endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
    }

    #[cfg(feature = "aws")]
    fn s3(bucket: &str, endpoint: Option<&str>, patience: Duration) -> Opened {
        use object_store::aws::AmazonS3Builder;
        let variable = || std::env::var("AWS_ENDPOINT_URL").or_else(|_| std::env::var("AWS_ENDPOINT")).ok();
        let endpoint = endpoint.map(str::to_owned).or_else(variable);
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            // Not every store has it, and single deletions are few.
            .with_disable_bulk_delete(true)
            .with_retry(retry(patience))
            .with_client_options(client(patience))
            .with_allow_http(is_plain(endpoint.as_deref()));
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        Ok(Arc::new(builder.build()?))
    }

    #[cfg(feature = "gcp")]
    fn gcs(bucket: &str, endpoint: Option<&str>, patience: Duration) -> Opened {
        use object_store::gcp::GoogleCloudStorageBuilder;
        let options = client(patience).with_allow_http(is_plain(endpoint));
        let mut builder = GoogleCloudStorageBuilder::from_env()
            .with_bucket_name(bucket)
            .with_retry(retry(patience))
            .with_client_options(options);
        if let Some(endpoint) = endpoint {
            builder = builder.with_base_url(endpoint);
        }
        Ok(Arc::new(builder.build()?))
    }

    #[cfg(feature = "azure")]
    fn azure(container: &str, endpoint: Option<&str>, patience: Duration) -> Opened {
        use object_store::azure::MicrosoftAzureBuilder;
        let mut builder = MicrosoftAzureBuilder::from_env()
            .with_container_name(container)
            .with_retry(retry(patience))
            .with_client_options(client(patience))
            .with_allow_http(is_plain(endpoint));
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint.to_owned());
        }
        Ok(Arc::new(builder.build()?))
    }
}

/// Without any.
#[cfg(not(feature = "tls"))]
mod cloud {
    use std::{sync::Arc, time::Duration};

    use object_store::ObjectStore;

    use super::{Cloud, Location, LocationError};

    pub(super) fn open(
        location: &Location,
        kind: Cloud,
        _: &str,
        _: Option<&str>,
        _: Duration,
    ) -> Result<Arc<dyn ObjectStore>, LocationError> {
        let (location, feature) = (location.to_string(), kind.names().1);
        Err(LocationError::NotBuilt { location, feature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_shown() {
        for (text, shown) in [
            ("data", "data"),
            ("./a:b", "./a:b"),
            ("file:///var/craq", "/var/craq"),
            ("memory://", "memory://"),
            ("s3://bucket", "s3://bucket/"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
            ("gs://bucket/a", "gs://bucket/a"),
            ("az://container/a", "az://container/a"),
        ] {
            let location: Location = text.parse().unwrap();
            assert_eq!(location.to_string(), shown);
            assert_eq!(location.is_cloud(), ["s3:", "gs:", "az:"].iter().any(|s| shown.starts_with(s)));
        }
        for bad in
            ["", "file://relative", "memory://x", "s3://", "s3:///a", "http://a/b", "s3://key:secret@b/a"]
        {
            assert!(bad.parse::<Location>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn an_endpoint_is_for_object_stores() {
        let refused = Location::Memory.open(Some("http://localhost:1"), Duration::from_secs(1)).unwrap_err();
        assert!(refused.to_string().contains("no endpoint"), "{refused}");
    }
}
