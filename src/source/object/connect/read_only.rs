//! A store that is only read, and tries once more with other credentials where they were refused.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::source::object::credentials::Renew;

/// Any store; all that would change it is refused.
#[derive(Debug)]
pub struct ReadOnly {
    store: Arc<dyn ObjectStore>,
    renewal: Option<Arc<dyn Renew>>,
}

impl ReadOnly {
    /// Wraps a store; `renewal` gets other credentials.
    pub fn new(store: Arc<dyn ObjectStore>, renewal: Option<Arc<dyn Renew>>) -> ReadOnly {
        ReadOnly { store, renewal }
    }

    fn refuse<T>(&self) -> Result<T> {
        Err(Error::NotSupported { source: "sources are only read".into() })
    }
}

/// Whether a store refused who asks, which other credentials may change.
pub fn is_refusal(error: &Error) -> bool {
    match error {
        // An archived object is refused to everybody.
        Error::PermissionDenied { source, .. } => !source.to_string().contains("InvalidObjectState"),
        Error::Unauthenticated { .. } => true,
        // S3 says so with status 400, which object_store has no kind for.
        Error::Generic { .. } => {
            let text = error.to_string();
            ["ExpiredToken", "TokenRefreshRequired", "InvalidToken"].iter().any(|code| text.contains(code))
        }
        _ => false,
    }
}

impl fmt::Display for ReadOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for ReadOnly {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let Some(renewal) = &self.renewal else { return self.store.get_opts(location, options).await };
        let generation = renewal.generation();
        match self.store.get_opts(location, options.clone()).await {
            Err(error) if is_refusal(&error) && renewal.renew(generation).await => {
                self.store.get_opts(location, options).await
            }
            other => other,
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        self.refuse()
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.refuse()
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let refused = self.refuse();
        stream::once(async { refused }).boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        self.refuse()
    }
}
