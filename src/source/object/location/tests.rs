use proptest::prelude::*;

use super::*;

fn normal(text: &str) -> String {
    Location::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
}

fn why(text: &str) -> String {
    Location::parse(text).expect_err(text).to_string()
}

#[test]
fn normal_forms() {
    for (text, wanted, name) in [
        ("s3://bucket", "s3://bucket", "bucket"),
        ("S3://bucket/", "s3://bucket", "bucket"),
        ("s3a://bucket//a//b///", "s3://bucket/a/b", "b"),
        ("s3://My_Old.Bucket/a b/ü", "s3://My_Old.Bucket/a%20b/%C3%BC", "ü"),
        ("s3://bucket/a%20b/100%", "s3://bucket/a%20b/100%25", "100%"),
        ("s3://bucket/why?#1", "s3://bucket/why%3F%231", "why?#1"),
        ("https://s3.amazonaws.com/bucket/a", "s3://bucket/a", "a"),
        ("https://s3.eu-west-1.amazonaws.com/bucket", "s3://bucket", "bucket"),
        ("https://s3-us-west-2.amazonaws.com/bucket/a/", "s3://bucket/a", "a"),
        ("https://bucket.s3.amazonaws.com/a", "s3://bucket/a", "a"),
        ("https://my.dotted.bucket.s3.eu-west-1.amazonaws.com/a", "s3://my.dotted.bucket/a", "a"),
        ("https://bucket.s3.cn-north-1.amazonaws.com.cn/a", "https://s3.cn-north-1.amazonaws.com.cn/bucket/a", "a"),
        (
            "https://bucket.s3.dualstack.eu-west-1.amazonaws.com/",
            "https://s3.dualstack.eu-west-1.amazonaws.com/bucket",
            "bucket",
        ),
        ("https://0123.eu.r2.cloudflarestorage.com/bucket/a", "https://0123.eu.r2.cloudflarestorage.com/bucket/a", "a"),
        ("gs://data.example.org/runs", "gs://data.example.org/runs", "runs"),
        ("https://storage.googleapis.com/bucket/a", "gs://bucket/a", "a"),
        ("https://bucket.storage.googleapis.com/a", "gs://bucket/a", "a"),
        ("az://container/a", "az://container/a", "a"),
        ("azblob://$web", "az://$web", "$web"),
        ("abfs://container/a/", "az://container/a", "a"),
        ("abfss://c@acc.dfs.core.windows.net/a", "abfss://c@acc.dfs.core.windows.net/a", "a"),
        ("abfs://c@ACC.blob.core.windows.net", "abfss://c@acc.dfs.core.windows.net", "c"),
        ("https://acc.blob.core.windows.net/c/a", "abfss://c@acc.dfs.core.windows.net/a", "a"),
        ("https://onelake.dfs.fabric.microsoft.com/ws/x", "abfss://ws@onelake.dfs.fabric.microsoft.com/x", "x"),
        ("https://acc.blob.core.usgovcloudapi.net/c", "abfss://c@acc.dfs.core.usgovcloudapi.net", "c"),
        ("https://dav.example.org", "https://dav.example.org", "dav.example.org"),
        ("HTTPS://dav.Example.org:443/remote.php//dav/", "https://dav.example.org/remote.php/dav", "dav"),
        ("http://127.0.0.1:8080/a%2520b", "http://127.0.0.1:8080/a%2520b", "a%20b"),
        ("http://[::1]:8080/a", "http://[::1]:8080/a", "a"),
        // Not on the cloud's own port: no cloud.
        ("http://s3.amazonaws.com/bucket/a", "http://s3.amazonaws.com/bucket/a", "a"),
        ("https://www.amazonaws.com/a", "https://www.amazonaws.com/a", "a"),
        ("memory://t/a", "memory://t/a", "a"),
    ] {
        assert_eq!(normal(text), wanted, "{text}");
        assert_eq!(normal(wanted), wanted, "the normal form of {text} is stable");
        assert_eq!(Location::parse(text).expect("parsed above").name(), name, "{text}");
    }
}

