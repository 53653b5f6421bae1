//! A small HTTP server for tests, with faults on demand, and a bucket behind it.

#![allow(missing_docs, unreachable_pub, dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderMap;
use parking_lot::Mutex;

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// As it was sent.
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Asked {
    /// A parameter of the query, decoded.
    pub fn param(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()?;
        Some(percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned())
    }

    /// True for the request by which a client finds out where the bucket is.
    pub fn is_probe(&self) -> bool {
        self.param("max-keys").as_deref() == Some("1")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The path, decoded.
    pub fn key(&self) -> Vec<u8> {
        percent_encoding::percent_decode_str(&self.path).collect()
    }
}

/// What is answered, and how badly.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    pub cut: Option<usize>,
    /// Nothing more comes after so many bytes, for so long.
    pub stall: Option<(usize, Duration)>,
    /// So many bytes come at a time, with so long between.
    pub trickle: Option<(usize, Duration)>,
}

impl Answer {
    pub fn text(status: u16, text: &str) -> Self {
        Self { status, body: text.as_bytes().to_vec(), ..Self::default() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

type Handler = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

/// A server on a port of its own, which ends when it is dropped.
pub struct Server {
    port: u16,
    ends: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Server {
    pub fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (ends, open, handler): (Arc<AtomicBool>, Arc<Mutex<Vec<TcpStream>>>, Handler) =
            (Arc::default(), Arc::default(), Arc::new(handler));
        let (ended, streams) = (Arc::clone(&ends), Arc::clone(&open));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let handler = Arc::clone(&handler);
                stream.set_nodelay(true).expect("an option");
                streams.lock().push(stream.try_clone().expect("a descriptor"));
                std::thread::spawn(move || serve(stream, &handler));
            }
        });
        Self { port, ends, open }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.open.lock().iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        // So that the one that waits sees it.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(stream: TcpStream, handler: &Handler) {
    let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
    while let Some(asked) = read(&mut reader) {
        let answer = handler(&asked);
        if write(&stream, &asked, &answer).is_err() {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn read(from: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut headers = HeaderMap::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(http::HeaderName::try_from(name).ok()?, value.trim().parse().ok()?);
    }
    let length = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    Some(Asked { method, path: path.to_owned(), query: query.to_owned(), headers, body })
}

fn write(mut to: &TcpStream, asked: &Asked, answer: &Answer) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
    answer.headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    head.push_str("\r\n");
    to.write_all(head.as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(());
    }
    let end = answer.cut.unwrap_or(answer.body.len()).min(answer.body.len());
    let (chunk, pause) = answer.trickle.unwrap_or((1 << 20, Duration::ZERO));
    let mut at = 0;
    let mut stall = answer.stall;
    while at < end {
        let mut next = end.min(at + chunk);
        if let Some((when, time)) = stall
            && when <= next
        {
            next = when.max(at);
            to.write_all(&answer.body[at..next])?;
            std::thread::sleep(time);
            stall = None;
        } else {
            to.write_all(&answer.body[at..next])?;
            std::thread::sleep(pause);
        }
        at = next;
    }
    if answer.cut.is_some() { Err(std::io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
}

/// An object in a [`Bucket`].
#[derive(Clone, Debug)]
pub struct Object {
    pub body: Arc<Vec<u8>>,
    pub etag: String,
    pub class: &'static str,
}

/// What a fault does with an answer; `None` leaves it as it is.
pub type Faults = Arc<dyn Fn(&Asked, Answer) -> Answer + Send + Sync>;

/// Objects in memory, served as S3 does; path style, any bucket.
#[derive(Clone, Default)]
pub struct Bucket {
    pub objects: Arc<Mutex<BTreeMap<Vec<u8>, Object>>>,
    pub faults: Arc<Mutex<Option<Faults>>>,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    /// Keys in a page.
    pub page: usize,
    /// Azure's listing has what is in a directory before all that its name begins.
    pub slash_first: bool,
}

impl Bucket {
    pub fn put(&self, key: impl AsRef<[u8]>, body: impl Into<Vec<u8>>) {
        let body = body.into();
        let etag = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&body));
        let object = Object { body: Arc::new(body), etag, class: "STANDARD" };
        self.objects.lock().insert(key.as_ref().to_vec(), object);
    }

    pub fn fail(&self, faults: impl Fn(&Asked, Answer) -> Answer + Send + Sync + 'static) {
        *self.faults.lock() = Some(Arc::new(faults));
    }

    pub fn serve(&self) -> Server {
        let bucket = self.clone();
        Server::start(move |asked| {
            bucket.asked.lock().push(asked.clone());
            let answer = bucket.answer(asked);
            // Where the bucket is can be found out.
            let faults = bucket.faults.lock().clone().filter(|_| !asked.is_probe());
            faults.map_or(answer.clone(), |faults| faults(asked, answer))
        })
    }

    /// How many requests were made of a kind.
    pub fn requests(&self, is: impl Fn(&Asked) -> bool) -> usize {
        self.asked.lock().iter().filter(|asked| is(asked)).count()
    }

    fn answer(&self, asked: &Asked) -> Answer {
        let key = asked.key();
        let key = key.strip_prefix(b"/").unwrap_or(&key);
        let key = key.iter().position(|byte| *byte == b'/').map_or(&b""[..], |end| &key[end + 1..]);
        if key.is_empty() {
            return match (&*asked.method, asked.param("comp")) {
                ("HEAD", _) => Answer::text(200, ""),
                (_, Some(_)) => self.list_as_azure(asked),
                _ => self.list(asked),
            };
        }
        let Some(object) = self.objects.lock().get(key).cloned() else {
            return Answer::text(404, "<Error><Code>NoSuchKey</Code></Error>");
        };
        let etag = format!("\"{}\"", object.etag);
        if asked.header("if-match").is_some_and(|wanted| wanted != etag) {
            return Answer::text(412, "<Error><Code>PreconditionFailed</Code></Error>");
        }
        let length = object.body.len();
        let range = asked.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let answer = match range {
            Some((from, to)) => {
                let from: usize = from.parse().expect("a number");
                let to = to.parse::<usize>().map_or(length, |to| (to + 1).min(length));
                if from >= length {
                    return Answer::text(416, "<Error><Code>InvalidRange</Code></Error>");
                }
                let part = Answer { status: 206, body: object.body[from..to].to_vec(), ..Answer::default() };
                part.header("content-range", &format!("bytes {from}-{}/{length}", to - 1))
            }
            None => Answer { status: 200, body: object.body.to_vec(), ..Answer::default() },
        };
        answer.header("etag", &etag).header("last-modified", "Thu, 26 Nov 2026 00:00:00 GMT")
    }

    fn list(&self, asked: &Asked) -> Answer {
        let prefix = asked.param("prefix").unwrap_or_default();
        let after = asked.param("continuation-token").or_else(|| asked.param("start-after")).unwrap_or_default();
        let most = asked.param("max-keys").and_then(|most| most.parse().ok()).unwrap_or(1000);
        let page = if self.page == 0 { most } else { self.page.min(most) };
        let encode = |key: &[u8]| percent_encoding::percent_encode(key, percent_encoding::NON_ALPHANUMERIC).to_string();
        let objects = self.objects.lock();
        let mut text =
            "<?xml version=\"1.0\"?><ListBucketResult><Name>b</Name><EncodingType>url</EncodingType>".to_owned();
        let mut last = None;
        let from = after.into_bytes();
        let wanted = objects.iter().filter(|(key, _)| key.starts_with(prefix.as_bytes()) && **key > from);
        for (number, (key, object)) in wanted.enumerate() {
            if number == page {
                let next = encode(last.expect("a page has keys"));
                text.push_str(&format!("<NextContinuationToken>{}</NextContinuationToken>", decode(&next)));
                text.push_str("<IsTruncated>true</IsTruncated>");
                break;
            }
            last = Some(key);
            text.push_str(&format!(
                "<Contents><Key>{}</Key><LastModified>2026-11-26T10:20:30.5Z</LastModified><ETag>&quot;{}&quot;</ETag>\
                 <Size>{}</Size><StorageClass>{}</StorageClass></Contents>",
                encode(key),
                object.etag,
                object.body.len(),
                object.class
            ));
        }
        text.push_str("</ListBucketResult>");
        Answer::text(200, &text)
    }
}

impl Bucket {
    fn list_as_azure(&self, asked: &Asked) -> Answer {
        let prefix = asked.param("prefix").unwrap_or_default();
        let page = if self.page == 0 { 5000 } else { self.page };
        let level = |key: &[u8]| -> Vec<u8> {
            let end = key[prefix.len()..].iter().position(|byte| *byte == b'/');
            match end.filter(|_| asked.param("delimiter").is_some()) {
                Some(end) => key[..=prefix.len() + end].to_vec(),
                None => key.to_vec(),
            }
        };
        let objects = self.objects.lock();
        let below = objects.keys().filter(|key| key.starts_with(prefix.as_bytes()));
        let order = |key: &[u8]| match self.slash_first {
            true => key.iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect(),
            false => key.to_vec(),
        };
        let names: BTreeMap<Vec<u8>, Vec<u8>> = below.map(|key| level(key)).map(|name| (order(&name), name)).collect();
        let from = order(asked.param("marker").unwrap_or_default().as_bytes());
        let mut rest = names.range(from..).map(|(_, name)| name);
        let mut text = "<?xml version=\"1.0\"?><EnumerationResults><Blobs>".to_owned();
        for name in rest.by_ref().take(page) {
            let shown = percent_encoding::percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string();
            text.push_str(&match objects.get(name).filter(|_| level(name) == *name) {
                Some(object) if !name.ends_with(b"/") || asked.param("delimiter").is_none() => format!(
                    "<Blob><Name Encoded=\"true\">{shown}</Name><Properties><Content-Length>{}</Content-Length>\
                     <Etag>{}</Etag></Properties></Blob>",
                    object.body.len(),
                    object.etag
                ),
                _ => format!("<BlobPrefix><Name Encoded=\"true\">{shown}</Name></BlobPrefix>"),
            });
        }
        text.push_str("</Blobs>");
        match rest.next() {
            Some(next) => {
                text.push_str(&format!("<NextMarker>{}</NextMarker>", decode(&String::from_utf8_lossy(next))))
            }
            None => text.push_str("<NextMarker/>"),
        }
        Answer::text(200, &(text + "</EnumerationResults>"))
    }
}

/// A token is text that a query holds encoded: XML holds it as it is.
fn decode(text: &str) -> String {
    let text = percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    text.replace('&', "&amp;").replace('<', "&lt;")
}
