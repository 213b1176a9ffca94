//! HTTP/1 heads and bodies: they come to an end, and say the same whatever pieces they come in.

use bytes::{Buf, Bytes, BytesMut};
use pointsman::wire::http::{Body, Framing, HeadReader, Limits, RequestHead};

/// Requests with their bodies, and a reply to each, as long as there are any.
pub fn http1(data: &[u8]) {
    let limits = Limits::default();
    let mut buf = BytesMut::from(data);
    let mut requests = HeadReader::default();
    while let Ok(Some(head)) = requests.request(&mut buf, &limits) {
        drop(HeadReader::default().reply(&mut BytesMut::from(data), &limits, &head));
        let mut body = Body::new(head.framing());
        while !body.is_done() {
            match body.advance(&buf) {
                Ok(n) if n > 0 => drop(buf.split_to(n)),
                _ => return,
            }
        }
    }
}

/// The first byte chooses the pieces of two other cuts; what follows is read as requests, and as replies to a GET.
pub fn http1_pieces(data: &[u8]) {
    let Some((&seed, data)) = data.split_first() else { return };
    for read in [requests, replies] {
        let whole = read(data, &mut || usize::MAX);
        let mut random = fastrand::Rng::with_seed(u64::from(seed));
        assert_eq!(read(data, &mut || 1), whole, "byte by byte");
        assert_eq!(read(data, &mut || random.usize(1..100)), whole, "in pieces");
    }
}

/// The messages in a stream of bytes, each with the length of its body, and how it ended: the status of a refusal, or
/// `None` when more was to come.
type Said = (Vec<(Bytes, usize)>, Option<u16>);

fn requests(data: &[u8], piece: &mut dyn FnMut() -> usize) -> Said {
    let limits = Limits::default();
    let mut reader = HeadReader::default();
    messages(data, piece, |buf| {
        let head = reader.request(buf, &limits).map_err(|refused| refused.status)?;
        Ok(head.map(|head| (head.raw().clone(), head.framing())))
    })
}

fn replies(data: &[u8], piece: &mut dyn FnMut() -> usize) -> Said {
    let limits = Limits::default();
    let mut get = BytesMut::from("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let get: RequestHead =
        HeadReader::default().request(&mut get, &limits).ok().flatten().expect("a request");
    let mut reader = HeadReader::default();
    messages(data, piece, |buf| {
        let head = reader.reply(buf, &limits, &get).map_err(|refused| refused.status)?;
        Ok(head.map(|head| (head.raw().clone(), head.framing())))
    })
}

fn messages(
    mut data: &[u8],
    piece: &mut dyn FnMut() -> usize,
    mut head: impl FnMut(&mut BytesMut) -> Result<Option<(Bytes, Framing)>, u16>,
) -> Said {
    let mut said = Vec::new();
    let mut buf = BytesMut::new();
    let mut body: Option<(Bytes, Body, usize)> = None;
    loop {
        if let Some((raw, mut following, mut len)) = body.take() {
            match following.advance(&buf) {
                Ok(n) => {
                    buf.advance(n);
                    len += n;
                }
                Err(refused) => return (said, Some(refused.status)),
            }
            if following.is_done() {
                said.push((raw, len));
                continue;
            }
            body = Some((raw, following, len));
        } else {
            match head(&mut buf) {
                Ok(Some((raw, framing))) => {
                    body = Some((raw, Body::new(framing), 0));
                    continue;
                }
                Ok(None) => {}
                Err(status) => return (said, Some(status)),
            }
        }
        if data.is_empty() {
            return (said, None);
        }
        let n = piece().min(data.len());
        buf.extend_from_slice(&data[..n]);
        data.advance(n);
    }
}
