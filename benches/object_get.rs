//! What a store gives to a bare loop of requests by `object_store`: what the mounts are held against.
//!
//! `object_get sequential|first|random|list URL KEY [N]`; prints seconds. `scripts/bench cloud` runs it.

use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt};

/// Bytes of a part, and how many are under way at once, as the mount has them.
const PART: u64 = 8 << 20;
const AT_ONCE: usize = 8;
/// Bytes of a read at random.
const PIECE: u64 = 64 << 10;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [what, bucket, key, rest @ ..] = &*words else {
        // As `cargo bench` runs all of them.
        println!("object_get: give sequential|first|random|list BUCKET KEY [N]");
        return;
    };
    let runtime = veinfs::source::object::connect::runtime();
    let store = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(ClientOptions::new().with_allow_http(true).with_timeout_disabled())
        .build()
        .expect("a store");
    let (store, key): (Arc<dyn ObjectStore>, Path) = (Arc::new(store), Path::parse(key).expect("a key"));
    let number = rest.first().map_or(200, |number| number.parse::<u64>().expect("a number"));
    let done = runtime.block_on(async {
        let size = if what == "list" { 0 } else { store.head(&key).await.expect("it is there").size };
        let begun = Instant::now();
        let got: u64 = match what.as_str() {
            "sequential" => {
                let parts = (0..size.div_ceil(PART)).map(|part| {
                    let (store, key) = (Arc::clone(&store), key.clone());
                    async move {
                        let range = part * PART..((part + 1) * PART).min(size);
                        store.get_range(&key, range).await.expect("a part").len() as u64
                    }
                });
                stream::iter(parts).buffered(AT_ONCE).collect::<Vec<_>>().await.into_iter().sum()
            }
            "first" => store.get_range(&key, 0..128 << 10).await.expect("a part").len() as u64,
            "random" => {
                let mut all = 0;
                for at in 0..number {
                    let from = at.wrapping_mul(7_919_333_333) % (size - PIECE) / 4096 * 4096;
                    all += store.get_range(&key, from..from + PIECE).await.expect("a part").len() as u64;
                }
                all
            }
            "list" => store.list(Some(&key)).try_fold(0, |all, _| async move { Ok(all + 1) }).await.expect("a listing"),
            other => panic!("{other}: no such measurement"),
        };
        (begun.elapsed().as_secs_f64(), got)
    });
    println!("{:.6} {}", done.0, done.1);
}
