//! Real servers: what is put into them by other means is mounted as it is.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use crate::bed::{Output, TestBed, can_mount, eventually, names};

const ANY: &str = r#"{"name": "any", "files": ["data.csv"]}"#;

/// Where the servers are installed; `None`, and said so, where they cannot be.
fn servers() -> Option<&'static Path> {
    static INSTALLED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = INSTALLED.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/servers");
        let made = Command::new(script).output().expect("the script can be run");
        if made.status.success() {
            return Some(String::from_utf8_lossy(&made.stdout).trim().into());
        }
        let reason = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(std::env::var_os("VEINFS_REQUIRE_SERVERS").is_none_or(|value| value != "1"), "no servers: {reason}");
        eprintln!("SKIP: no servers: {reason}");
        None
    });
    found.as_deref()
}

/// A server that ends with the test, however that ends.
struct Served {
    child: Child,
    at: At,
}

/// Where a server is.
#[derive(Clone, Copy)]
struct At(u16);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long a server may take to begin: those in Python and JavaScript take seconds where there is much else to do.
const BEGINNING: Duration = Duration::from_secs(120);

/// Starts a server. One whose port somebody else has taken meanwhile ends, and another port is tried.
fn serve(program: &Path, args: impl Fn(u16) -> Vec<String>) -> Served {
    for _ in 0..3 {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        // It ends with this test even if that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(args(port));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let mut served = Served { child, at: At(port) };
        let begun = Instant::now();
        while served.child.try_wait().expect("a child").is_none() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return served;
            }
            assert!(begun.elapsed() < BEGINNING, "{} does not listen within {BEGINNING:?}", program.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    panic!("{} ends at once", program.display());
}

impl At {
    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.0)
    }

    /// A request as it stands: keys that no library lets through.
    fn send(&self, method: &str, path: &str, body: &[u8]) -> String {
        let signed =
            "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        self.send_as(signed, method, path, body)
    }

    /// The same as somebody else.
    fn send_as(&self, authorization: &str, method: &str, path: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.0)).expect("it listens");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\nauthorization: {authorization}\r\n\
             content-length: {}\r\n\r\n",
            self.0,
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(body).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 20"), "{method} {path}: {answer}");
        answer
    }
}

fn tree() -> BTreeMap<String, Vec<u8>> {
    let mut tree = BTreeMap::new();
    for run in 0..40 {
        tree.insert(format!("runs/run {run:03}+ü/data.csv"), format!("{run}\n").into_bytes());
    }
    tree.insert("runs/large/data.csv".into(), (0..3_000_000u32).map(|at| (at ^ (at >> 9)) as u8).collect());
    tree.insert("runs/deep/er/data.csv".into(), b"deep".to_vec());
    tree.insert("elsewhere/data.csv".into(), b"no".to_vec());
    tree
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    veinfs::source::object::connect::runtime().block_on(future)
}

/// Has it said how connections are encrypted, which clients have to know.
fn begin() {
    veinfs::source::object::connect::runtime();
}

fn put_one(store: &Arc<dyn ObjectStore>, key: &str, body: &[u8]) {
    let (key, body) = (Key::parse(key).expect("a key"), PutPayload::from(body.to_vec()));
    block_on(store.put(&key, body)).expect("it is put");
}

fn put_all(store: &Arc<dyn ObjectStore>) {
    tree().iter().for_each(|(key, body)| put_one(store, key, body));
}

/// Mounts a location and compares all that is in it.
fn is_as_put(bed: &TestBed, location: &str, args: &[&str], env: &[(&str, &str)]) {
    let any = bed.file("any.json", ANY);
    let mut command = bed.command(["mount", "--wait", location, bed.mnt.to_str().expect("text"), "-p", &any]);
    command.args(args).envs(env.iter().copied());
    Output::of(&mut command).ok();
    bed.keep(&bed.mnt);
    let dir = bed.mnt.join("any");
    for (key, body) in tree() {
        let Some(path) = key.strip_prefix("runs/") else { continue };
        let path = if path.starts_with("deep") { "er/data.csv" } else { path };
        let file = dir.join(path);
        assert_eq!(fs::metadata(&file).unwrap_or_else(|error| panic!("{path}: {error}")).len(), body.len() as u64);
        assert!(fs::read(&file).expect("it is read") == body, "{path}");
    }
    assert_eq!(names(&dir).len(), 42);
    assert_eq!(bed.status()["sources"][0]["listing"]["requests"]["failed"], 0);
}

