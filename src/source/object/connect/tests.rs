use object_store::ObjectStoreExt;

use super::*;

fn parts(text: &str, given: &[(&str, &str)]) -> (Location, Options) {
    let location = Location::parse(text).expect("a location");
    let options = Options::parse(&location.store, given.iter().copied()).expect("options");
    (location, options)
}

#[test]
fn identities_say_which_store_is_meant() {
    for (text, given, variables, wanted) in [
        ("s3://b/a/", &[][..], &[][..], "s3://b/a"),
        ("s3://b/a", &[("region", "eu-west-1")], &[], "s3://b/a"),
        ("s3://b", &[("endpoint", "http://localhost:9000/")], &[], "s3://b at http://localhost:9000"),
        ("s3://b", &[], &[("AWS_ENDPOINT_URL", "http://localhost:9000")], "s3://b at http://localhost:9000"),
        ("https://0.r2.cloudflarestorage.com/b", &[], &[], "https://0.r2.cloudflarestorage.com/b"),
        ("gs://b", &[], &[], "gs://b"),
        ("gs://b", &[("base_url", "http://localhost:1")], &[], "gs://b at http://localhost:1"),
        ("az://c", &[], &[("AZURE_STORAGE_ACCOUNT", "a")], "abfss://c@a.dfs.core.windows.net"),
        ("abfss://c@a.dfs.core.windows.net/x", &[], &[], "abfss://c@a.dfs.core.windows.net/x"),
        (
            "az://c",
            &[("use_emulator", "true")],
            &[],
            "az://c at http://127.0.0.1:10000/devstoreaccount1 of devstoreaccount1",
        ),
        ("https://h/a", &[], &[], "https://h/a"),
    ] {
        let (location, options) = parts(text, given);
        let environment = Environment::of(variables.iter().copied());
        assert_eq!(identity(&location, &options, &environment).expect(text), wanted);
    }
    let (location, options) = parts("az://c", &[]);
    let error = identity(&location, &options, &Environment::default()).expect_err("no account").to_string();
    assert!(error.contains("abfss://CONTAINER@ACCOUNT"), "{error}");
}

#[test]
fn passwords_for_webdav() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().to_str().expect("UTF-8");
    let of = |variables: &[(&str, &str)]| {
        let environment = Environment::of([("HOME", path)].into_iter().chain(variables.iter().copied()));
        webdav_password("https://dav.example.org", &environment).map_err(|error| error.to_string())
    };
    let pair = |name: &str, password: &str| Ok(Some((name.to_owned(), password.to_owned())));
    assert_eq!(of(&[]), Ok(None));
    let set = [("VEINFS_WEBDAV_USER", "me"), ("VEINFS_WEBDAV_PASSWORD", "hush")];
    assert_eq!(of(&set), pair("me", "hush"));
    assert!(of(&set[..1]).is_err_and(|error| error.contains("VEINFS_WEBDAV_PASSWORD")));
    std::fs::write(home.path().join(".netrc"), "machine dav.example.org login n password p").expect("written");
    assert_eq!(of(&set), pair("n", "p"));
}

#[test]
fn passwords_do_not_go_over_plain_http() {
    let environment = Environment::of([("VEINFS_WEBDAV_USER", "me"), ("VEINFS_WEBDAV_PASSWORD", "hush")]);
    for (text, given, good) in [
        ("https://dav.example.org", &[][..], true),
        ("http://127.0.0.1:1", &[], true),
        ("http://dav.example.org", &[], false),
        ("http://dav.example.org", &[("allow_http", "true")], true),
    ] {
        let (location, options) = parts(text, given);
        let connected = runtime().block_on(connect(&location, &options, &environment));
        assert_eq!(connected.is_ok(), good, "{text}: {connected:?}");
        let shown = format!("{connected:?}");
        assert!(!shown.contains("hush") && !shown.contains("bWU6aHVzaA"), "{shown}");
    }
}

#[test]
fn stores_in_this_process_are_shared_by_name_and_only_read() {
    runtime().block_on(async {
        memory("shared").put(&"a/b".into(), "text".into()).await.expect("put");
        let (location, options) = parts("memory://shared/a", &[]);
        let remote = connect(&location, &options, &Environment::default()).await.expect("connected");
        let text = remote.store.get(&"a/b".into()).await.expect("there").bytes().await.expect("read");
        assert_eq!(&text[..], b"text");
        assert!(remote.store.put(&"a/c".into(), "x".into()).await.is_err());
        assert!(remote.store.delete(&"a/b".into()).await.is_err());
        assert!(memory("shared").head(&"a/b".into()).await.is_ok());
    });
}