#[test]
fn what_is_no_location_is_said_with_a_cure() {
    for (text, wanted) in [
        ("s4://bucket", "did you mean `s3://`?"),
        ("sftp://host/a", "sshfs"),
        ("s3://", "s3://BUCKET/PREFIX"),
        ("gs:///a", "gs://BUCKET/PREFIX"),
        ("az://", "az://CONTAINER/PREFIX"),
        ("https:///a", ""),
        ("s3://localhost:9000/bucket", "--option endpoint=http://localhost:9000"),
        ("s3://buck et/a", "' '"),
        ("s3://bucket/a/../b", "`..`"),
        ("s3://bucket/a/%2e%2e/b", "`..`"),
        ("https://dav.example.org/a/../b", "`..`"),
        ("s3://bucket/%ff", "%25"),
        ("s3://bucket/a%00b", "UTF-8"),
        ("abfss://c@example.org/a", "abfss://CONTAINER@ACCOUNT"),
        ("https://blob.core.windows.net/c/a", "abfss://CONTAINER@ACCOUNT"),
        ("https://s3.amazonaws.com/", "https://s3.amazonaws.com/BUCKET/PREFIX"),
        ("https://dav.example.org/a?b", "%3F"),
        ("https://dav.example.org/a#b", "%23"),
    ] {
        let said = why(text);
        assert!(said.contains(wanted), "{text}: {said}");
    }
}

#[test]
fn secrets_are_refused_and_not_repeated() {
    for (text, wanted) in [
        ("s3://AKIASECRET:SECRET@bucket/a", "AWS_SECRET_ACCESS_KEY"),
        ("gs://SECRET@bucket/a", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("abfss://c:SECRET@acc.dfs.core.windows.net/a", "AZURE_STORAGE"),
        ("https://me:SECRET@dav.example.org/a", "VEINFS_WEBDAV_PASSWORD"),
        ("https://SECRET@dav.example.org", "netrc"),
        ("https://acc.blob.core.windows.net/c/a?sv=2024&sig=SECRET", "AZURE_STORAGE_SAS_TOKEN"),
        ("az://c/a?sv=2024&sig=SECRET", "AZURE_STORAGE_SAS_TOKEN"),
        ("https://b.s3.amazonaws.com/a?X-Amz-Signature=SECRET", "AWS_SECRET_ACCESS_KEY"),
    ] {
        let said = why(text);
        assert!(said.contains(wanted) && !said.contains("SECRET@") && !said.contains("=SECRET"), "{text}: {said}");
        assert!(!format!("{:?}", Location::parse(text)).replace("AWS_SECRET_ACCESS", "").contains("SECRET"), "{text}");
    }
}

#[test]
fn key_prefixes_end_with_a_slash() {
    assert_eq!(Location::parse("s3://b/a/c").expect("a location").key_prefix(), "a/c/");
    assert_eq!(Location::parse("s3://b/").expect("a location").key_prefix(), "");
}

#[test]
fn urls_are_told_from_paths() {
    for (text, wanted) in [
        ("s3://b", true),
        ("x-y.z+1://", true),
        ("://b", false),
        ("./s3://b", false),
        ("s3:/b", false),
        ("3s://b", false),
    ] {
        assert_eq!(is_url(text.as_bytes()), wanted, "{text}");
    }
}

fn stores() -> impl Strategy<Value = Store> {
    let name = "[a-z0-9][a-z0-9._-]{2,12}";
    prop_oneof![
        name.prop_map(|bucket| Store::S3 { bucket, endpoint: None }),
        name.prop_map(|bucket| Store::S3 { bucket, endpoint: Some("https://0.r2.cloudflarestorage.com".into()) }),
        name.prop_map(|bucket| Store::Google { bucket }),
        (name, proptest::option::of(("[a-z0-9]{3,12}", proptest::sample::select(&AZURE_CLOUDS[..])))).prop_map(
            |(container, account)| Store::Azure {
                container,
                account: account.map(|(name, cloud)| Account { name, cloud }),
            }
        ),
        ("https?", "[a-z]{1,8}\\.example\\.org(:[1-9][0-9]{3})?")
            .prop_map(|(scheme, host)| Store::WebDav { origin: format!("{scheme}://{host}") }),
        name.prop_map(|name| Store::Memory { name }),
    ]
}

proptest! {
    #[test]
    fn the_normal_form_says_it_all(store in stores(), parts in proptest::collection::vec("[^/\\x00]{1,6}", 0..4)) {
        prop_assume!(parts.iter().all(|part| part != "." && part != ".."));
        let location = Location { store, prefix: parts.join("/") };
        prop_assert_eq!(Location::parse(&location.to_string()), Ok(location));
    }

    #[test]
    fn no_text_makes_it_panic(text in "(s3|az|abfss|https?|gs)?(://)?\\PC{0,40}") {
        if let Ok(location) = Location::parse(&text) {
            prop_assert_eq!(Location::parse(&location.to_string()), Ok(location));
        }
    }
}