/// What the files of a mount must survive, whatever the store is. `put` puts a key by other means; then the server goes.
fn survives(location: &str, args: &[&str], env: &[(&str, &str)], put: &dyn Fn(&str, &[u8]), server: Served) {
    let bed = TestBed::new::<&str>(&[]);
    let any = bed.file("any.json", ANY);
    let cache = bed.dir.join("cache");
    let mount = || {
        let mut command = bed.command(["mount", "--wait", location, bed.mnt.to_str().expect("text"), "-p", &any]);
        command.args(["--poll", "0", "--cache", cache.to_str().expect("text")]).args(args).envs(env.iter().copied());
        Output::of(&mut command).ok();
        bed.keep(&bed.mnt);
    };
    mount();
    let old = tree().remove("runs/large/data.csv").expect("it is there");
    let path = bed.mnt.join("any/large/data.csv");
    // Readers that take turns, each at a place of its own.
    let files = [(); 3].map(|()| fs::File::open(&path).expect("it opens"));
    let mut piece = vec![0; 70_000];
    for turn in 0..12 {
        for (number, file) in files.iter().enumerate() {
            let at = number * 900_000 + turn * piece.len();
            let length = file.read_at(&mut piece, at as u64).expect("it is read");
            assert!(length > 0 && piece[..length] == old[at..at + length], "turn {turn} of reader {number}");
        }
    }
    // What was put in its place in the same second and has the same size is another version, and never part of this one.
    let new: Vec<u8> = old.iter().map(|byte| byte ^ 0x55).collect();
    put("runs/large/data.csv", &new);
    for at in (0..old.len()).step_by(piece.len()) {
        match files[0].read_at(&mut piece, at as u64) {
            Ok(length) => assert!(piece[..length] == old[at..at + length], "another version at {at}"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}"),
        }
    }
    drop(files);
    // One of which nothing was read: whoever opens it again has the other version, though nothing is listed.
    let small = bed.mnt.join("any/er/data.csv");
    let open = fs::File::open(&small).expect("it opens");
    put("runs/deep/er/data.csv", b"another version, and longer than the one before");
    let read = |file: &fs::File| file.read_at(&mut [0; 100], 0).map_err(|error| error.raw_os_error());
    assert_eq!(read(&open), Err(Some(libc::ESTALE)));
    assert_eq!(fs::read(&small).expect("it is read"), b"another version, and longer than the one before");
    // The old one stays what it was, and nobody has to look again for its sake.
    let requests = || bed.status()["sources"][0]["listing"]["requests"]["get"].clone();
    let before = requests();
    assert_eq!(read(&open), Err(Some(libc::ESTALE)));
    drop(fs::File::open(&small).expect("it opens"));
    assert_eq!(requests(), before);
    drop(open);
    bed.veinfs(["refresh".as_ref(), bed.mnt.as_os_str()]).ok();
    assert!(fs::read(&path).expect("it is read") == new, "the old version after a refresh");
    // A cache that was cut off or written over costs time, and no byte is wrong.
    eventually("all of it is kept", || {
        bed.status()["sources"][0]["listing"]["requests"]["cache_bytes"].as_u64() >= Some(new.len() as u64)
    });
    bed.unmount();
    let mut spoilt = 0;
    let blocks = walkdir::WalkDir::new(&cache).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    for block in blocks.filter(|block| block.metadata().is_ok_and(|meta| meta.len() > 10_000)) {
        let file = fs::OpenOptions::new().write(true).open(block.path()).expect("a block");
        match spoilt % 2 {
            0 => file.set_len(file.metadata().expect("there").len() / 2).expect("cut off"),
            _ => file.write_all_at(b"spoilt", 5000).expect("written over"),
        }
        spoilt += 1;
    }
    assert!(spoilt > 1, "{spoilt} blocks");
    mount();
    assert!(fs::read(&path).expect("it is read") == new, "from a cache that is spoilt");
    // A store that cannot be reached is no empty one.
    let before = names(bed.mnt.join("any"));
    drop(server);
    bed.veinfs(["refresh".as_ref(), bed.mnt.as_os_str()]);
    eventually("it is said", || !bed.status()["sources"][0]["error"].is_null());
    assert_eq!(names(bed.mnt.join("any")), before);
}

