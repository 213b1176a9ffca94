//! HTTP/1 framing against another reader of the same bytes: whatever we let pass, `hyper` must read as we did. It may
//! take more than we do; nothing that we take may it read in another way.

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::service::service_fn;
use hyper::{Method, Response, Uri};
use hyper_util::rt::TokioIo;
use pointsman::wire::http::{Body, Framing, HeadReader, Limits, Rejected, ReplyHead, RequestHead};
use proptest::prelude::*;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// One message as a reader understood it; `body` is `None` where it does not end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    start: String,
    body: Option<Vec<u8>>,
}

/// How our reading of a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All bytes belong to messages that are complete.
    Clean,
    /// More bytes are needed.
    Incomplete,
    /// What follows is not read as requests: closed, or a byte pipe.
    Last,
    Refused(Rejected),
}

/// Reads a connection's requests as the proxy does, the bytes coming in `pieces`.
fn our_requests<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Seen>, End) {
    let mut connection = Connection::default();
    for piece in pieces {
        connection.buf.extend_from_slice(piece);
        if let Err(end) = connection.progress() {
            return (connection.seen, end);
        }
    }
    let clean = connection.buf.is_empty() && connection.open.is_none();
    (connection.seen, if clean { End::Clean } else { End::Incomplete })
}

#[derive(Default)]
struct Connection {
    reader: HeadReader,
    buf: BytesMut,
    open: Option<(RequestHead, Body, Vec<u8>)>,
    seen: Vec<Seen>,
}

impl Connection {
    fn progress(&mut self) -> Result<(), End> {
        loop {
            if self.open.is_none() {
                let Some(head) =
                    self.reader.request(&mut self.buf, &Limits::default()).map_err(End::Refused)?
                else {
                    return Ok(());
                };
                let body = Body::new(head.framing());
                self.open = Some((head, body, Vec::new()));
            }
            let Some((head, body, raw)) = &mut self.open else { return Ok(()) };
            let used = body.advance(&self.buf).map_err(End::Refused)?;
            raw.extend_from_slice(&self.buf.split_to(used));
            if !body.is_done() {
                return Ok(());
            }
            let start = format!("{} {}", head.method(), normal(head.target()));
            self.seen.push(Seen { start, body: Some(decoded(head.framing(), raw)) });
            let last = !head.keep_alive() || head.upgrade().is_some() || head.method() == "CONNECT";
            self.open = None;
            if last {
                return Err(End::Last);
            }
        }
    }
}

/// Whether hyper reads the target of this request line.
fn hyper_takes(start: &str) -> bool {
    start.split_once(' ').is_some_and(|(_, target)| target.parse::<Uri>().is_ok())
}

/// A target as hyper writes it; as it stands where hyper cannot take it.
fn normal(target: &str) -> String {
    target.parse::<Uri>().map_or_else(|_| target.to_owned(), |uri| uri.to_string())
}

/// The data in a body whose raw bytes we found to be complete.
fn decoded(framing: Framing, raw: &[u8]) -> Vec<u8> {
    if framing != Framing::Chunked {
        return raw.to_vec();
    }
    let (mut data, mut rest) = (Vec::new(), raw);
    loop {
        let digits = rest.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let text = std::str::from_utf8(&rest[..digits]).expect("hex digits");
        let size = usize::from_str_radix(text, 16).expect("chunk size");
        let line = rest.iter().position(|b| *b == b'\n').expect("end of the chunk line") + 1;
        if size == 0 {
            return data;
        }
        data.extend_from_slice(&rest[line..line + size]);
        rest = &rest[line + size + 2..];
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("runtime").block_on(work)
}

/// The requests that hyper's server reads from `bytes`.
async fn hyper_requests(bytes: &[u8]) -> Vec<Seen> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (mut ours, theirs) = tokio::io::duplex(1 << 20);
    ours.write_all(bytes).await.expect("room for all");
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let start = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect().await.ok().map(|body| body.to_bytes().to_vec());
            seen.lock().expect("no panic").push(Seen { start, body });
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(theirs), service);
    let client = async {
        ours.shutdown().await.expect("in memory");
        let mut replies = Vec::new();
        ours.read_to_end(&mut replies).await.expect("in memory");
    };
    let _ = tokio::join!(connection, client);
    seen.lock().expect("no panic").clone()
}

