//! The answers of stores as trees of elements: what is not known is passed over.

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::source::object::fault::{Fault, FaultKind};

fn malformed(error: impl std::fmt::Display) -> Fault {
    Fault::new(FaultKind::Malformed, error.to_string())
}

/// Something in an answer.
pub(super) enum Item<'a> {
    /// An element begins, by its name without a prefix.
    Begin(&'a str),
    /// An element ends: its name, the text in it if there is no element in it, and whether the text is percent-encoded.
    End(&'a str, &'a str, bool),
}

/// Goes through an answer.
pub(super) fn read(text: &[u8], mut each: impl FnMut(Item<'_>) -> Result<(), Fault>) -> Result<(), Fault> {
    let mut reader = Reader::from_reader(text);
    let (mut inner, mut encoded, mut depth) = (String::new(), false, 0usize);
    loop {
        match reader.read_event().map_err(malformed)? {
            Event::Start(start) => {
                inner.clear();
                depth += 1;
                let name = start.local_name();
                let name = std::str::from_utf8(name.as_ref()).map_err(malformed)?;
                // Azure has names so that XML cannot hold. Nearly no element has an attribute.
                encoded = start.len() > name.len()
                    && start.attributes().flatten().any(|a| a.key.as_ref() == b"Encoded" && &*a.value == b"true");
                each(Item::Begin(name))?;
            }
            Event::Empty(start) => {
                let name = start.local_name();
                let name = std::str::from_utf8(name.as_ref()).map_err(malformed)?;
                each(Item::Begin(name))?;
                each(Item::End(name, "", false))?;
            }
            Event::Text(text) => inner.push_str(&text.decode().map_err(malformed)?),
            Event::CData(text) => inner.push_str(&text.decode().map_err(malformed)?),
            Event::GeneralRef(reference) => match reference.resolve_char_ref().map_err(malformed)? {
                Some(char) => inner.push(char),
                None => {
                    let name = reference.decode().map_err(malformed)?;
                    let known = quick_xml::escape::resolve_xml_entity(&name);
                    inner.push_str(known.ok_or_else(|| malformed(format!("an entity `{name}`")))?);
                }
            },
            Event::End(end) => {
                depth = depth.saturating_sub(1);
                let name = end.local_name();
                let name = std::str::from_utf8(name.as_ref()).map_err(malformed)?;
                each(Item::End(name, &inner, encoded))?;
                inner.clear();
            }
            // An answer that was cut off is none.
            Event::Eof if depth > 0 => return Err(malformed("it is cut off")),
            Event::Eof => return Ok(()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_and_texts() {
        let mut seen = Vec::new();
        let text = b"<?xml version='1.0'?><D:a xmlns:D='x'><b Encoded='true'>1&amp;2&#x41;<![CDATA[<]]></b><c/></D:a>";
        read(text, |item| {
            if let Item::End(name, text, encoded) = item {
                seen.push(format!("{name} {text} {encoded}"));
            }
            Ok(())
        })
        .expect("it is sound");
        assert_eq!(seen, ["b 1&2A< true", "c  false", "a  true"].map(str::to_owned).to_vec());
        assert!(read(b"<a><b>", |_| Ok(())).is_err());
        assert!(read(b"<a>&unknown;</a>", |_| Ok(())).is_err());
    }
}
