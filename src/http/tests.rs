//! HTTP/1 on one connection: scripted visitors and targets, in memory or over sockets.

use super::*;
use crate::net::buffer::free_blocks;
use crate::net::pipe::testing::{HalfClosing, pattern, tcp_pair};
use crate::net::{ByteStream, memory};
use crate::wire::http::LOOKED_AT;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Mutex;
use tokio::io::AsyncRead;
use tokio::net::TcpStream;

/// Sends every request to the next of some prepared streams, or to the last one while that can be kept.
#[derive(Debug)]
struct Prepared(Mutex<VecDeque<BoxStream>>);

fn key() -> Key {
    Key { place: Place::Node(None), target: HostPort::parse("target", 80).unwrap(), visitor: None }
}

impl Router for Prepared {
    type Choice = ();

    async fn choose(&self, _: &Asked<'_>) -> Result<(), Failure> {
        Ok(())
    }

    async fn open<P: Pool>(&self, (): &mut (), _: &Asked<'_>, pool: &mut P) -> Result<Way<P::Kept>, Failure> {
        if let Some(kept) = pool.take(&key()).await {
            return Ok(Way::Kept(kept));
        }
        let stream = self.0.lock().unwrap().pop_front();
        let stream = stream.ok_or_else(|| Failure::NoConnector("none left".to_owned()))?;
        let (key, route) = (key(), Route::default());
        Ok(Way::Fresh(Fresh { stream, key, route, silence: None, between: None }))
    }

    fn report(&self, (): &mut (), _: Result<u16, &Failure>) {}

    fn route(&self, _: &Self::Choice) -> Route {
        Route::default()
    }