fn check_requests(bytes: &[u8]) -> Result<usize, TestCaseError> {
    let (mut ours, mut end) = our_requests([bytes]);
    let mut theirs = block_on(hyper_requests(bytes));
    // hyper refuses targets that are no strict URI (a `"` in the query); we pass them on, as curl and nginx do.
    if let Some(at) = ours.iter().position(|seen| !hyper_takes(&seen.start)) {
        prop_assert!(theirs.len() <= at);
        ours.truncate(at);
        end = End::Last;
    }
    let text = bytes.escape_ascii().to_string();
    prop_assert!(ours.len() <= theirs.len(), "{end:?}\n{text}\nours {ours:?}\nhyper {theirs:?}");
    if matches!(end, End::Clean | End::Incomplete) {
        theirs.retain(|seen| seen.body.is_some());
    } else {
        theirs.truncate(ours.len());
    }
    prop_assert_eq!(&ours, &theirs, "{:?}\n{}", end, text);
    Ok(ours.len())
}

/// Our reading of the replies to one request: the final one, if all of it is accepted.
fn our_reply(request: &RequestHead, pieces: &[&[u8]]) -> Result<Option<Seen>, Rejected> {
    let (mut reader, mut buf, mut open) = (HeadReader::default(), BytesMut::new(), None);
    let mut raw = Vec::new();
    for piece in pieces {
        buf.extend_from_slice(piece);
        while open.is_none() {
            match reader.reply(&mut buf, &Limits::default(), request)? {
                Some(head) if head.is_interim() => {}
                Some(head) => open = Some((Body::new(head.framing()), head)),
                None => break,
            }
        }
        if let Some((body, _)) = &mut open {
            let used = body.advance(&buf)?;
            raw.extend_from_slice(&buf.split_to(used));
        }
    }
    let Some((mut body, head)) = open else { return Ok(None) };
    let body = body.end().is_ok().then(|| decoded_reply(&head, &raw));
    Ok(Some(Seen { start: head.status().to_string(), body }))
}

fn decoded_reply(head: &ReplyHead, raw: &[u8]) -> Vec<u8> {
    decoded(head.framing(), raw)
}

/// The final reply as hyper's client reads it.
async fn hyper_reply(method: Method, bytes: &[u8]) -> Option<Seen> {
    let (mut ours, theirs) = tokio::io::duplex(1 << 20);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(theirs)).await.expect("no bytes needed");
    let request = hyper::Request::builder()
        .method(method)
        .uri("/")
        .header("Host", "a")
        .body(Empty::<Bytes>::new())
        .expect("plain request");
    let server = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(ours.read_u8().await.expect("a request comes"));
        }
        ours.write_all(bytes).await.expect("room for all");
        ours.shutdown().await.expect("in memory");
    };
    let client = async {
        let reply = sender.send_request(request).await.ok()?;
        let start = reply.status().as_u16().to_string();
        let body = reply.into_body().collect().await.ok().map(|body| body.to_bytes().to_vec());
        Some(Seen { start, body })
    };
    let ((), seen, _) = tokio::join!(server, client, connection);
    seen
}

fn check_reply(method: &Method, bytes: &[u8]) -> Result<bool, TestCaseError> {
    let ours = our_reply(&plain_request(method), &[bytes]).ok().flatten();
    let Some(ours) = ours else { return Ok(false) };
    let theirs = block_on(hyper_reply(method.clone(), bytes));
    // A cut-off body is an error to hyper at some later time or at once.
    if ours.body.is_none() && theirs.is_none() {
        return Ok(false);
    }
    prop_assert_eq!(Some(&ours), theirs.as_ref(), "{} {}", method, bytes.escape_ascii());
    Ok(ours.body.is_some())
}

