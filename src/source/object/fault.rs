//! What goes wrong with requests to a store: what it is, what number programs get, and whether to try again.

use std::fmt;
use std::io;

use http::{HeaderMap, StatusCode};
use object_store::client::{HttpError, HttpErrorKind};

/// So much of the text of an error is looked at, in bytes.
pub(super) const TEXT_BYTES: usize = 16 << 10;
/// So much of it is shown.
const SHOWN_CHARS: usize = 300;

/// What a request came to that did not do what it was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What it is.
    pub kind: FaultKind,
    /// What the store said, or how the connection failed, for people.
    pub detail: Box<str>,
}

/// The kinds of [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// There are no credentials, or they cannot be had.
    NoCredentials,
    /// They have expired.
    Expired,
    /// They do not allow it.
    Denied,
    /// There is no such bucket or container.
    NoBucket,
    /// The object is not there any more.
    Gone,
    /// The object is another one than was listed.
    Replaced,
    /// The object is in a storage class from which it has to be restored first.
    Archived,
    /// The bucket is in another region.
    WrongRegion,
    /// Too much is asked at a time.
    Throttled,
    /// The server has a fault of its own, or the connection broke.
    Unavailable,
    /// The server cannot be reached.
    Unreachable,
    /// Nothing came for too long.
    TimedOut,
    /// It is no answer that can be understood.
    Malformed,
    /// The request is refused for another reason.
    Refused,
    /// Nobody waits any more.
    Cancelled,
}

impl FaultKind {
    /// The number that programs get (errno(3)).
    pub fn errno(self) -> i32 {
        match self {
            Self::NoCredentials | Self::Expired | Self::Denied => libc::EACCES,
            Self::Gone | Self::Replaced => libc::ESTALE,
            Self::NoBucket => libc::ENODEV,
            Self::Archived => libc::ENODATA,
            Self::TimedOut => libc::ETIMEDOUT,
            Self::Unreachable => libc::EHOSTUNREACH,
            Self::Throttled | Self::Unavailable | Self::Malformed | Self::WrongRegion | Self::Refused => libc::EIO,
            Self::Cancelled => libc::EINTR,
        }
    }

    /// True if the same request may do later what it is for.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable | Self::Unreachable | Self::TimedOut)
    }

    /// What it is, and the cure.
    fn sentence(self) -> &'static str {
        match self {
            Self::NoCredentials => "no credentials",
            Self::Expired => "the credentials have expired; renew them (for AWS SSO: `aws sso login`)",
            Self::Denied => "access is denied; the credentials in use need the right to list and read there",
            Self::NoBucket => "there is no such bucket or container; check the name",
            Self::Gone => "the object is not there any more; `veinfs refresh` lists again",
            Self::Replaced => "the object was replaced since it was listed; open it again to read what it is now",
            Self::Archived => "the object is archived: restore it first",
            Self::WrongRegion => "the bucket is in another region; give it as `--option region=…`",
            Self::Throttled => "the store asks to slow down",
            Self::Unavailable => "the store fails",
            Self::Unreachable => "the store cannot be reached",
            Self::TimedOut => "the store does not answer",
            Self::Malformed => "the store's answer cannot be understood",
            Self::Refused => "the store refuses",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Fault {
    /// A fault with what is known of it.
    pub fn new(kind: FaultKind, detail: impl Into<Box<str>>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// Nobody waits any more.
    pub(super) fn cancelled() -> Self {
        Self::new(FaultKind::Cancelled, "")
    }

    /// What an answer means that is not one of success, with the beginning of its text.
    pub(super) fn of_answer(status: StatusCode, headers: &HeaderMap, text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(&text[..text.len().min(TEXT_BYTES)]);
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let code = between(&text, "<Code>", "</Code>").or_else(|| header("x-ms-error-code")).unwrap_or("");
        let kind = match code {
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken" => FaultKind::Expired,
            "InvalidObjectState" | "BlobArchived" => FaultKind::Archived,
            "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted" => FaultKind::NoBucket,
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
                FaultKind::WrongRegion
            }
            "SlowDown" | "ServerBusy" | "RequestLimitExceeded" | "Throttling" | "TooManyRequests" => {
                FaultKind::Throttled
            }
            "RequestTimeout" | "OperationTimedOut" => FaultKind::TimedOut,
            "InternalError" => FaultKind::Unavailable,
            _ => match status.as_u16() {
                301 | 307 | 308 => FaultKind::WrongRegion,
                401 | 403 => FaultKind::Denied,
                404 | 410 => FaultKind::Gone,
                412 => FaultKind::Replaced,
                // What is shorter than it was is another one.
                416 => FaultKind::Replaced,
                408 | 504 => FaultKind::TimedOut,
                429 | 503 => FaultKind::Throttled,
                500..=599 => FaultKind::Unavailable,
                _ => FaultKind::Refused,
            },
        };
        let message = between(&text, "<Message>", "</Message>").unwrap_or("");
        let region = header("x-amz-bucket-region").filter(|_| kind == FaultKind::WrongRegion);
        let mut detail = status.as_u16().to_string();
        for part in [Some(code), Some(message), region].into_iter().flatten().filter(|part| !part.is_empty()) {
            detail.push(' ');
            detail.extend(part.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS));
        }
        Self::new(kind, detail)
    }

    /// What a connection that failed means.
    pub(super) fn of_connection(error: &HttpError) -> Self {
        let kind = match error.kind() {
            HttpErrorKind::Connect => FaultKind::Unreachable,
            HttpErrorKind::Timeout => FaultKind::TimedOut,
            _ => FaultKind::Unavailable,
        };
        Self::new(kind, whole(error))
    }
}

