//! Pages as Azure has them (List Blobs).

use http::Method;
use percent_encoding::percent_decode_str;

use super::s3::text;
use super::xml::{self, Item};
use super::{Depth, Found, From, Page};
use crate::source::object::client::{Asked, Client, etag, time};
use crate::source::object::count::Purpose;
use crate::source::object::fault::{Fault, FaultKind};
use crate::source::object::snapshot::Meta;

/// A page of what begins with a prefix and then with `within`; keys come without the prefix.
pub(super) async fn page(
    client: &Client,
    (prefix, within): (&str, &str),
    from: &From,
    depth: Depth,
) -> Result<Page, Fault> {
    let mut query = vec![("comp", "list".to_owned()), ("restype", "container".to_owned())];
    let all = [prefix, within].concat();
    if !all.is_empty() {
        query.push(("prefix", all.clone()));
    }
    if depth == Depth::One {
        query.push(("delimiter", "/".to_owned()));
    }
    match from {
        From::Start => {}
        From::Token(token) => query.push(("marker", token.clone())),
        From::After(_) => return Err(Fault::new(FaultKind::Refused, "Azure begins behind no key")),
    }
    let asked = Asked { purpose: Purpose::List, method: Method::GET, path: "", query, headers: Vec::new() };
    let (text, own) = (text(client, asked).await?, prefix.len());
    // Beside others, as pages of S3 are.
    let parsed = tokio::task::spawn_blocking(move || parse(&text, &all, own));
    parsed.await.unwrap_or_else(|error| Err(Fault::new(FaultKind::Malformed, error.to_string())))
}

/// Reads a page of keys with a prefix, of which so many bytes are left away.
fn parse(text: &[u8], prefix: &str, own: usize) -> Result<Page, Fault> {
    let mut page = Page::default();
    let (mut key, mut meta, mut in_blob, mut known) = (None, Meta::default(), false, false);
    let mut directory = false;
    xml::read(text, |item| {
        match item {
            Item::Begin("Blob" | "BlobPrefix") => {
                (in_blob, key, meta, directory) = (true, None, Meta::default(), false)
            }
            Item::Begin("EnumerationResults") => known = true,
            Item::Begin(_) => {}
            Item::End("NextMarker", text, _) if !text.is_empty() => page.next = Some(text.to_owned()),
            Item::End("Blob" | "BlobPrefix", ..) => {
                in_blob = false;
                let mut key: Vec<u8> =
                    key.take().ok_or_else(|| Fault::new(FaultKind::Malformed, "an object without a key"))?;
                // Of a container that is a file system.
                if directory && !key.ends_with(b"/") {
                    key.push(b'/');
                }
                if !key.starts_with(prefix.as_bytes()) {
                    return Err(Fault::new(FaultKind::Malformed, "a key that was not asked for"));
                }
                key.drain(..own);
                page.objects.push(Found { key, meta: std::mem::take(&mut meta) });
            }
            Item::End(name, text, encoded) if in_blob => match name {
                "Name" if key.is_none() => {
                    key = Some(if encoded { percent_decode_str(text).collect() } else { text.as_bytes().to_vec() });
                }
                "Content-Length" => {
                    let size = text.trim().parse();
                    meta.size = size.map_err(|_| Fault::new(FaultKind::Malformed, "a size that is no number"))?;
                }
                "Etag" => meta.etag = etag(text),
                "Last-Modified" => meta.modified = time(text).unwrap_or_default(),
                "AccessTier" if text != "Hot" && !text.is_empty() => meta.class = Some(text.into()),
                "ResourceType" => directory = text == "directory",
                _ => {}
            },
            Item::End(..) => {}
        }
        Ok(())
    })?;
    if known { Ok(page) } else { Err(Fault::new(FaultKind::Malformed, "no listing; is this the address of a store?")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page() {
        let text =
            b"\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ContainerName='c'><Blobs>\
            <Blob><Name>p/a</Name><Properties><Last-Modified>Thu, 26 Nov 2026 10:20:30 GMT</Last-Modified>\
            <Etag>0x8D</Etag><Content-Length>7</Content-Length><AccessTier>Archive</AccessTier></Properties></Blob>\
            <Blob><Name Encoded=\"true\">p/%01</Name><Properties/></Blob>\
            <Blob><Name>p/d</Name><Properties><ResourceType>directory</ResourceType></Properties></Blob>\
            <BlobPrefix><Name>p/e/</Name></BlobPrefix>\
            </Blobs><NextMarker>m</NextMarker></EnumerationResults>";
        let page = parse(text, "p/", 2).expect("a page");
        let keys: Vec<&[u8]> = page.objects.iter().map(|found| &*found.key).collect();
        assert_eq!(keys, [&b"a"[..], b"\x01", b"d/", b"e/"]);
        assert!(parse(text, "p/a", 2).is_err(), "the others were not asked for");
        let meta = &page.objects[0].meta;
        assert_eq!((meta.size, meta.etag.as_deref(), meta.class.as_deref()), (7, Some("0x8D"), Some("Archive")));
        assert_eq!((meta.modified.0, page.next.as_deref()), (1_795_688_430, Some("m")));
    }
}
