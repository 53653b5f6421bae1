//! Printing: escapes on terminals, errors, progress.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A name or path for a terminal: control characters and what is no UTF-8 are escaped, all else is as it is.
pub(crate) fn for_terminal(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.chars().any(char::is_control)
    {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { escaped.extend(c.escape_default()) } else { escaped.push(c) }
        }
        chunk.invalid().iter().for_each(|byte| escaped.push_str(&format!("\\x{byte:02x}")));
    }
    Cow::Owned(escaped)
}

/// A line on stderr in the house's form.
pub(crate) fn error(message: &str) {
    let mut stderr = io::stderr().lock();
    for line in message.lines() {
        let shown = for_terminal(line.as_bytes());
        // Nobody is left to tell if stderr is closed.
        let _ = writeln!(stderr, "veinfs: {shown}");
    }
}

/// A line on stderr that names its file itself, as compilers do.
pub(crate) fn line(message: &str) {
    // Nobody is left to tell if stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{}", for_terminal(message.as_bytes()));
}

/// True if the reader of stdout has gone, which is no failure of ours.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<serde_json::Error>() {
        Some(json) => json.io_error_kind(),
        None => cause.downcast_ref::<io::Error>().map(io::Error::kind),
    };
    error.chain().any(|cause| kind(cause) == Some(io::ErrorKind::BrokenPipe))
}

/// Messages of the daemon and of libraries on stderr; `RUST_LOG` says which [default: warnings].
pub(crate) fn init_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    // A second call, in one process, would find it set already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init();
}

/// Writes one path with its end: escaped and with a newline to a terminal, bare otherwise.
pub(crate) fn path(to: &mut dyn Write, bytes: &[u8], end: u8, terminal: bool) -> io::Result<()> {
    if terminal && end == b'\n' {
        to.write_all(for_terminal(bytes).as_bytes())?;
    } else {
        to.write_all(bytes)?;
    }
    to.write_all(&[end])
}

/// A spinner on stderr, only where that is a terminal.
pub(crate) fn spinner() -> Option<ProgressBar> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new_spinner();
    bar.set_style(
        ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    bar.enable_steady_tick(Duration::from_millis(120));
    Some(bar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_wrong_bytes_are_escaped() {
        assert_eq!(for_terminal("a é".as_bytes()), "a é");
        assert_eq!(for_terminal(b"a\x1b[31m\n\xff"), "a\\u{1b}[31m\\n\\xff");
    }
}
