//! Redis's protocol, RESP2, as far as lists are read by it: commands out; statuses, errors and arrays of texts in.

use super::Malformed;
use bytes::{Buf, Bytes, BytesMut};

/// Longest line: a status, an error or a length. Without it a server could send one that never ends.
const MAX_LINE: usize = 1024;

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`.
    Status(Bytes),
    /// `-ERR why`, without the dash.
    Error(Bytes),
    /// An array of texts.
    List(Vec<Bytes>),
}

/// Appends a command.
pub fn put_command(to: &mut BytesMut, words: &[&[u8]]) {
    to.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        to.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        to.extend_from_slice(word);
        to.extend_from_slice(b"\r\n");
    }
}

/// Takes replies off the front of a buffer that grows at its end.
#[derive(Debug)]
pub struct Reader {
    /// The array that is being read, and how many of its texts are missing.
    list: Option<(Vec<Bytes>, usize)>,
    /// What all arrays together may still take up, in memory.
    left: usize,
}

impl Reader {
    /// `max`: bytes that all arrays together may take up.
    pub fn new(max: usize) -> Self {
        Self { list: None, left: max }
    }

    /// The next reply, or `None` while it is incomplete.
    pub fn reply(&mut self, buf: &mut BytesMut) -> Result<Option<Reply>, Malformed> {
        loop {
            if let Some((texts, 0)) = &mut self.list {
                let reply = Reply::List(std::mem::take(texts));
                self.list = None;
                return Ok(Some(reply));
            }
            if let Some((texts, missing)) = &mut self.list {
                let Some(text) = text(buf, &mut self.left)? else { return Ok(None) };
                texts.push(text);
                *missing -= 1;
                continue;
            }
            let Some(line) = line(buf)? else { return Ok(None) };
            let line = take(buf, line);
            match line.first() {
                Some(b'+') => return Ok(Some(Reply::Status(line.slice(1..)))),
                Some(b'-') => return Ok(Some(Reply::Error(line.slice(1..)))),
                Some(b'*') => {
                    let count = number(&line[1..])?;
                    // Each of them takes up that much, whatever it says.
                    if count > self.left / size_of::<Bytes>() {
                        return Err(TOO_LARGE);
                    }
                    self.list = Some((Vec::new(), count));
                }
                _ => return Err(Malformed("no reply of Redis")),
            }
        }
    }
}

const TOO_LARGE: Malformed = Malformed("list of Redis that is too large");

/// A text of an array, or `None` while it is incomplete.
fn text(buf: &mut BytesMut, left: &mut usize) -> Result<Option<Bytes>, Malformed> {
    let Some(end) = line(buf)? else { return Ok(None) };
    let Some(digits) = buf[..end].strip_prefix(b"$") else {
        return Err(Malformed("list of Redis with something else than texts"));
    };
    let len = number(digits)?;
    let rest =
        left.checked_sub(size_of::<Bytes>()).and_then(|left| left.checked_sub(len)).ok_or(TOO_LARGE)?;
    let head = end + 2;
    if buf.len() < head + len + 2 {
        return Ok(None);
    }
    if buf[head + len..head + len + 2] != *b"\r\n" {
        return Err(Malformed("text of Redis that is longer than it says"));
    }
    *left = rest;
    buf.advance(head);
    Ok(Some(take(buf, len)))
}

/// The length of the first line, without its end.
fn line(buf: &BytesMut) -> Result<Option<usize>, Malformed> {
    let window = &buf[..buf.len().min(MAX_LINE)];
    match memchr::memchr(b'\r', window) {
        Some(at) => match buf.get(at + 1) {
            Some(b'\n') => Ok(Some(at)),
            Some(_) => Err(Malformed("line of Redis that ends with CR only")),
            None => Ok(None),
        },
        None if buf.len() >= MAX_LINE => Err(Malformed("line of Redis that does not end")),
        None => Ok(None),
    }
}

/// Takes so many bytes and the line end behind them.
fn take(buf: &mut BytesMut, len: usize) -> Bytes {
    let taken = buf.split_to(len).freeze();
    buf.advance(2);
    taken
}

fn number(digits: &[u8]) -> Result<usize, Malformed> {
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(Malformed("length of Redis that is none"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pieces: impl Iterator<Item = Bytes>, max: usize) -> Result<Vec<Reply>, Malformed> {
        let (mut reader, mut buf, mut replies) = (Reader::new(max), BytesMut::new(), Vec::new());
        for piece in pieces {
            buf.extend_from_slice(&piece);
            while let Some(reply) = reader.reply(&mut buf)? {
                replies.push(reply);
            }
        }
        Ok(replies)
    }

    fn whole(wire: &'static [u8], max: usize) -> Result<Vec<Reply>, Malformed> {
        read(std::iter::once(Bytes::from_static(wire)), max)
    }

    #[test]
    fn commands_are_arrays_of_texts() {
        let mut wire = BytesMut::new();
        put_command(&mut wire, &[b"HGETALL", b"a key"]);
        assert_eq!(wire, &b"*2\r\n$7\r\nHGETALL\r\n$5\r\na key\r\n"[..]);
    }

    #[test]
    fn every_kind_of_reply_comes_out_however_it_is_cut() {
        let wire = b"+OK\r\n*3\r\n$1\r\na\r\n$0\r\n\r\n$4\r\n\r\nb\r\r\n-WRONGTYPE no\r\n*0\r\n";
        let texts = [&b"a"[..], b"", b"\r\nb\r"].map(Bytes::from_static).to_vec();
        let expected = vec![
            Reply::Status(Bytes::from_static(b"OK")),
            Reply::List(texts),
            Reply::Error(Bytes::from_static(b"WRONGTYPE no")),
            Reply::List(Vec::new()),
        ];
        for cut in 1..=wire.len() {
            let replies = read(wire.chunks(cut).map(Bytes::from_static), 1 << 10);
            assert_eq!(replies.as_ref(), Ok(&expected), "{cut}");
        }
    }

    #[test]
    fn what_is_no_reply_is_named() {
        let error = |wire: &'static [u8]| whole(wire, 1 << 10).unwrap_err().0;
        assert_eq!(error(b"HTTP/1.1 400 Bad Request\r\n"), "no reply of Redis");
        assert_eq!(error(b"*1\r\n:1\r\n"), "list of Redis with something else than texts");
        assert_eq!(error(b"*1\r\n$-1\r\n"), "length of Redis that is none");
        assert_eq!(error(b"*1\r\n$1\r\nabc"), "text of Redis that is longer than it says");
        assert_eq!(error(b"*99999999\r\n"), TOO_LARGE.0);
        assert_eq!(error(b"*1\r\n$99999999999999999999\r\n"), "length of Redis that is none");
        assert_eq!(error(b"+O\rK"), "line of Redis that ends with CR only");
        assert_eq!(error(&[b'+'; 2000]), "line of Redis that does not end");
    }

    /// Both what texts hold and what each costs beside that.
    #[test]
    fn lists_have_a_bound() {
        let each = size_of::<Bytes>();
        assert!(whole(b"*2\r\n$3\r\nabc\r\n$0\r\n\r\n", 2 * each + 3).is_ok());
        assert_eq!(whole(b"*2\r\n$4\r\nabcd\r\n$0\r\n\r\n", 2 * each + 3), Err(TOO_LARGE));
        assert_eq!(whole(b"*3\r\n", 2 * each + 3), Err(TOO_LARGE));
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_or_taken(wire in prop::collection::vec(prop::sample::select(&b"*$+-019\r\na"[..]), 0..100)) {
            let all = read(std::iter::once(Bytes::from(wire.clone())), 1 << 10);
            let one_by_one = read(wire.chunks(1).map(Bytes::copy_from_slice), 1 << 10);
            prop_assert_eq!(all.is_err(), one_by_one.is_err());
            if all.is_ok() {
                prop_assert_eq!(all, one_by_one);
            }
        }
    }
}
