//! What stands inside the strings of a pattern file: names, sizes, magic bytes, and the outer shape of
//! globs. Each function returns a value or the message and the cure.

use super::super::{SizeOp, SizeTest};
use crate::entry::{NAME_MAX, valid_name};

/// A message and perhaps a cure.
pub(super) type Fault = (String, Option<String>);

/// What a message shows of a long text.
const CLIP_CHARS: usize = 60;

/// The longest `magic` and `contains` in bytes.
const MAX_CONTENT_BYTES: usize = 4096;

/// How sizes are written.
const SIZE_EXAMPLES: &str = "write \">0\", \"<10MiB\", \">=4KiB\" or \"=512\"";

/// How magic bytes are written.
const HEX_EXAMPLE: &str = "write \"hex:89504e47\"";

/// A text for a message: not too long, and without control characters.
pub(crate) fn clip(text: &str) -> String {
    let mut clipped = String::new();
    for (count, char) in text.chars().enumerate() {
        if count == CLIP_CHARS {
            clipped.push('…');
            break;
        }
        if char.is_control() { clipped.extend(char.escape_default()) } else { clipped.push(char) }
    }
    clipped
}

/// Checks the name of a pattern, a folder in the view.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        Err("it is empty".to_owned())
    } else if !valid_name(name.as_bytes()) {
        Err(format!("`{}` is no file name", clip(name)))
    } else if name.starts_with(".veinfs") {
        Err("names that begin with `.veinfs` are veinfs's own".to_owned())
    } else if name.len() > NAME_MAX {
        Err(format!("it is longer than {NAME_MAX} bytes"))
    } else {
        Ok(())
    }
}

/// Checks a glob for one name.
pub(super) fn check_name_glob(glob: &str) -> Result<(), Fault> {
    if glob.contains('/') {
        let hint = "nest `directories` for a path: {\"directory_name\": \"a\", \"directories\": [{\"directory_name\": \"b\"}]}";
        return Err((format!("`{}` holds a `/`, but is for one name", clip(glob)), Some(hint.to_owned())));
    }
    check_path_glob(glob)
}

/// Checks a glob for a name or for a path below the directory.
pub(super) fn check_path_glob(glob: &str) -> Result<(), Fault> {
    if glob.is_empty() {
        return Err(("an empty glob matches nothing".to_owned(), Some("write \"*\" for any name".to_owned())));
    }
    let clipped = clip(glob);
    if glob.contains('\0') {
        return Err((format!("`{clipped}` holds a NUL, which no name does"), None));
    }
    if glob.starts_with('/') {
        let hint = "paths are taken below the directory: leave it out";
        return Err((format!("`{clipped}` begins with `/`"), Some(hint.to_owned())));
    }
    if glob.ends_with('/') {
        let hint = "a file clause names files; for a directory write directories: [{\"directory_name\": …}]";
        return Err((format!("`{clipped}` ends with `/`"), Some(hint.to_owned())));
    }
    for component in glob.split('/') {
        match component {
            "" => return Err((format!("`{clipped}` holds `//`"), Some("write one `/`".to_owned()))),
            "." | ".." => {
                return Err((format!("`{clipped}` has `{component}` for a name, which matches nothing"), None));
            }
            _ => {}
        }
    }
    Ok(())
}

/// True for `[A-Za-z_][A-Za-z0-9_]*`.
pub(super) fn is_identifier(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|char: char| char.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Parses a comparison such as `>=4KiB`; fractions of a byte are rounded so that the same sizes pass.
pub(super) fn size(text: &str) -> Result<SizeTest, Fault> {
    let fault = |why: &str| (format!("`{}` is no size: {why}", clip(text)), Some(SIZE_EXAMPLES.to_owned()));
    let rest = text.trim();
    let (op, rest) = [
        ("<=", SizeOp::AtMost),
        (">=", SizeOp::AtLeast),
        ("==", SizeOp::Equal),
        ("<", SizeOp::Less),
        (">", SizeOp::Greater),
        ("=", SizeOp::Equal),
    ]
    .into_iter()
    .find_map(|(sign, op)| rest.strip_prefix(sign).map(|rest| (op, rest.trim_start())))
    .unwrap_or((SizeOp::Equal, rest));
    let end = rest.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(rest.len());
    let (number, unit) = (&rest[..end], rest[end..].trim());
    let unit_bytes =
        unit_bytes(unit).ok_or_else(|| fault("the unit is none of B, KB, MB, GB, TB, KiB, MiB, GiB, TiB"))?;
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(whole, frac)| (whole, Some(frac)));
    let fraction_ok = fraction.is_none_or(|digits| (1..=15).contains(&digits.len()) && !digits.contains('.'));
    if whole.is_empty() || whole.len() > 20 || !fraction_ok {
        return Err(fault("it wants a number"));
    }
    let fraction = fraction.unwrap_or_default();
    let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| fault("it wants a number"))?);
    // At most 35 digits times a unit of 1.1e12 can pass the end of u128.
    let scaled =
        format!("{whole}{fraction}").parse::<u128>().ok().and_then(|digits| digits.checked_mul(unit_bytes.into()));
    let (floor, exact) =
        scaled.map(|scaled| (scaled / scale, scaled % scale == 0)).ok_or_else(|| fault("it is too large"))?;
    let bytes = match op {
        _ if exact => floor,
        SizeOp::Equal => return Err(fault("it is no whole number of bytes")),
        SizeOp::AtMost | SizeOp::Greater => floor,
        SizeOp::Less | SizeOp::AtLeast => floor + 1,
    };
    let bytes = u64::try_from(bytes).map_err(|_| fault("it is too large"))?;
    if op == SizeOp::Less && bytes == 0 {
        return Err(fault("no size is less than 0"));
    }
    Ok(SizeTest { op, bytes })
}

fn unit_bytes(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    })
}

/// Parses the bytes of `magic`: a text, or `hex:` and pairs of hexadecimal digits.
pub(super) fn magic_bytes(text: &str) -> Result<Vec<u8>, Fault> {
    let bytes = match text.strip_prefix("hex:") {
        None => text.as_bytes().to_vec(),
        Some(hex) => {
            let digits: Option<Vec<u8>> = hex
                .chars()
                .filter(|char| !char.is_ascii_whitespace())
                .map(|char| char.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
                .collect();
            let wrong =
                |why: &str| (format!("`{}` is no hexadecimal: {why}", clip(text)), Some(HEX_EXAMPLE.to_owned()));
            let digits = digits.ok_or_else(|| wrong("it has characters that are no digits"))?;
            if digits.len() % 2 == 1 {
                return Err(wrong("it has an odd number of digits"));
            }
            digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
        }
    };
    check_content(bytes.len())?;
    Ok(bytes)
}

/// Checks the length of what is sought in a file.
pub(super) fn check_content(len: usize) -> Result<(), Fault> {
    match len {
        0 => Err(("it is empty, so every file has it".to_owned(), Some("leave it out".to_owned()))),
        1..=MAX_CONTENT_BYTES => Ok(()),
        _ => Err((format!("it is longer than {MAX_CONTENT_BYTES} bytes"), None)),
    }
}
