//! Services that are made up, and homes that know of them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use object_store::aws::AwsCredential;
use veinfs::source::object::connect::{ConnectError, Remote, connect, runtime};
use veinfs::source::object::credentials::aws::{Aws, Settings};
use veinfs::source::object::credentials::environment::Environment;
use veinfs::source::object::credentials::web::Web;
use veinfs::source::object::credentials::{CredentialError, Fetched, Origin};
use veinfs::source::object::location::Location;
use veinfs::source::object::location::options::Options;

/// What was asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// `METHOD /path`.
    pub(crate) what: String,
    pub(crate) query: HashMap<String, String>,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn form(&self) -> HashMap<String, String> {
        url::form_urlencoded::parse(self.body.as_bytes()).into_owned().collect()
    }
}

/// A status, headers and a body.
pub(crate) type Reply = (u16, Vec<(&'static str, String)>, String);

pub(crate) fn reply(status: u16, body: impl ToString) -> Reply {
    (status, Vec::new(), body.to_string())
}

/// A server that answers as a function says, and keeps what it was asked; it ends with the test.
pub(crate) struct Server {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// A reply of status 0 never comes.
    pub(crate) fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (Arc::clone(&asked), Arc::new(answer));
        let task = runtime().spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            let mut connections = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                let service = service_fn(move |request| respond(request, Arc::clone(&kept), Arc::clone(&answer)));
                let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                connections.push(Ended(tokio::spawn(async move { drop(served.await) })));
            }
        });
        Server { url, asked, task }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }

    pub(crate) fn host(&self) -> &str {
        self.url.trim_start_matches("http://")
    }
}

/// A task that ends with its owner.
struct Ended(tokio::task::JoinHandle<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn respond(
    request: hyper::Request<hyper::body::Incoming>,
    kept: Arc<Mutex<Vec<Asked>>>,
    answer: Arc<impl Fn(&Asked) -> Reply>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let headers = parts.headers.iter().map(|(name, v)| (name.to_string(), v.to_str().unwrap_or("?").to_owned()));
    let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned();
    let asked = Asked {
        what: format!("{} {}", parts.method, parts.uri.path()),
        query: query.collect(),
        headers: headers.collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let (status, headers, text) = answer(&asked);
    kept.lock().expect("no panic").push(asked);
    if status == 0 {
        std::future::pending::<()>().await;
    }
    // Readers want to know of every object when it was written, and which version it is.
    let response = hyper::Response::builder().status(status);
    let response = response.header("last-modified", "Fri, 27 Nov 2026 00:00:00 GMT").header("etag", "\"1\"");
    let response = headers.into_iter().fold(response, |response, (name, value)| response.header(name, value));
    Ok(response.body(Full::new(text.into())).expect("a response"))
}

/// A home directory and an environment that know nothing of this machine's.
pub(crate) struct Home {
    dir: tempfile::TempDir,
    pub(crate) variables: Vec<(String, String)>,
}

impl Home {
    pub(crate) fn new(variables: &[(&str, &str)]) -> Home {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().to_str().expect("UTF-8").to_owned();
        let mut of: Vec<(String, String)> = vec![("HOME".into(), home), ("PATH".into(), "/usr/bin:/bin".into())];
        of.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Home { dir, variables: of }
    }

    pub(crate) fn file(self, path: &str, text: &str) -> Home {
        self.write(path, text);
        self
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("below the home")).expect("made");
        fs::write(path, text).expect("written");
    }

    pub(crate) fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn environment(&self) -> Environment {
        Environment::of(self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// AWS's credentials as this home has them.
    pub(crate) fn aws(&self) -> Result<Fetched<AwsCredential>, CredentialError> {
        let settings = Settings::new(&self.environment(), &Options::default());
        let aws = Aws::new(settings, Web::new().expect("a client"));
        runtime().block_on(aws.fetch())
    }

    pub(crate) fn connect(&self, location: &str, options: &[(&str, &str)]) -> Result<Remote, ConnectError> {
        let location = Location::parse(location).expect("a location");
        let options = Options::parse(&location.store, options.iter().copied()).expect("options");
        runtime().block_on(connect(&location, &options, &self.environment()))
    }
}
