//! HTTP/2 with prior knowledge: gRPC-shaped calls with trailers, routed by `:authority`, through proxy and tunnel.

use crate::support::Program::Ours;
use crate::support::matrix::TUNNEL;
use crate::support::{Proc, connect, eventually, free_port, wait_for_port};
use bytes::Bytes;
use futures_util::future::join_all;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use std::future::poll_fn;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::{TcpListener, TcpStream};

/// A target: what it does is said by the path of the request.
#[derive(Debug, Default)]
struct Target {
    port: u16,
    connections: AtomicUsize,
    /// Streams that were reset with CANCEL while they were held.
    cancelled: AtomicUsize,
}

async fn target(name: &'static str) -> Arc<Target> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = Arc::new(Target { port, ..Target::default() });
    let shared = Arc::clone(&target);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            shared.connections.fetch_add(1, Ordering::Relaxed);
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    if request.uri().path() == "/last" {
                        connection.graceful_shutdown();
                    }
                    tokio::spawn(answer(name, Arc::clone(&shared), request, respond));
                }
            });
        }
    });
    target
}

async fn answer(
    name: &'static str,
    target: Arc<Target>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let path = request.uri().path().to_owned();
    if path == "/refuse" || name == "refusing" {
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut out = respond.send_response(response, false).unwrap();
    match path.as_str() {
        "/reset" => {
            out.send_data(Bytes::from_static(b"half"), false).unwrap();
            // Not before it has arrived.
            drop(request.into_body().data().await);
            out.send_reset(Reason::ENHANCE_YOUR_CALM);
        }
        "/hold" => {
            if poll_fn(|cx| out.poll_reset(cx)).await.is_ok_and(|reason| reason == Reason::CANCEL) {
                target.cancelled.fetch_add(1, Ordering::Relaxed);
            }
        }
        _ => echo(name, request.into_body(), out).await,
    }
}

/// Sends each message back, then trailers that name the server.
async fn echo(name: &'static str, mut body: RecvStream, mut out: SendStream<Bytes>) {
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        // h2 ends connections on which more than a hundred empty frames come that end no stream.
        if !data.is_empty() {
            out.send_data(data, false).unwrap();
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("server", name.parse().unwrap());
    // Whoever asked may have gone away.
    drop(out.send_trailers(trailers));
}

/// A reverse proxy for `h`, whose requests go to these ports.
fn proxy(metadata: &str, ports: &[u16]) -> (Proc, u16) {
    let port = free_port();
    let nodes: Vec<_> =
        ports.iter().map(|port| format!("{{ name: n{port}, addr: '127.0.0.1:{port}', host: h }}")).collect();
    let process = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true{metadata} }} }}
  forwarder: {{ nodes: [{}] }}
",
        nodes.join(", ")
    ));
    wait_for_port(port);
    (process, port)
}

async fn visitor(port: u16) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Begins a request; its body follows.
async fn begin(sender: &SendRequest<Bytes>, path: &str) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
    let mut sender = sender.clone().ready().await.unwrap();
    sender.send_request(Request::post(format!("http://h{path}")).body(()).unwrap(), false).unwrap()
}

/// A whole call; the server that its trailers name.
async fn served_by(sender: &SendRequest<Bytes>, path: &str) -> Result<String, h2::Error> {
    let (response, mut out) = begin(sender, path).await;
    out.send_data(Bytes::from_static(b"message"), true).unwrap();
    let (head, mut body) = response.await?.into_parts();
    let mut got = Vec::new();
    while let Some(data) = body.data().await {
        got.extend_from_slice(&data?);
    }
    assert_eq!((head.status.as_u16(), &got[..]), (200, &b"message"[..]));
    Ok(body.trailers().await?.unwrap()["server"].to_str().unwrap().to_owned())
}

