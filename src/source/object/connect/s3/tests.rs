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
