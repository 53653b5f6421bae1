use super::*;

fn place(location: &str, given: &[(&str, &str)], variables: &[(&str, &str)]) -> Place {
    let location = Location::parse(location).expect("a location");
    let options = Options::parse(&location.store, given.iter().copied()).expect("options");
    let Store::S3 { bucket, endpoint } = &location.store else { panic!("not S3") };
    let environment = Environment::of(variables.iter().copied());
    Place::new(bucket, endpoint.as_deref(), &options, &environment).expect("a place")
}

#[test]
fn bucket_urls_and_regions() {
    let local = ("endpoint", "http://localhost:9000/");
    for (location, given, variables, url, region) in [
        ("s3://b", &[][..], &[][..], "https://b.s3.us-east-1.amazonaws.com/", "us-east-1"),
        ("s3://b", &[("region", "eu-west-1")], &[], "https://b.s3.eu-west-1.amazonaws.com/", "eu-west-1"),
        ("s3://b", &[], &[("AWS_REGION", "eu-west-1")], "https://b.s3.eu-west-1.amazonaws.com/", "eu-west-1"),
        ("s3://a.b", &[], &[], "https://s3.us-east-1.amazonaws.com/a.b", "us-east-1"),
        ("s3://Old_b", &[], &[], "https://s3.us-east-1.amazonaws.com/Old_b", "us-east-1"),
        ("s3://b", &[("region", "cn-north-1")], &[], "https://b.s3.cn-north-1.amazonaws.com.cn/", "cn-north-1"),
        (
            "https://b.s3.cn-north-1.amazonaws.com.cn",
            &[],
            &[("AWS_REGION", "eu-west-1")],
            "https://s3.cn-north-1.amazonaws.com.cn/b",
            "cn-north-1",
        ),
        (
            "https://s3.dualstack.eu-west-1.amazonaws.com/b",
            &[],
            &[],
            "https://s3.dualstack.eu-west-1.amazonaws.com/b",
            "eu-west-1",
        ),
        ("https://0.r2.cloudflarestorage.com/b", &[], &[], "https://0.r2.cloudflarestorage.com/b", "auto"),
        ("s3://b", &[local], &[], "http://localhost:9000/b", "us-east-1"),
        ("s3://b", &[], &[("AWS_ENDPOINT_URL_S3", "http://localhost:9000")], "http://localhost:9000/b", "us-east-1"),
        ("s3://b", &[], &[("AWS_ENDPOINT_URL", "http://localhost:9000")], "http://localhost:9000/b", "us-east-1"),
        ("s3://b", &[local, ("virtual_hosted_style_request", "true")], &[], "http://b.localhost:9000/", "us-east-1"),
        (
            "s3://b",
            &[("endpoint", "http://b.localhost:9000"), ("virtual_hosted_style_request", "true")],
            &[],
            "http://b.localhost:9000/",
            "us-east-1",
        ),
    ] {
        let place = place(location, given, variables);
        assert_eq!(place.bucket_url().expect("a URL").as_str(), url, "{location} {given:?} {variables:?}");
        assert_eq!(place.region, region, "{location} {given:?} {variables:?}");
    }
}

#[test]
fn answers_say_what_is_wrong() {
    let own = place("s3://b", &[], &[]);
    let custom = place("s3://b", &[("endpoint", "http://localhost:9000")], &[]);
    let error = |code: &str, more: &str| format!("<Error><Code>{code}</Code><Message>M</Message>{more}</Error>");
    let region = "<Region>eu-west-1</Region>";
    let elsewhere = Verdict::Elsewhere("eu-west-1".into());
    for (place, status, header, body, wanted) in [
        (&own, 200, None, "<ListBucketResult/>".to_owned(), Verdict::Good),
        (&own, 200, Some("us-east-1"), "<ListBucketResult/>".to_owned(), Verdict::Good),
        (&own, 200, Some("eu-west-1"), "<ListBucketResult/>".to_owned(), elsewhere.clone()),
        (&custom, 200, Some("eu-west-1"), "<ListBucketResult/>".to_owned(), Verdict::Good),
        (&own, 301, Some("eu-west-1"), String::new(), elsewhere.clone()),
        (&own, 301, None, error("PermanentRedirect", ""), Verdict::SomewhereElse),
        (&own, 400, None, error("AuthorizationHeaderMalformed", region), elsewhere.clone()),
        (&custom, 400, None, error("AuthorizationHeaderMalformed", region), elsewhere.clone()),
        (&own, 400, None, error("IllegalLocationConstraintException", ""), Verdict::SomewhereElse),
        (&own, 403, Some("eu-west-1"), error("AccessDenied", ""), elsewhere),
        (&own, 403, None, error("AccessDenied", ""), Verdict::Refused("AccessDenied: M".into())),
        (&own, 400, None, error("ExpiredToken", ""), Verdict::Refused("ExpiredToken: M".into())),
        (&own, 404, None, error("NoSuchBucket", ""), Verdict::NoBucket),
        (&own, 503, None, error("SlowDown", ""), Verdict::Broken("SlowDown: M".into())),
        (&custom, 404, None, "<html>".to_owned(), Verdict::Wrong("404 Not Found".into())),
        (
            &custom,
            200,
            None,
            "<html>".to_owned(),
            Verdict::Wrong("it answers, but not as S3 does; check the endpoint".into()),
        ),
    ] {
        let mut headers = HeaderMap::new();
        if let Some(region) = header {
            headers.insert(REGION_HEADER, region.parse().expect("a header"));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        assert_eq!(judge(status, &headers, &body, place), wanted, "{status} {header:?} {body}");
    }
}

/// A server that gives one answer, whatever it is asked, to as many as ask; its URL.
async fn answers(text: &'static str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let read = stream.read(&mut [0; 4096]).await;
            drop((read, stream.write_all(text.as_bytes()).await));
        }
    });
    url
}

#[test]
fn s3_is_asked_where_a_bucket_is() {
    super::super::runtime().block_on(async {
        for (answer, wanted) in [
            ("HTTP/1.1 301 Moved\r\nx-amz-bucket-region: eu-west-1\r\ncontent-length: 0\r\n\r\n", "eu-west-1"),
            ("HTTP/1.1 403 Forbidden\r\nx-amz-bucket-region: us-west-2\r\ncontent-length: 0\r\n\r\n", "us-west-2"),
            (
                "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
                "no bucket `b` at https://s3.us-east-1.amazonaws.com",
            ),
            ("HTTP/1.1 301 Moved\r\ncontent-length: 0\r\n\r\n", "give --option region=REGION"),
        ] {
            let global = answers(answer).await;
            let client = http::connect(&http::client_options(&Options::default(), true)).expect("a client");
            let prober = Prober { client: &client, rotating: None, request_payer: false, global: &global };
            let found = prober.discover(&place("s3://b", &[], &[])).await;
            let said = found.unwrap_or_else(|error| error.to_string());
            assert!(said.contains(wanted), "{said}");
        }
    });
}
