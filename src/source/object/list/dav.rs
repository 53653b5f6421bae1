//! Listing by WebDAV (PROPFIND, RFC 4918): directory by directory, several at a time.
//!
//! Depth `infinity` is refused by many servers. All names are in memory until the end, since servers keep no order.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderName, Method};
use percent_encoding::percent_decode_str;

use super::s3::text;
use super::xml::{self, Item};
use super::{AT_ONCE, Found, Listing, patiently, write_sorted};
use crate::source::object::client::{Asked, Client, etag, time};
use crate::source::object::count::Purpose;
use crate::source::object::fault::{Fault, FaultKind};
use crate::source::object::keys::{Left, Scope};
use crate::source::object::location::Location;
use crate::source::object::snapshot::{Meta, Writer};

/// Something in a directory: its path below the root of the server, and what is known if it is a file.
#[derive(Debug, Default)]
struct Entry {
    path: Vec<u8>,
    is_dir: bool,
    meta: Meta,
}

pub(super) async fn list(
    client: &Client,
    location: &Location,
    scope: &Scope,
    (writer, left): (&Writer, &Left),
) -> Result<Listing, Fault> {
    let mut found = Vec::new();
    let mut waiting = vec![Vec::new()];
    let mut asked = FuturesUnordered::new();
    let root = location.prefix.as_bytes();
    loop {
        while asked.len() < AT_ONCE
            && let Some(dir) = waiting.pop()
        {
            asked.push(async move {
                let path = [root, if root.is_empty() || dir.is_empty() { b"" } else { b"/" }, &*dir].concat();
                let entries = patiently(client, || entries(client, &path)).await;
                (dir, path, entries)
            });
        }
        let Some((dir, path, entries)) = asked.next().await else { break };
        let entries = match entries {
            Ok(entries) => entries,
            // One that went meanwhile is not there; the root is.
            Err(fault) if fault.kind == FaultKind::Gone && !dir.is_empty() => continue,
            Err(fault) if fault.kind == FaultKind::Gone => {
                return Err(Fault::new(FaultKind::NoBucket, format!("there is nothing at `{location}`")));
            }
            Err(fault) => return Err(fault),
        };
        let mut any = false;
        for entry in entries {
            let Some(name) = below(&entry.path, &path) else { continue };
            any = true;
            let key = if dir.is_empty() { name.to_vec() } else { [&*dir, b"/", name].concat() };
            if !entry.is_dir {
                found.push(Found { key, meta: entry.meta });
            } else if let Some(reason) = super::super::keys::fault(&key) {
                found.push(Found { key: [&*key, b"/"].concat(), meta: Meta::default() });
                tracing::debug!(reason, "not listed");
            } else if scope.shuts(&[&*key, b"/x"].concat()).is_some() {
                found.push(Found { key: [&*key, b"/"].concat(), meta: Meta { marker: true, ..Meta::default() } });
            } else {
                waiting.push(key);
            }
        }
        if !any && !dir.is_empty() {
            found.push(Found { key: [&*dir, b"/"].concat(), meta: Meta { marker: true, ..Meta::default() } });
        }
    }
    drop(asked);
    write_sorted(found, scope, (writer, left))
}

/// The name of what is right in a directory.
fn below<'a>(path: &'a [u8], dir: &[u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(dir)?;
    let rest = if dir.is_empty() { rest } else { rest.strip_prefix(b"/")? };
    (!rest.is_empty()).then_some(rest)
}

async fn entries(client: &Client, path: &[u8]) -> Result<Vec<Entry>, Fault> {
    let path = std::str::from_utf8(path).map_err(|_| Fault::new(FaultKind::Malformed, "a name that is no UTF-8"))?;
    let path = if path.is_empty() { String::new() } else { format!("{path}/") };
    let method = Method::from_bytes(b"PROPFIND").expect("a method");
    let headers = vec![(HeaderName::from_static("depth"), "1".to_owned())];
    let asked = Asked { purpose: Purpose::List, method, path: &path, query: Vec::new(), headers };
    parse(&text(client, asked).await?)
}

fn parse(text: &[u8]) -> Result<Vec<Entry>, Fault> {
    let (mut all, mut entry, mut known) = (Vec::new(), Entry::default(), false);
    xml::read(text, |item| {
        match item {
            Item::Begin("response") => entry = Entry::default(),
            Item::Begin("multistatus") => known = true,
            Item::Begin("collection") => entry.is_dir = true,
            Item::Begin(_) => {}
            Item::End("href", text, _) if entry.path.is_empty() => {
                let path = match text.trim().split_once("://") {
                    Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
                    None => text.trim(),
                };
                entry.path = percent_decode_str(path.trim_start_matches('/').trim_end_matches('/')).collect();
            }
            Item::End("getcontentlength", text, _) => entry.meta.size = text.trim().parse().unwrap_or(0),
            Item::End("getlastmodified", text, _) => entry.meta.modified = time(text.trim()).unwrap_or_default(),
            Item::End("getetag", text, _) => entry.meta.etag = etag(text),
            Item::End("response", ..) => all.push(std::mem::take(&mut entry)),
            Item::End(..) => {}
        }
        Ok(())
    })?;
    if known { Ok(all) } else { Err(Fault::new(FaultKind::Malformed, "no listing; does it speak WebDAV?")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory() {
        let text = b"<D:multistatus xmlns:D='DAV:'><D:response><D:href>/r/a%20b/</D:href><D:propstat><D:prop>\
            <D:resourcetype><D:collection xmlns:D='DAV:'/></D:resourcetype></D:prop></D:propstat></D:response>\
            <D:response><D:href>http://h:1/r/a%20b/x.csv</D:href><D:propstat><D:prop><D:getcontentlength>5</D:getcontentlength>\
            <D:getetag>\"e\"</D:getetag><D:getlastmodified>Thu, 26 Nov 2026 10:20:30 GMT</D:getlastmodified></D:prop>\
            </D:propstat></D:response></D:multistatus>";
        let entries = parse(text).expect("a directory");
        assert_eq!(entries[0].path, b"r/a b");
        assert!(entries[0].is_dir && !entries[1].is_dir);
        assert_eq!((&*entries[1].path, entries[1].meta.size), (&b"r/a b/x.csv"[..], 5));
        assert_eq!(below(&entries[1].path, b"r/a b"), Some(&b"x.csv"[..]));
        assert_eq!(below(&entries[0].path, b"r/a b"), None);
        assert!(parse(b"<html/>").is_err());
    }
}
