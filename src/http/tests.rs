//! HTTP/1 on one connection: scripted visitors and targets, in memory or over sockets.

use super::*;
use crate::net::ByteStream;
use crate::net::pipe::testing::Memory;
use crate::wire::http::LOOKED_AT;
use std::collections::VecDeque;
use std::sync::Mutex;
use tokio::io::duplex;

/// Sends every request to the next of some prepared streams, or to the last one while that can be kept.
#[derive(Debug)]
struct Prepared(Mutex<VecDeque<BoxStream>>);

impl Router for Prepared {
    type Choice = ();

    fn choose(&self, _: &Asked<'_>) -> Result<(), Failure> {
        Ok(())
    }

    async fn open(&self, (): &mut (), _: &Asked<'_>, idle: &mut Idle) -> Result<Upstream, Failure> {
        if let Some(kept) = idle.take("target").await {
            return Ok(kept);
        }
        let stream = self.0.lock().unwrap().pop_front().ok_or(Failure::NoConnector)?;
        Ok(Upstream::new(stream, "target".to_owned(), Route::default(), None))
    }

    fn report(&self, (): &mut (), _: Result<(), &Failure>) {}

    fn request_fields(&self, _: &Asked<'_>, _: &Route) -> Vec<(&'static str, String)> {
        Vec::new()
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
    let context = Context { service: "test", client, settings: &settings, pipe: &pipe, stop: &stop };
    serve(visitor, Bytes::new(), &router, &context).await;
}

/// Heads of visitor and target that come byte by byte cost no more than whole ones.
#[tokio::test]
async fn heads_that_drip_in_are_searched_once() {
    let long = "x".repeat(20_000);
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {long}\r\n\r\n");
    let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: {long}\r\n\r\n");
    // One byte fits into each.
    let (mut visitor, near) = duplex(1);
    let (far, mut target) = duplex(1);
    let before = LOOKED_AT.get();
    let serving =
        serve_visitor(boxed(Memory::new(near, true)), [boxed(Memory::new(far, true))], Settings::default());
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
    let (looked_at, lines) = (LOOKED_AT.get() - before, 8);
    assert!(looked_at <= request.len() + reply.len() + lines, "{looked_at} bytes looked at");
}