fn plain_request(method: &Method) -> RequestHead {
    let text = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
    HeadReader::default()
        .request(&mut BytesMut::from(text.as_str()), &Limits::default())
        .expect("plain request")
        .expect("whole request")
}

fn a_chunked_body() -> impl Strategy<Value = Vec<u8>> {
    let extension = prop_oneof![Just(""), Just(""), Just(";a"), Just(";a=b"), Just(";a=\"b ; c\"")];
    let trailer = prop_oneof![Just(""), Just(""), Just("X: 1\r\n"), Just("Grpc-Status: 0\r\nY:\r\n")];
    let chunk = (prop::collection::vec(any::<u8>(), 1..20), extension, any::<bool>());
    (prop::collection::vec(chunk, 0..4), trailer).prop_map(|(chunks, trailer)| {
        let mut out = Vec::new();
        for (data, extension, upper) in chunks {
            let size = if upper { format!("{:03X}", data.len()) } else { format!("{:x}", data.len()) };
            out.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
            out.extend_from_slice(&data);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
        out
    })
}

/// The framing field and the body.
fn a_body() -> impl Strategy<Value = (String, Vec<u8>)> {
    prop_oneof![
        Just((String::new(), Vec::new())),
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|data| (format!("Content-Length: {}\r\n", data.len()), data)),
        a_chunked_body().prop_map(|data| ("transfer-encoding: Chunked\r\n".to_owned(), data)),
    ]
}

fn some_fields() -> impl Strategy<Value = String> {
    let field = prop::sample::select(vec![
        "X: 1\r\n",
        "X-Long-Name:   a b\t\r\n",
        "Expect: 100-continue\r\n",
        "Connection: keep-alive\r\n",
        "Connection: x, y\r\n",
        "Accept:\r\n",
        "Upgrade: websocket\r\n",
        "TE: trailers\r\n",
    ]);
    prop::collection::vec(field, 0..4).prop_map(|fields| fields.concat())
}