/// What is asked for and is not there is said, soon.
fn is_missed(bed: &TestBed, location: &str, args: &[&str], env: &[(&str, &str)], text: &str) {
    let any = bed.file("any.json", ANY);
    let mut command = bed.command(["scan", location, "-p", &any]);
    command.args(args).envs(env.iter().copied());
    Output::of(&mut command).code(2).says(text);
}

#[test]
fn s3() {
    let (true, Some(servers)) = (can_mount(), servers()) else { return };
    let moto = serve(&servers.join("python/bin/moto_server"), |port| {
        vec!["-H".into(), "127.0.0.1".into(), "-p".into(), port.to_string()]
    });
    moto.at.send("PUT", "/lab", b"");
    for (key, body) in tree() {
        let key: String = percent_encoding::utf8_percent_encode(&key, percent_encoding::NON_ALPHANUMERIC).to_string();
        moto.at.send("PUT", &format!("/lab/{}", key.replace("%2F", "/")), &body);
    }
    // What must not spoil the rest.
    for key in ["runs/odd//x", "runs/marker/", "runs/run%20000%2B%C3%BC", "runs/control%01x", "runs/a/../b"] {
        moto.at.send("PUT", &format!("/lab/{key}"), b"odd");
    }
    let url = moto.at.url();
    let env = [("AWS_ENDPOINT_URL", url.as_str()), ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y")];
    let bed = TestBed::new::<&str>(&[]);
    is_as_put(&bed, "s3://lab/runs", &[], &env);
    let errors = fs::read_to_string(bed.mnt.join(".veinfs/errors.ndjson")).expect("it is read");
    assert!(errors.contains("runs/odd//x"), "{errors}");
    is_missed(&bed, "s3://nobucket/x", &[], &env, "no such bucket");
    is_missed(&bed, "s3://lab/nothing", &[], &env, "there is no object");
    // By a profile, and in pages of which there are several.
    fs::create_dir_all(bed.dir.join("home/.aws")).expect("made");
    fs::write(bed.dir.join("home/.aws/config"), format!("[profile lab]\nendpoint_url = {url}\nregion = eu-west-1\n"))
        .expect("written");
    fs::write(bed.dir.join("home/.aws/credentials"), "[lab]\naws_access_key_id = x\naws_secret_access_key = y\n")
        .expect("written");
    let home = bed.dir.join("home");
    for number in 0..1100 {
        moto.at.send("PUT", &format!("/lab/many/{number:04}/data.csv"), b"x");
    }
    let any = bed.file("any.json", ANY);
    let mut command = bed.command(["scan", "s3://lab/many", "-p", &any, "--count", "--option", "profile=lab"]);
    command.env("HOME", &home).env_remove("AWS_ACCESS_KEY_ID");
    assert_eq!(Output::of(&mut command).ok().text().trim(), "1100");
    let at = moto.at;
    survives("s3://lab/runs", &[], &env, &|key, body| drop(at.send("PUT", &format!("/lab/{key}"), body)), moto);
}

#[test]
fn google() {
    let (true, Some(servers)) = (can_mount(), servers()) else { return };
    let moto = serve(&servers.join("python/bin/moto_server"), |port| {
        vec!["-H".into(), "127.0.0.1".into(), "-p".into(), port.to_string()]
    });
    moto.at.send("PUT", "/lab", b"");
    begin();
    let store = GoogleCloudStorageBuilder::new()
        .with_bucket_name("lab")
        .with_base_url(&moto.at.url())
        .with_bearer_token("x")
        .with_client_options(object_store::ClientOptions::new().with_allow_http(true));
    let store: Arc<dyn ObjectStore> = Arc::new(store.build().expect("a store"));
    put_all(&store);
    let base = format!("base_url={}", moto.at.url());
    let env = [("GOOGLE_BEARER_TOKEN", "x")];
    is_as_put(&TestBed::new::<&str>(&[]), "gs://lab/runs", &["--option", &base], &env);
    survives("gs://lab/runs", &["--option", &base], &env, &|key, body| put_one(&store, key, body), moto);
}

#[test]
fn azure() {
    let (true, Some(servers)) = (can_mount(), servers()) else { return };
    let bed = TestBed::new::<&str>(&[]);
    let place = bed.dir.join("azurite").display().to_string();
    let azurite = serve(&servers.join("node/node_modules/.bin/azurite-blob"), |port| {
        let port = port.to_string();
        ["--skipApiVersionCheck", "--silent", "--blobPort", &port, "--location", &place].map(str::to_owned).to_vec()
    });
    let url = azurite.at.url();
    begin();
    let account = "devstoreaccount1";
    let store = MicrosoftAzureBuilder::new()
        .with_container_name("lab")
        .with_account(account)
        .with_access_key("Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==")
        .with_endpoint(format!("{url}/{account}"))
        .with_client_options(object_store::ClientOptions::new().with_allow_http(true))
        .build()
        .expect("a store");
    let keys = Arc::clone(store.credentials());
    block_on(async {
        // A container is no object.
        let keys = object_store::CredentialProvider::get_credential(&*keys).await.expect("keys");
        let request = http::Request::builder().method("PUT").uri(format!("{url}/{account}/lab?restype=container"));
        let empty = object_store::client::HttpRequestBody::empty();
        let mut request = request.header("content-length", "0").body(empty).expect("a request");
        object_store::azure::AzureAuthorizer::new(&keys, account).try_authorize(&mut request).expect("it is signed");
        let connector = object_store::client::ReqwestConnector::default();
        let options = object_store::ClientOptions::new().with_allow_http(true);
        let client = object_store::client::HttpConnector::connect(&connector, &options).expect("a client");
        let answer = client.execute(request).await.expect("an answer");
        assert_eq!(answer.status(), 201);
    });
    let store: Arc<dyn ObjectStore> = Arc::new(store);
    put_all(&store);
    let env = [("AZURE_STORAGE_USE_EMULATOR", "true"), ("AZURITE_BLOB_STORAGE_URL", url.as_str())];
    is_as_put(&bed, "az://lab/runs", &[], &env);
    is_missed(&bed, "az://none/x", &[], &env, "no such bucket or container");
    survives("az://lab/runs", &[], &env, &|key, body| put_one(&store, key, body), azurite);
}

#[test]
fn webdav() {
    let (true, Some(servers)) = (can_mount(), servers()) else { return };
    let bed = TestBed::new::<&str>(&[]);
    let root = bed.dir.join("dav");
    for (key, body) in tree() {
        let file = root.join(key);
        fs::create_dir_all(file.parent().expect("one")).and_then(|()| fs::write(file, body)).expect("written");
    }
    fs::create_dir(root.join("runs/empty")).expect("made");
    let rclone = serve(&servers.join("python/bin/rclone"), |port| {
        let address = format!("127.0.0.1:{port}");
        let root = root.display().to_string();
        ["serve", "webdav", "--addr", &address, "--user", "u", "--pass", "p", &root].map(str::to_owned).to_vec()
    });
    let location = format!("{}/runs", rclone.at.url());
    let env = [("VEINFS_WEBDAV_USER", "u"), ("VEINFS_WEBDAV_PASSWORD", "p")];
    is_as_put(&bed, &location, &[], &env);
    is_missed(
        &bed,
        &location,
        &[],
        &[("VEINFS_WEBDAV_USER", "u"), ("VEINFS_WEBDAV_PASSWORD", "q")],
        "access is denied",
    );
    is_missed(&bed, &format!("{}/nothing", rclone.at.url()), &[], &env, "there is nothing at");
    is_missed(&bed, "http://127.0.0.1:9/x", &[], &env, "cannot be reached");
    let at = rclone.at;
    // `u:p`
    let put = |key: &str, body: &[u8]| drop(at.send_as("Basic dTpw", "PUT", &format!("/{key}"), body));
    survives(&location, &[], &env, &put, rclone);
}