/// Calls on one connection, each to its own authority; returns status, the messages sent back, and the trailers' server.
async fn call(port: u16, authorities: &[&str]) -> Vec<(u16, usize, String)> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut results = Vec::new();
    for authority in authorities {
        sender = sender.ready().await.unwrap();
        let request = Request::post(format!("http://{authority}/echo.Echo/Stream"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, mut out) = sender.send_request(request, false).unwrap();
        let sent = (0..50).try_for_each(|_| out.send_data(Bytes::from(vec![7; 10_000]), false));
        let sent = sent.and_then(|()| out.send_data(Bytes::new(), true));
        let (head, mut body) = response.await.unwrap().into_parts();
        // One that is refused may be answered, and its stream ended, before all of it is on its way.
        assert!(sent.is_ok() || head.status == 502, "{sent:?}");
        let mut len = 0;
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            len += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        let trailers = body.trailers().await.unwrap().unwrap_or_default();
        let server = trailers.get("server").map(|s| s.to_str().unwrap().to_owned()).unwrap_or_default();
        results.push((head.status.as_u16(), len, server));
    }
    results
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_passes_proxy_and_tunnel_with_its_trailers() {
    let (a, b) = (target("a").await.port, target("b").await.port);
    let (proxy, tunnel, visit) = (free_port(), free_port(), free_port());
    let nodes = format!(
        "[{{ addr: '127.0.0.1:{a}', host: a.example }}, {{ addr: '127.0.0.1:{b}', host: b.example }}]"
    );
    let process = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{proxy}
  handler: {{ type: tcp, metadata: {{ sniffing: true }} }}
  forwarder: {{ nodes: {nodes} }}
- addr: 127.0.0.1:{tunnel}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{visit}', tunnel: 'a.example:{TUNNEL},b.example:{TUNNEL}' }} }}
- addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: {nodes} }}
chains:
- name: c
  hops: [{{ nodes: [{{ addr: '127.0.0.1:{tunnel}', connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }} }} }}] }}]
"
    ));
    process.wait_for(&["connected"]);
    wait_for_port(proxy);
    for port in [proxy, visit] {
        let results = call(port, &["a.example", "b.example", "A.example:80", "none.example"]).await;
        let ok = |server: &str| (200, 500_000, server.to_owned());
        assert_eq!(results[..3], [ok("a"), ok("b"), ok("a")]);
        assert_eq!((results[3].0, results[3].2.as_str()), (502, ""));
    }
}

/// One visitor's requests share a connection to their target, two visitors' do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_visitors_streams_share_a_connection() {
    let web = target("web").await;
    let (_proxy, port) = proxy("", &[web.port]);
    let first = visitor(port).await;
    for _ in 0..5 {
        assert_eq!(served_by(&first, "/echo").await.unwrap(), "web");
    }
    let all = join_all((0..50).map(|_| served_by(&first, "/echo"))).await;
    assert!(all.into_iter().all(|server| server.unwrap() == "web"));
    assert_eq!(web.connections.load(Ordering::Relaxed), 1);
    assert_eq!(served_by(&visitor(port).await, "/echo").await.unwrap(), "web");
    assert_eq!(web.connections.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streams_at_once() {
    let web = target("web").await;
    let (_proxy, port) = proxy("", &[web.port]);
    let sender = visitor(port).await;
    // Once its SETTINGS are here.
    assert_eq!(served_by(&sender, "/echo").await.unwrap(), "web");
    let mut calls = Vec::new();
    for _ in 0..200 {
        let (response, out) = begin(&sender, "/echo").await;
        calls.push((response.await.unwrap().into_body(), out));
    }
    for (i, (body, out)) in calls.iter_mut().enumerate() {
        out.send_data(Bytes::from(i.to_string()), true).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), i.to_string());
        assert_eq!(body.trailers().await.unwrap().unwrap()["server"], "web");
    }
    assert_eq!(web.connections.load(Ordering::Relaxed), 1);
}

/// A request that was not looked at goes to the next node, body and all: one that is down, one that refuses streams.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_refuses_another_gets() {
    let (good, refusing) = (target("good").await, target("refusing").await);
    let (process, port) = proxy("", &[free_port(), refusing.port, good.port]);
    for _ in 0..6 {
        assert_eq!(served_by(&visitor(port).await, "/echo").await.unwrap(), "good");
    }
    assert!(refusing.connections.load(Ordering::Relaxed) > 0);
    process.wait_for(&["node failed"]);
    // Nobody takes this one: the visitor is told.
    let (response, mut out) = begin(&visitor(port).await, "/refuse").await;
    out.send_data(Bytes::new(), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 503);
}

/// A target that says goodbye gets no more requests, and none is lost.
#[tokio::test(flavor = "multi_thread")]
async fn goaway_moves_to_a_new_connection() {
    let web = target("web").await;
    let (_proxy, port) = proxy("", &[web.port]);
    let sender = visitor(port).await;
    for round in 1..=10 {
        assert_eq!(served_by(&sender, "/last").await.unwrap(), "web", "{round}");
    }
    assert!((2..=10).contains(&web.connections.load(Ordering::Relaxed)));
}

