//! The changes to a head that a configuration asks for: the request's target and whole field lines, nothing else.

use super::{is_token, is_value};
use bytes::{Bytes, BytesMut};

/// Rewrites a head as the configuration asks: puts `target` in place of the request's, drops every field named in `remove`,
/// then adds `add` at the end.
///
/// Whatever the texts are, the result has the same end and the same framing: Content-Length and Transfer-Encoding are left
/// alone, and bytes that would end a line or could be read in two ways become `?` in a value and `-` in a name or a target.
pub fn edit_head(raw: &Bytes, target: Option<&str>, remove: &[&str], add: &[(&str, &str)]) -> Bytes {
    let Some(fields) = raw.strip_suffix(b"\r\n") else { return raw.clone() };
    if target.is_none() && remove.is_empty() && add.is_empty() {
        return raw.clone();
    }
    let extra: usize = add.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let mut edited = BytesMut::with_capacity(raw.len() + extra + target.map_or(0, str::len));
    for (index, line) in lines(fields).enumerate() {
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        match target {
            Some(target) if index == 0 => request_line(&mut edited, line, target),
            _ if index > 0 && remove.iter().any(|name| drops(name, &line[..colon])) => {}
            _ => edited.extend_from_slice(line),
        }
    }
    for (name, value) in add.iter().filter(|(name, _)| !name.is_empty() && !frames(name.as_bytes())) {
        put(&mut edited, name, is_token, b'-');
        edited.extend_from_slice(b": ");
        put(&mut edited, value, |b| b.is_ascii() && is_value(b), b'?');
        edited.extend_from_slice(b"\r\n");
    }
    edited.extend_from_slice(b"\r\n");
    edited.freeze()
}

/// The lines of a text that ends with one, each with its end.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    memchr::memchr_iter(b'\n', text)
        .scan(0, |start, end| Some(&text[std::mem::replace(start, end + 1)..=end]))
}

/// Adds a text, with `instead` for every byte that is not allowed.
fn put(edited: &mut BytesMut, text: &str, allowed: impl Fn(u8) -> bool, instead: u8) {
    let start = edited.len();
    edited.extend_from_slice(text.as_bytes());
    edited[start..].iter_mut().filter(|b| !allowed(**b)).for_each(|b| *b = instead);
}

/// The line with another target between its two spaces.
fn request_line(edited: &mut BytesMut, line: &[u8], target: &str) {
    let (Some(first), Some(last)) = (memchr::memchr(b' ', line), memchr::memrchr(b' ', line)) else {
        return edited.extend_from_slice(line);
    };
    edited.extend_from_slice(&line[..=first]);
    put(edited, target, |b| b.is_ascii_graphic(), b'-');
    edited.extend_from_slice(&line[last..]);
}

fn drops(name: &str, field: &[u8]) -> bool {
    field.eq_ignore_ascii_case(name.as_bytes()) && !frames(field)
}

fn frames(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"transfer-encoding")
}