fn a_request() -> impl Strategy<Value = Vec<u8>> {
    let methods = prop::sample::select(vec!["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "x-own"]);
    let targets =
        prop::sample::select(vec!["/", "/a?b=c", "//x", "/%20;p", "http://a.b/x", "http://A.B?q", "/?/"]);
    (methods, targets, some_fields(), a_body()).prop_map(|(method, target, fields, (framing, body))| {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: a.b\r\n{fields}{framing}\r\n");
        [head.into_bytes(), body].concat()
    })
}

fn a_reply() -> impl Strategy<Value = Vec<u8>> {
    let interim = prop::sample::select(vec![
        "",
        "",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 E\r\nLink: x\r\n\r\n",
    ]);
    let status = prop::sample::select(vec!["200 OK", "200", "404 ", "301 Moved Far", "500 \t!"]);
    let version = prop::sample::select(vec!["1.1", "1.1", "1.1", "1.0"]);
    (interim, version, status, some_fields(), a_body()).prop_map(
        |(interim, version, status, fields, (framing, body))| {
            let chunked = framing.starts_with("transfer");
            let version = if chunked { "1.1" } else { version };
            let head = format!("{interim}HTTP/{version} {status}\r\n{fields}{framing}\r\n");
            [head.into_bytes(), body].concat()
        },
    )
}

/// A change to a message: where (as a share of its length), what to put there, how many bytes to drop for it.
type Change = (f64, &'static [u8], usize);

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let odd: Vec<&'static [u8]> = vec![
        b"",
        b"\r",
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"\0",
        b"\x0b",
        b"\xe9",
        b"0",
        b"1",
        b"a",
        b"/",
        b"\"",
        b"\r\n\r\n",
        b"\r\n ",
        b"0\r\n\r\n",
        b"Content-Length: 3\r\n",
        b"\r\nContent-Length: 0",
        b"\r\nContent-Length : 1",
        b"\r\nTransfer-Encoding: chunked",
        b"\r\nTransfer-Encoding: gzip, chunked",
        b"\r\nTransfer-Encoding:\x0bchunked",
        b"\r\nConnection: close",
        b"\r\nHost: b",
        b"\r\nX: 1\r\n\tfolded",
        b"GET /hidden HTTP/1.1\r\nHost: a.b\r\n\r\n",
        b"HTTP/1.0",
        b"HTTP/2.0",
    ];
    prop::collection::vec((0.0..1.0, prop::sample::select(odd), 0usize..3), 1..4)
}

fn changed(mut message: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for (place, text, dropped) in changes {
        // Half of the changes fall on line starts and ends, where most of the ambiguity is.
        let mut at = (message.len() as f64 * place) as usize;
        if at.is_multiple_of(2) {
            at = message[at..].iter().position(|b| *b == b'\r').map_or(at, |cr| at + cr);
        }
        let end = (at + dropped).min(message.len());
        message.splice(at..end, text.iter().copied());
    }
    message
}

/// Cuts `bytes` at the given shares of its length.
fn cut<'a>(bytes: &'a [u8], places: &[f64]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| (bytes.len() as f64 * place) as usize).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn valid_requests_are_read_as_hyper_reads_them(messages in prop::collection::vec(a_request(), 1..4)) {
        prop_assert_eq!(check_requests(&messages.concat())?, messages.len());
    }

    #[test]
    fn changed_requests_are_read_as_hyper_reads_them_or_refused(
        messages in prop::collection::vec(a_request(), 1..4),
        changes in changes(),
    ) {
        check_requests(&changed(messages.concat(), &changes))?;
    }

    #[test]
    fn valid_replies_are_read_as_hyper_reads_them(reply in a_reply(), head in any::<bool>()) {
        let method = if head { Method::HEAD } else { Method::GET };
        prop_assert!(check_reply(&method, &reply)?);
    }

    #[test]
    fn changed_replies_are_read_as_hyper_reads_them_or_refused(
        reply in a_reply(),
        changes in changes(),
        head in any::<bool>(),
    ) {
        let method = if head { Method::HEAD } else { Method::GET };
        check_reply(&method, &changed(reply, &changes))?;
    }

    #[test]
    fn the_pieces_that_bytes_come_in_do_not_matter(
        messages in prop::collection::vec(a_request(), 1..4),
        reply in a_reply(),
        changes in prop_oneof![Just(Vec::new()), changes()],
        places in prop::collection::vec(0.0..1.0, 0..8),
    ) {
        let bytes = changed(messages.concat(), &changes);
        let whole = our_requests([&bytes[..]]);
        prop_assert_eq!(&our_requests(cut(&bytes, &places)), &whole);
        prop_assert_eq!(&our_requests(bytes.chunks(1)), &whole);

        let bytes = changed(reply, &changes);
        let request = plain_request(&Method::GET);
        let whole = our_reply(&request, &[&bytes]);
        prop_assert_eq!(&our_reply(&request, &cut(&bytes, &places)), &whole);
        prop_assert_eq!(&our_reply(&request, &bytes.chunks(1).collect::<Vec<_>>()), &whole);
    }

    #[test]
    fn arbitrary_bytes_end_in_a_verdict(bytes in prop::collection::vec(any::<u8>(), 0..600), line in any::<bool>()) {
        let head: &[u8] = if line { b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" } else { b"" };
        our_requests([head, &bytes]);
        let head: &[u8] = if line { b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" } else { b"" };
        let _ = our_reply(&plain_request(&Method::GET), &[head, &bytes]);
        for framing in [Framing::None, Framing::Length(300), Framing::Chunked, Framing::Close] {
            let mut body = Body::new(framing);
            if let Ok(used) = body.advance(&bytes) {
                prop_assert!(used <= bytes.len() && (used == bytes.len() || body.is_done()));
            }
        }
    }
}