/// Bodies that stop moving are given up, whether the target or the visitor stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_body_is_reset() {
    let web = target("web").await;
    let (process, port) = proxy(", http.stallTimeout: 300ms", &[web.port]);
    let sender = visitor(port).await;
    let (response, mut out) = begin(&sender, "/hold").await;
    out.send_data(Bytes::new(), true).unwrap();
    let error = response.await.unwrap().into_body().data().await.unwrap().unwrap_err();
    assert!(error.is_reset(), "{error}");
    process.wait_for(&["stalled", "http.stallTimeout"]);
    eventually("the target is told", || (web.cancelled.load(Ordering::Relaxed) == 1).then_some(()));
    // The connection is as good as before.
    assert_eq!(served_by(&sender, "/echo").await.unwrap(), "web");
    assert_eq!(web.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_pass_in_both_directions() {
    let web = target("web").await;
    let (process, port) = proxy("", &[web.port]);
    let sender = visitor(port).await;
    let (response, mut out) = begin(&sender, "/reset").await;
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "half");
    out.send_data(Bytes::from_static(b"got it"), true).unwrap();
    assert_eq!(body.data().await.unwrap().unwrap_err().reason(), Some(Reason::ENHANCE_YOUR_CALM));
    process.wait_for(&["upstream failed in mid-reply"]);

    // Of a visitor that has sent all, and of one that is still sending.
    for (done, cancelled) in [(true, 1), (false, 2)] {
        let (response, mut out) = begin(&sender, "/hold").await;
        out.send_data(Bytes::new(), done).unwrap();
        let body = response.await.unwrap().into_body();
        out.send_reset(Reason::CANCEL);
        drop(body);
        eventually("the target is told", || {
            (web.cancelled.load(Ordering::Relaxed) == cancelled).then_some(())
        });
    }
    process.wait_for(&["upstream failed in mid-reply", "bytes_out=4 "]);
    process.wait_for(&["visitor_gone"]);
    assert_eq!(web.connections.load(Ordering::Relaxed), 1);
}

/// The end of an idle connection is announced, and a head with too many fields is told so.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_http_hold_here_too() {
    let web = target("web").await;
    let (_proxy, port) = proxy(", http.idleTimeout: 300ms, http.maxHeadFields: 16", &[web.port]);
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driving = tokio::spawn(connection);
    let mut request = Request::get("http://h/echo");
    for i in 0..17 {
        request = request.header(format!("x-{i}"), "1");
    }
    let (response, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 431);
    // A GOAWAY without an error.
    driving.await.unwrap().unwrap();
}

/// Requests whose host two readers could find in two places are refused, as in HTTP/1.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_differ_are_refused() {
    let web = target("web").await;
    let (_proxy, port) = proxy("", &[web.port]);
    let sender = visitor(port).await;
    for (uri, hosts, status) in [
        ("http://h/", &["h"][..], 200),
        ("http://h/", &["H"], 200),
        ("/", &["h"], 200),
        ("http://h/", &["other"], 400),
        ("http://h/", &["h", "h"], 400),
        ("/", &["h", "other"], 400),
    ] {
        let request = hosts.iter().fold(Request::get(uri), |request, host| request.header("host", *host));
        let mut sender = sender.clone().ready().await.unwrap();
        let (response, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
        assert_eq!(response.await.unwrap().status(), status, "{uri} {hosts:?}");
    }
}

/// HEADERS and RST_STREAM as fast as they can be sent (CVE-2023-44487).
#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_end_the_connection() {
    let web = target("web").await;
    let (_proxy, port) = proxy("", &[web.port]);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for id in (1..2000_u32).step_by(2) {
        // GET / of http://h, with END_STREAM and END_HEADERS; then CANCEL.
        bytes.extend_from_slice(b"\0\0\x06\x01\x05");
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.extend_from_slice(b"\x82\x84\x86\x41\x01h");
        bytes.extend_from_slice(b"\0\0\x04\x03\0");
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.extend_from_slice(&8_u32.to_be_bytes());
    }
    let mut stream = connect(port);
    // It may be ended while we are still sending.
    drop(stream.write_all(&bytes));
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got);
    // GOAWAY with ENHANCE_YOUR_CALM behind the ID of the last stream.
    let calm = |frame: &[u8]| frame[3] == 7 && frame[13..17] == [0, 0, 0, 11];
    assert!(got.windows(17).any(calm), "{got:?}");
}
