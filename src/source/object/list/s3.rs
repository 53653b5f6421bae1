//! Pages as S3 has them (ListObjectsV2), and Google Cloud Storage through its XML interface.

use futures_util::StreamExt;
use http::Method;
use http::header::CONTENT_LENGTH;
use percent_encoding::percent_decode;

use super::xml::{self, Item};
use super::{Found, From, Page};
use crate::source::object::client::{Asked, Client, etag, header, time};
use crate::source::object::count::Purpose;
use crate::source::object::fault::{Fault, FaultKind};
use crate::source::object::snapshot::Meta;

/// The longest page, in bytes: a thousand keys of a kilobyte, encoded, take some four.
const PAGE_BYTES: usize = 64 << 20;

pub(super) async fn page(client: &Client, prefix: &str, from: &From) -> Result<Page, Fault> {
    let mut query = vec![("list-type", "2".to_owned()), ("encoding-type", "url".to_owned())];
    if !prefix.is_empty() {
        query.push(("prefix", prefix.to_owned()));
    }
    match from {
        From::Start => {}
        From::Token(token) => query.push(("continuation-token", token.clone())),
        From::After(key) => query.push(("start-after", format!("{prefix}{}", String::from_utf8_lossy(key)))),
    }
    // Signatures are over parameters in order.
    query.sort_unstable();
    let text =
        text(client, Asked { purpose: Purpose::List, method: Method::GET, path: "", query, headers: Vec::new() });
    let (text, prefix) = (text.await?, prefix.to_owned());
    // Of a listing's time most is spent here: several pages at a time, each on a core of its own.
    let parsed = tokio::task::spawn_blocking(move || parse(&text, &prefix));
    parsed.await.unwrap_or_else(|error| Err(Fault::new(FaultKind::Malformed, error.to_string())))
}

/// What is answered to a request for a listing, whole.
pub(super) async fn text(client: &Client, asked: Asked<'_>) -> Result<Vec<u8>, Fault> {
    let answer = client.send(&asked).await?;
    let length = header(answer.headers(), CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let mut text = Vec::with_capacity(length.unwrap_or(0).min(PAGE_BYTES));
    let mut body = answer.into_body().bytes_stream();
    while let Some(more) = body.next().await {
        text.extend_from_slice(&more.map_err(|error| Fault::of_connection(&error))?);
        if text.len() > PAGE_BYTES {
            return Err(Fault::new(FaultKind::Malformed, "a page of more than 64 MiB"));
        }
    }
    Ok(text)
}

fn parse(text: &[u8], prefix: &str) -> Result<Page, Fault> {
    let mut page = Page::default();
    let (mut key, mut meta, mut in_object) = (None, Meta::default(), false);
    let (mut truncated, mut known, mut encoded, mut raw) = (false, false, false, Vec::<String>::new());
    xml::read(text, |item| {
        match item {
            Item::Begin("Contents") => (in_object, key, meta) = (true, None, Meta::default()),
            Item::Begin("ListBucketResult") => known = true,
            Item::Begin(_) => {}
            Item::End("EncodingType", text, _) => encoded = text == "url",
            Item::End("IsTruncated", text, _) => truncated = text == "true",
            Item::End("NextContinuationToken", text, _) => page.next = Some(text.to_owned()),
            Item::End("Contents", ..) => {
                in_object = false;
                let key = key.take().ok_or_else(|| Fault::new(FaultKind::Malformed, "an object without a key"))?;
                raw.push(key);
                page.objects.push(Found { key: Vec::new(), meta: std::mem::take(&mut meta) });
            }
            Item::End(name, text, _) if in_object => match name {
                "Key" => key = Some(text.to_owned()),
                "Size" => {
                    let size = text.trim().parse();
                    meta.size = size.map_err(|_| Fault::new(FaultKind::Malformed, "a size that is no number"))?;
                }
                "ETag" => meta.etag = etag(text),
                "LastModified" => meta.modified = time(text).unwrap_or_default(),
                "StorageClass" if text != "STANDARD" && !text.is_empty() => meta.class = Some(text.into()),
                // Of Google, each version's own.
                "Generation" => meta.version = Some(text.into()),
                _ => {}
            },
            Item::End(..) => {}
        }
        Ok(())
    })?;
    if !known {
        return Err(Fault::new(FaultKind::Malformed, "no listing; is this the address of a store?"));
    }
    if truncated && page.next.is_none() {
        return Err(Fault::new(FaultKind::Malformed, "a part of a listing, and not how it goes on"));
    }
    // How keys are encoded may be said behind them.
    for (found, key) in page.objects.iter_mut().zip(raw) {
        let mut key = match encoded && key.contains(['+', '%']) {
            true => percent_decode(key.replace('+', " ").as_bytes()).collect(),
            false => key.into_bytes(),
        };
        if !key.starts_with(prefix.as_bytes()) {
            return Err(Fault::new(FaultKind::Malformed, "a key that was not asked for"));
        }
        key.drain(..prefix.len());
        found.key = key;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page() {
        let text = b"<ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'><Name>b</Name>\
            <Contents><Key>p/a+b%2Bc%2F%2Fd</Key><Size>5</Size><ETag>&quot;e&quot;</ETag>\
            <LastModified>2026-11-26T10:20:30.500Z</LastModified><StorageClass>GLACIER</StorageClass>\
            <Owner><ID>Key</ID></Owner></Contents><Contents><Key>p/%C3%BC</Key><Size>0</Size></Contents>\
            <EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
            <NextContinuationToken>t&amp;1</NextContinuationToken></ListBucketResult>";
        let page = parse(text, "p/").expect("a page");
        assert_eq!(page.next.as_deref(), Some("t&1"));
        assert_eq!(page.objects[0].key, b"a b+c//d");
        assert_eq!(page.objects[1].key, "ü".as_bytes());
        let meta = &page.objects[0].meta;
        assert_eq!((meta.size, meta.modified), (5, (1_795_688_430, 500_000_000)));
        assert_eq!((meta.etag.as_deref(), meta.class.as_deref()), (Some("e"), Some("GLACIER")));
        // Another server does not know of encoding.
        let plain = b"<ListBucketResult><Contents><Key>a+b%20</Key><Size>1</Size></Contents></ListBucketResult>";
        assert_eq!(parse(plain, "").expect("a page").objects[0].key, b"a+b%20");
        for bad in [
            "<html></html>",
            "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
            "x",
            "",
            "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
        ] {
            assert!(parse(bad.as_bytes(), "").is_err(), "{bad}");
        }
        assert!(parse(plain, "q/").is_err());
    }
}