/// An error with its causes, and no URL in it: that may hold a signature.
pub(super) fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        let text = text.split(" for url (").next().unwrap_or_default().to_owned();
        // Many errors say what their cause says.
        if !text.is_empty() && !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(begin)?;
    Some(rest.split_once(end)?.0)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.sentence())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for io::Error {
    /// With the text, for people; what programs get is [`FaultKind::errno`].
    fn from(fault: Fault) -> Self {
        io::Error::other(fault)
    }
}

/// The number that programs get for an error that may be a [`Fault`].
pub fn errno(error: &io::Error) -> Option<i32> {
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>());
    fault.map(|fault| fault.kind.errno())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let s3 = |code: &str| format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
        let table = [
            (403, s3("ExpiredToken"), FaultKind::Expired, libc::EACCES),
            (400, s3("ExpiredToken"), FaultKind::Expired, libc::EACCES),
            (403, s3("InvalidObjectState"), FaultKind::Archived, libc::ENODATA),
            (403, s3("AccessDenied"), FaultKind::Denied, libc::EACCES),
            (404, s3("NoSuchBucket"), FaultKind::NoBucket, libc::ENODEV),
            (404, s3("NoSuchKey"), FaultKind::Gone, libc::ESTALE),
            (301, s3("PermanentRedirect"), FaultKind::WrongRegion, libc::EIO),
            (301, String::new(), FaultKind::WrongRegion, libc::EIO),
            (400, s3("AuthorizationHeaderMalformed"), FaultKind::WrongRegion, libc::EIO),
            (503, s3("SlowDown"), FaultKind::Throttled, libc::EIO),
            (503, String::new(), FaultKind::Throttled, libc::EIO),
            (429, String::new(), FaultKind::Throttled, libc::EIO),
            (500, s3("InternalError"), FaultKind::Unavailable, libc::EIO),
            (502, "<html>".into(), FaultKind::Unavailable, libc::EIO),
            (412, s3("PreconditionFailed"), FaultKind::Replaced, libc::ESTALE),
            (416, s3("InvalidRange"), FaultKind::Replaced, libc::ESTALE),
            (400, s3("RequestTimeout"), FaultKind::TimedOut, libc::ETIMEDOUT),
            (400, s3("InvalidArgument"), FaultKind::Refused, libc::EIO),
            (409, s3("BlobArchived"), FaultKind::Archived, libc::ENODATA),
        ];
        for (status, text, kind, errno) in table {
            let status = StatusCode::from_u16(status).expect("a status");
            let fault = Fault::of_answer(status, &HeaderMap::new(), text.as_bytes());
            assert_eq!((fault.kind, fault.kind.errno()), (kind, errno), "{status} {text}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-ms-error-code", "ContainerNotFound".parse().expect("a value"));
        assert_eq!(Fault::of_answer(StatusCode::NOT_FOUND, &headers, b"").kind, FaultKind::NoBucket);
    }

    #[test]
    fn what_people_read() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-bucket-region", "eu-west-1".parse().expect("a value"));
        let fault = Fault::of_answer(StatusCode::MOVED_PERMANENTLY, &headers, b"\xff\0<Code>PermanentRedirect</Code>");
        insta::assert_snapshot!(fault, @"the bucket is in another region; give it as `--option region=…` (301 PermanentRedirect eu-west-1)");
    }
}
