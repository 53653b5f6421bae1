//! Listing a million keys: ours against `object_store`'s, from a server that makes pages up as fast as it can.
//!
//! `object_list [KEYS [WHICH]]`; prints for each, or for `object_store` or `veinfs` alone, the seconds, the CPU seconds and
//! keys a second, and at the end the most memory that this process had.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::{ClientOptions, ObjectStore};
use veinfs::source::Listed;
use veinfs::stores::Stores;

const PAGE: usize = 1000;

fn key(number: usize) -> String {
    format!("lab/2026/run-{:05}/sample-{:03}/data-{:02}.csv", number / 1000, number / 10 % 100, number % 10)
}

/// The first key behind one, by its number.
fn behind(after: &str, keys: usize) -> usize {
    let (mut low, mut high) = (0, keys);
    while low < high {
        let middle = low + (high - low) / 2;
        if *key(middle) <= *after { low = middle + 1 } else { high = middle }
    }
    low
}

fn answer(query: &str, keys: usize) -> Vec<u8> {
    let param = |name: &str| {
        let value = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1;
        Some(percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned())
    };
    let after = param("continuation-token").or_else(|| param("start-after")).unwrap_or_default();
    let begin = behind(&after, keys);
    let end = (begin + PAGE).min(keys);
    let mut text = Vec::with_capacity(400 * PAGE);
    let _ = write!(
        text,
        "<ListBucketResult><Name>b</Name><EncodingType>url</EncodingType><KeyCount>{}</KeyCount>",
        end - begin
    );
    for number in begin..end {
        let _ = write!(
            text,
            "<Contents><Key>{}</Key><LastModified>2026-11-26T10:20:30.000Z</LastModified>\
             <ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>{number}</Size>\
             <StorageClass>STANDARD</StorageClass></Contents>",
            key(number)
        );
    }
    if end < keys {
        let _ = write!(
            text,
            "<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>",
            key(end - 1)
        );
    }
    text.extend_from_slice(b"</ListBucketResult>");
    text
}

fn serve(stream: TcpStream, keys: usize) {
    let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
    let mut to = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let target = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
        while line.trim() != "" {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
        }
        let body = answer(target.split_once('?').map_or("", |(_, query)| query), keys);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: {}\r\n\r\n", body.len());
        if to.write_all(head.as_bytes()).and_then(|()| to.write_all(&body)).is_err() {
            return;
        }
    }
}

/// CPU seconds of this process.
fn cpu() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("it is told");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [serve_here, keys] = &*words
        && serve_here == "serve"
    {
        let keys: usize = keys.parse().expect("a number");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        println!("{}", listener.local_addr().expect("an address"));
        for stream in listener.incoming().map_while(Result::ok) {
            // Small packets would wait for each other.
            stream.set_nodelay(true).expect("an option");
            std::thread::spawn(move || serve(stream, keys));
        }
        return;
    }
    let asked = |which: &str| words.get(1).is_none_or(|asked| asked == which);
    let keys: usize = words.first().map_or(1_000_000, |keys| keys.parse().expect("a number"));
    // A process of its own, so that its time is not counted.
    let mut server = std::process::Command::new(std::env::current_exe().expect("a path"))
        .args(["serve", &keys.to_string()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut address = String::new();
    BufReader::new(server.stdout.take().expect("a pipe")).read_line(&mut address).expect("it says where");
    let url = format!("http://{}", address.trim());
    let report = |what: &str, begun: Instant, before: f64, found: usize| {
        let (took, used) = (begun.elapsed().as_secs_f64(), cpu() - before);
        println!(
            "{what:14} {took:8.3} s {used:8.3} CPU s {:10.0} keys/s {:10.0} keys/CPU s",
            found as f64 / took,
            found as f64 / used
        );
        assert_eq!(found, keys);
    };
    let runtime = veinfs::source::object::connect::runtime();
    for _ in 0..2 {
        let store: Arc<dyn ObjectStore> = Arc::new(
            AmazonS3Builder::new()
                .with_endpoint(&url)
                .with_bucket_name("b")
                .with_skip_signature(true)
                .with_client_options(ClientOptions::new().with_allow_http(true))
                .build()
                .expect("a store"),
        );
        if asked("object_store") {
            let (begun, before) = (Instant::now(), cpu());
            let found = runtime.block_on(store.list(None).try_fold(0, |all, _| async move { Ok(all + 1) }));
            report("object_store", begun, before, found.expect("a listing"));
        }
        if !asked("veinfs") {
            continue;
        }
        let options = vec![("endpoint".to_owned(), url.clone()), ("skip_signature".to_owned(), "true".to_owned())];
        let stores = Stores::new(options, None, None, &veinfs::walk::WalkOptions::default());
        let (sources, _) = veinfs::config::find_sources_or_away(&["s3://b".into()], &stores).expect("a source");
        let listed: &dyn Listed = sources[0].source.as_listed().expect("it is listed");
        let (begun, before) = (Instant::now(), cpu());
        listed.renew(&AtomicBool::new(false)).expect("a listing");
        let found = listed.status()["objects"].as_u64().expect("a number") as usize;
        report("veinfs", begun, before, found);
        println!("{}", listed.status());
    }
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("it is told");
    println!("at most {} MiB", usage.max_rss() >> 10);
    let _ = server.kill();
    let _ = server.wait();
}