    fn changes(&self, (): &(), _: &Asked<'_>, _: &Route) -> Changes<'_> {
        Changes::default()
    }
}

fn boxed(stream: impl ByteStream + 'static) -> BoxStream {
    Box::new(stream)
}

/// Serves one visitor, whose requests go to `targets` in turn.
async fn serve_visitor(visitor: BoxStream, targets: impl IntoIterator<Item = BoxStream>, settings: Settings) {
    let router = Prepared(Mutex::new(targets.into_iter().collect()));
    let pipe = pipe::Limits { half_close_timeout: Duration::from_secs(300), idle_timeout: None };
    let stop = CancellationToken::new();
    let client = SocketAddr::from(([127, 0, 0, 1], 1));
    let port = Port { service: "test".to_owned(), settings, shared: None, pipe, stop };
    serve(visitor, Bytes::new(), router, Context { port: &port, client, secure: false }).await;
}

/// Heads of visitor and target that come byte by byte cost no more than whole ones.
#[tokio::test]
async fn heads_that_drip_in_are_searched_once() {
    let long = "x".repeat(20_000);
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {long}\r\n\r\n");
    let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: {long}\r\n\r\n");
    // One byte fits into each.
    let (mut visitor, near) = memory::pair(1);
    let (far, mut target) = memory::pair(1);
    let before = LOOKED_AT.get();
    let serving = serve_visitor(boxed(HalfClosing(near)), [boxed(HalfClosing(far))], Settings::default());
    let visiting = async {
        visitor.write_all(request.as_bytes()).await.unwrap();
        let mut got = String::new();
        visitor.read_to_string(&mut got).await.unwrap();
        got
    };
    let answering = async {
        let mut got = vec![0; request.len()];
        target.read_exact(&mut got).await.unwrap();
        target.write_all(format!("{reply}ok").as_bytes()).await.unwrap();
        got
    };
    let ((), got, asked) = tokio::join!(serving, visiting, answering);
    assert!(asked == request.as_bytes() && got == format!("{reply}ok"));
    // A CR is looked at again whenever its task runs before the LF is there.
    let (looked_at, lines) = (LOOKED_AT.get() - before, 8);
    assert!(looked_at <= request.len() + reply.len() + 8 * lines, "{looked_at} bytes looked at");
}

/// A visitor, as many targets, and the task that serves the one from the others, over sockets.
async fn over_sockets(
    targets: usize,
    settings: Settings,
) -> (TcpStream, Vec<TcpStream>, tokio::task::JoinHandle<()>) {
    let (visitor, near) = tcp_pair().await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..targets {
        let (far, target) = tcp_pair().await;
        ours.push(boxed(far));
        theirs.push(target);
    }
    (visitor, theirs, tokio::spawn(serve_visitor(boxed(near), ours, settings)))
}

/// Reads a head, nothing behind it.
async fn read_head(from: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(from.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Less than any time-out of the settings.
const PATIENCE: Duration = Duration::from_secs(10);

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// How a target breaks off behind a head and a piece of the body, and whether that must reach the visitor as a reset.
#[tokio::test]
async fn a_reply_that_breaks_does_not_end_in_order() {
    for (fields, body, more, reset, expected) in [
        ("Content-Length: 10\r\n", "half", "", true, true),
        ("Content-Length: 10\r\n", "half", "", false, true),
        ("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n", "", false, true),
        ("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n", "no chunk", false, true),
        ("", "half", "", true, true),
        ("", "all of it", "", false, false),
        ("Content-Length: 4\r\nConnection: close\r\n", "full", "", true, false),
    ] {
        let (mut visitor, mut targets, task) = over_sockets(1, Settings::default()).await;
        let mut target = targets.remove(0);
        visitor.write_all(GET).await.unwrap();
        read_head(&mut target).await;
        let reply = format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
        target.write_all(reply.as_bytes()).await.unwrap();
        read_head(&mut visitor).await;
        target.write_all(more.as_bytes()).await.unwrap();
        if reset {
            target.set_zero_linger().unwrap();
        }
        drop(target);
        let mut got = String::new();
        let end = visitor.read_to_string(&mut got).await.map_err(|e| e.kind());
        let wanted = if expected { Err(ErrorKind::ConnectionReset) } else { Ok(body.len()) };
        assert_eq!(end, wanted, "{reply:?} {reset}");
        drop(visitor);
        task.await.unwrap();
    }
}

/// However long the target thinks, and the rest of its reply takes, what waits for it holds no block.
#[tokio::test]
async fn an_exchange_under_way_holds_no_block() {
    let (mut visitor, mut targets, _task) = over_sockets(1, Settings::default()).await;
    visitor.write_all(GET).await.unwrap();
    read_head(&mut targets[0]).await;
    assert_eq!(free_blocks(), 1, "the one that the request was read into");
    targets[0].write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await.unwrap();
    read_head(&mut visitor).await;
    visitor.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!(free_blocks(), 1, "the same, for the reply");
}

/// What every visitor holds between two requests. A future that holds its arguments twice shows here.
#[test]
fn a_connection_that_waits_is_small() {
    let (settings, stop) = (Settings::default(), CancellationToken::new());
    let pipe = pipe::Limits { half_close_timeout: Duration::ZERO, idle_timeout: None };
    let client = SocketAddr::from(([127, 0, 0, 1], 1));
    let port = Port { service: "test".to_owned(), settings, shared: None, pipe, stop };
    let context = Context { port: &port, client, secure: false };
    let router = Prepared(Mutex::default());
    let serving = serve(boxed(memory::pair(1).0), Bytes::new(), router, context);
    assert!(size_of_val(&serving) <= 400, "{} bytes", size_of_val(&serving));
}

/// Of a reply that is malformed from the start nothing is passed on.
#[tokio::test]
async fn a_reply_that_is_malformed_before_it_has_begun_is_a_502() {
    let (mut visitor, mut targets, _task) = over_sockets(1, Settings::default()).await;
    visitor.write_all(GET).await.unwrap();
    read_head(&mut targets[0]).await;
    let reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n";
    targets[0].write_all(reply).await.unwrap();
    assert!(read_head(&mut visitor).await.starts_with("HTTP/1.1 502 "));
    // Not of what is left of the bad one.
    assert_eq!(targets[0].read(&mut [0]).await.unwrap(), 0);
}

/// The write that fails hides the reset from whoever reads.
#[tokio::test]
async fn a_target_that_resets_under_a_request_is_no_end_of_its_reply() {
    let (mut visitor, mut targets, _task) = over_sockets(1, Settings::default()).await;
    let mut target = targets.remove(0);
    visitor.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await.unwrap();
    read_head(&mut target).await;
    target.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf").await.unwrap();
    read_head(&mut visitor).await;
    visitor.read_exact(&mut [0; 4]).await.unwrap();
    target.set_zero_linger().unwrap();
    drop(target);
    let _ = visitor.write_all(&pattern(500_000)).await;
    assert_eq!(visitor.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// Who stops in the middle of a request is told so, and the target is not blamed for being silent.
#[tokio::test(start_paused = true)]
async fn whose_fault_a_stall_is_decides_the_status() {
    let settings = Settings { stall_timeout: Duration::from_secs(100), ..Settings::default() };
    let long = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n";
    for (request, body, status, after) in [
        (format!("{long}\r\n"), "half", 408, 100),
        (format!("{long}Expect: 100-continue\r\n\r\n"), "", 504, 60),
        (format!("{long}\r\n"), "0123456789", 504, 60),
    ] {
        let (mut visitor, near) = memory::pair(1 << 16);
        let (far, mut target) = memory::pair(1 << 16);
        let began = Instant::now();
        let serving = serve_visitor(boxed(HalfClosing(near)), [boxed(HalfClosing(far))], settings.clone());
        let visiting = async {
            visitor.write_all(format!("{request}{body}").as_bytes()).await.unwrap();
            let head = read_head(&mut visitor).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {head}");
            assert_eq!(began.elapsed().as_secs(), after, "{request:?}");
            drop(visitor);
        };
        tokio::join!(serving, visiting);
        let mut sent = String::new();
        target.read_to_string(&mut sent).await.unwrap();
        assert_eq!(sent, format!("{request}{body}"));
    }
}

/// A visitor that reads no interim replies does not hold the connection for ever.
#[tokio::test(start_paused = true)]
async fn interim_replies_that_nobody_reads_are_given_up() {
    let (mut visitor, near) = memory::pair(64);
    let (far, mut target) = memory::pair(1 << 16);
    let serving = serve_visitor(boxed(HalfClosing(near)), [boxed(HalfClosing(far))], Settings::default());
    let playing = async {
        visitor.write_all(GET).await.unwrap();
        read_head(&mut target).await;
        target.write_all(&b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(20)).await.unwrap();
    };
    let (served, ()) = tokio::join!(timeout(Duration::from_secs(61), serving), playing);
    served.unwrap();
}

/// A target that answers before it has read everything, and means to go on, gets the rest; the next request follows.
#[tokio::test]
async fn an_early_answer_does_not_cut_the_request() {
    let (mut visitor, mut targets, task) = over_sockets(1, Settings::default()).await;
    let mut target = targets.remove(0);
    let body = pattern(300_000);
    visitor.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n").await.unwrap();
    read_head(&mut target).await;
    target.write_all(OK).await.unwrap();
    let mut got = vec![0; OK.len()];
    visitor.read_exact(&mut got).await.unwrap();
    let (mut from_visitor, mut to_visitor) = visitor.split();
    let mut received = vec![0; body.len()];
    let (sent, read) = tokio::join!(
        async {
            to_visitor.write_all(&body).await?;
            to_visitor.write_all(GET).await
        },
        target.read_exact(&mut received)
    );
    sent.unwrap();
    read.unwrap();
    assert!(received == body);
    read_head(&mut target).await;
    target.write_all(OK).await.unwrap();
    from_visitor.read_exact(&mut got).await.unwrap();
    assert_eq!(got, OK);
    drop((visitor, target));
    task.await.unwrap();
}

/// A target that goes away in the middle of a request: the next one gets all of it where that may be and is kept.
#[tokio::test]
async fn a_body_is_sent_again_to_the_next_target() {
    for (method, size, again) in [("PUT", 60_000, true), ("PUT", 100_000, false), ("POST", 60_000, false)] {
        let (mut visitor, mut targets, task) = over_sockets(2, Settings::default()).await;
        let (head, body) = Framed::Length(size).message(&format!("{method} / HTTP/1.1\r\nHost: a\r\n"));
        let before = size - 10_000;
        visitor.write_all(&[head.as_bytes(), &body[..before]].concat()).await.unwrap();
        let mut first = targets.remove(0);
        read_head(&mut first).await;
        first.read_exact(&mut vec![0; before]).await.unwrap();
        drop(first);
        let second = &mut targets[0];
        if again {
            assert_eq!(read_head(second).await, head);
            visitor.write_all(&[&body[before..], GET].concat()).await.unwrap();
            let mut got = vec![0; size];
            second.read_exact(&mut got).await.unwrap();
            assert!(got == body);
            second.write_all(OK).await.unwrap();
            assert_eq!(read_head(second).await.as_bytes(), GET);
            second.write_all(OK).await.unwrap();
            let mut got = vec![0; 2 * OK.len()];
            visitor.read_exact(&mut got).await.unwrap();
            assert_eq!(got, OK.repeat(2));
        } else {
            assert!(read_head(&mut visitor).await.starts_with("HTTP/1.1 503 "), "{method} {size}");
        }
        drop((visitor, targets));
        task.await.unwrap();
    }
}

/// A target that closed a kept connection costs a request nothing, whatever the method.
#[tokio::test]
async fn a_kept_upstream_that_has_ended_is_not_used() {
    let (mut visitor, mut targets, task) = over_sockets(2, Settings::default()).await;
    for mut target in targets.drain(..) {
        visitor.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await.unwrap();
        read_head(&mut target).await;
        target.read_exact(&mut [0; 3]).await.unwrap();
        target.write_all(OK).await.unwrap();
        let mut got = vec![0; OK.len()];
        visitor.read_exact(&mut got).await.unwrap();
        assert_eq!(got, OK);
    }
    drop(visitor);
    task.await.unwrap();
}

/// An offer of h2c is not passed on: what came behind a 101 to it could be routed by nobody.
#[tokio::test]
async fn offers_of_h2c_are_kept_back() {
    let (mut visitor, mut targets, task) = over_sockets(1, Settings::default()).await;
    let offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    visitor.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\n{offer}\r\n").as_bytes()).await.unwrap();
    let head = read_head(&mut targets[0]).await;
    assert_eq!(head, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n");
    targets[0].write_all(OK).await.unwrap();
    visitor.read_exact(&mut vec![0; OK.len()]).await.unwrap();
    drop((visitor, targets));
    task.await.unwrap();
}

/// Whether what comes behind is a request or another protocol's data, only the reply says.
#[tokio::test]
async fn bytes_that_do_not_wait_for_the_reply_to_an_upgrade_are_refused() {
    const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    for reply in [SWITCH, OK] {
        let (mut visitor, mut targets, task) = over_sockets(1, Settings::default()).await;
        visitor.write_all(UPGRADE).await.unwrap();
        read_head(&mut targets[0]).await;
        visitor.write_all(GET).await.unwrap();
        targets[0].write_all(reply).await.unwrap();
        let mut got = String::new();
        timeout(PATIENCE, visitor.read_to_string(&mut got)).await.unwrap().unwrap();
        assert!(got.starts_with("HTTP/1.1 400 "), "{got}");
        let mut more = Vec::new();
        targets[0].read_to_end(&mut more).await.unwrap();
        assert!(more.is_empty(), "{}", more.escape_ascii());
        drop(visitor);
        task.await.unwrap();
    }
    // An end behind the head is no byte, and those behind the reply pass.
    let (mut visitor, mut targets, task) = over_sockets(1, Settings::default()).await;
    visitor.write_all(UPGRADE).await.unwrap();
    read_head(&mut targets[0]).await;
    targets[0].write_all(SWITCH).await.unwrap();
    assert_eq!(read_head(&mut visitor).await.as_bytes(), SWITCH);
    visitor.write_all(b"data").await.unwrap();
    visitor.shutdown().await.unwrap();
    let mut got = String::new();
    targets[0].read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "data");
    drop((visitor, targets));
    task.await.unwrap();
}

/// A visitor whose connection is reset frees the target; one that ends its side only still gets its answer.
#[tokio::test]
async fn a_visitor_that_is_gone_is_not_waited_for() {
    let (mut visitor, mut targets, task) = over_sockets(1, Settings::default()).await;
    visitor.write_all(GET).await.unwrap();
    read_head(&mut targets[0]).await;
    visitor.set_zero_linger().unwrap();
    drop(visitor);
    assert_eq!(timeout(PATIENCE, targets[0].read(&mut [0])).await.unwrap().unwrap(), 0);
    task.await.unwrap();

    let (mut visitor, mut targets, task) = over_sockets(1, Settings::default()).await;
    visitor.write_all(GET).await.unwrap();
    visitor.shutdown().await.unwrap();
    read_head(&mut targets[0]).await;
    targets[0].write_all(OK).await.unwrap();
    let mut got = Vec::new();
    visitor.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, OK);
    task.await.unwrap();
}

/// Where there is no half-close an end says as much as a reset.
#[tokio::test(start_paused = true)]
async fn a_visitor_whose_stream_has_ended_is_not_waited_for() {
    let (mut visitor, near) = memory::pair(1 << 16);
    let (far, mut target) = memory::pair(1 << 16);
    let serving = serve_visitor(boxed(near), [boxed(HalfClosing(far))], Settings::default());
    let playing = async {
        visitor.write_all(GET).await.unwrap();
        read_head(&mut target).await;
        drop(visitor);
        assert_eq!(timeout(PATIENCE, target.read(&mut [0])).await.unwrap().unwrap(), 0);
    };
    tokio::join!(serving, playing);
}

/// A body and how it is framed: one length, or chunks.
#[derive(Debug, Clone)]
enum Framed {
    Length(usize),
    Chunks(Vec<usize>),
}

fn framed() -> impl Strategy<Value = Framed> {
    let size = || prop_oneof![0..100usize, 10_000..70_000usize, 100_000..1_000_000usize];
    prop_oneof![
        size().prop_map(Framed::Length),
        prop::collection::vec(size().prop_filter("ends the body", |n| *n > 0), 0..4).prop_map(Framed::Chunks)
    ]
}

impl Framed {
    /// Head and body, behind `start`.
    fn message(&self, start: &str) -> (String, Vec<u8>) {
        match self {
            Self::Length(n) => (format!("{start}Content-Length: {n}\r\n\r\n"), pattern(*n)),
            Self::Chunks(sizes) => {
                let mut body = Vec::new();
                for size in sizes {
                    body.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                    body.extend_from_slice(&pattern(*size));
                    body.extend_from_slice(b"\r\n");
                }
                body.extend_from_slice(b"0\r\n\r\n");
                (format!("{start}Transfer-Encoding: chunked\r\n\r\n"), body)
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// However bodies are framed and pieces fall, pipelined requests and their replies arrive byte for byte, and none goes
    /// astray behind a body that was spliced.
    #[test]
    fn every_message_arrives_unchanged(exchanges in prop::collection::vec((framed(), framed()), 1..5), piece in 1..200_000usize) {
        let requests: Vec<_> = exchanges.iter().map(|(r, _)| r.message("PUT / HTTP/1.1\r\nHost: a\r\n")).collect();
        let replies: Vec<_> = exchanges.iter().map(|(_, r)| r.message("HTTP/1.1 200 OK\r\n")).collect();
        let join = |messages: &[(String, Vec<u8>)]| {
            messages.iter().flat_map(|(head, body)| [head.as_bytes(), body].concat()).collect::<Vec<u8>>()
        };
        let (all_requests, all_replies) = (join(&requests), join(&replies));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (visitor, mut targets, task) = over_sockets(1, Settings::default()).await;
            let (mut from_visitor, mut to_visitor) = visitor.into_split();
            let (mut from_target, mut to_target) = targets.remove(0).into_split();
            let sending = async {
                for part in all_requests.chunks(piece) {
                    to_visitor.write_all(part).await.unwrap();
                }
            };
            let answering = async {
                for ((head, body), (reply, reply_body)) in requests.iter().zip(&replies) {
                    assert_eq!(&read_head(&mut from_target).await, head);
                    let mut got = vec![0; body.len()];
                    let (read, ()) = tokio::join!(from_target.read_exact(&mut got), async {
                        to_target.write_all(reply.as_bytes()).await.unwrap();
                        for part in reply_body.chunks(piece) {
                            to_target.write_all(part).await.unwrap();
                        }
                    });
                    read.unwrap();
                    assert!(got == *body, "request body");
                }
            };
            let mut got = vec![0; all_replies.len()];
            let ((), (), read) = tokio::join!(sending, answering, from_visitor.read_exact(&mut got));
            read.unwrap();
            assert!(got == all_replies, "replies");
            drop(to_visitor);
            assert_eq!(from_visitor.read(&mut [0]).await.unwrap(), 0, "bytes behind the last reply");
            task.await.unwrap();
        });
    }
}
