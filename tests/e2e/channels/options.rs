//! What dialers and listeners can be told: names, headers, versions and protocols of TLS, pings.

use super::{chain, server, stranger, stranger_by};
use crate::support::matrix::TUNNEL;
use crate::support::{Program::Ours, backend, eventually, exchange, free_port};
use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};

/// The head of a request on a plain connection.
fn head(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn a_websocket_is_asked_for_at_the_host_and_with_the_headers_of_the_dialer() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let _client =
        stranger("", port, "{ type: ws, metadata: { host: front.example, header: { X-Key: of ours } } }", "");
    let asked = head(&server).to_lowercase();
    assert!(asked.starts_with("get /ws http/1.1\r\n"), "{asked}");
    assert!(asked.contains("\r\nhost: front.example\r\n"), "{asked}");
    assert!(asked.contains("\r\nx-key: of ours\r\n"), "{asked}");
    // Elsewhere, as the first comes again.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let _other = stranger("", port, "{ type: ws }", "");
    let asked = head(&server).to_lowercase();
    assert!(asked.contains(&format!("\r\nhost: localhost:{port}\r\n")), "{asked}");
    assert!(!asked.contains("x-key"), "{asked}");
}

#[test]
fn a_listener_sends_its_headers_in_the_answer_to_a_websocket() {
    let (_server, port, _) = server("{ type: ws, metadata: { header: { X-Answer: yes } } }", "");
    let (said, _) = exchange(
        port,
        b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let said = said.to_lowercase();
    assert!(said.starts_with("http/1.1 101 ") && said.contains("\r\nx-answer: yes\r\n"), "{said}");
}

/// The first request on a connection of HTTP/2.
async fn request(listener: &tokio::net::TcpListener) -> http::Request<()> {
    let (stream, _) = listener.accept().await.unwrap();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (request, _) = connection.accept().await.unwrap().unwrap();
    request.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_http2_are_asked_for_at_the_host_of_the_dialer() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let there = format!("localhost:{port}");
    for (dialer, method, uri, key) in [
        ("{ type: h2c }", "CONNECT", there.as_str(), None),
        (
            "{ type: h2c, metadata: { host: front.example, path: /way, header: { X-Key: of ours } } }",
            "GET",
            "http://front.example/way",
            Some("of ours"),
        ),
        (
            "{ type: grpc, metadata: { grpc.insecure: true, grpc.host: front.example, header: { X-Key: of ours } } }",
            "POST",
            "http://front.example/GostTunel/Tunnel",
            // As in the reference.
            None,
        ),
        (
            "{ type: grpc, metadata: { grpc.insecure: true } }",
            "POST",
            "http://localhost/GostTunel/Tunnel",
            None,
        ),
    ] {
        let client = stranger("", port, dialer, "");
        let request = request(&server).await;
        assert_eq!(
            (request.method().as_str(), request.uri().to_string().as_str()),
            (method, uri),
            "{dialer}"
        );
        let sent = request.headers().get("x-key").map(|value| value.to_str().unwrap());
        assert_eq!(sent, key, "{dialer}");
        drop(client);
    }
}

/// What a client with these versions and protocols agrees on with a listener.
async fn agreed(
    options: &str,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
) -> Option<(ProtocolVersion, Option<Vec<u8>>)> {
    let dir = tempfile::tempdir().unwrap();
    super::bad_input::certificate(dir.path(), "server", "server.example");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (crt, key) = (file("server.crt"), file("server.key"));
    let (_server, port, _) = server(
        &format!("{{ type: tls, tls: {{ certFile: '{crt}', keyFile: '{key}', options: {{ {options} }} }} }}"),
        "",
    );
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&crt).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_protocol_versions(versions)
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("server.example").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    let (_, session) = stream.get_ref();
    Some((session.protocol_version().unwrap(), session.alpn_protocol().map(<[u8]>::to_vec)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_speaks_the_versions_and_protocols_of_tls_that_it_is_told() {
    use ProtocolVersion::{TLSv1_2, TLSv1_3};
    for (options, versions, version) in [
        ("", &[&TLS12, &TLS13][..], Some(TLSv1_3)),
        ("", &[&TLS12], Some(TLSv1_2)),
        ("minVersion: VersionTLS13", &[&TLS12], None),
        ("minVersion: VersionTLS13", &[&TLS12, &TLS13], Some(TLSv1_3)),
        ("maxVersion: VersionTLS12", &[&TLS12, &TLS13], Some(TLSv1_2)),
        ("maxVersion: VersionTLS12", &[&TLS13], None),
        ("minVersion: VersionTLS10", &[&TLS12], Some(TLSv1_2)),
    ] {
        let agreed = agreed(options, versions, &[]).await;
        assert_eq!(agreed.map(|(version, _)| version), version, "{options} {versions:?}");
    }
    for (options, asked, got) in [
        ("", &["one"][..], Some(None)),
        ("alpn: [two, one]", &["one", "two"], Some(Some("two"))),
        ("alpn: [two]", &["one"], None),
        ("alpn: [two]", &[], Some(None)),
    ] {
        let agreed = agreed(options, &[&TLS13], asked).await.map(|(_, protocol)| protocol);
        let got = got.map(|protocol| protocol.map(|name| name.as_bytes().to_vec()));
        assert_eq!(agreed, got, "{options} {asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialer_speaks_the_versions_and_protocols_of_tls_that_it_is_told() {
    use ProtocolVersion::{TLSv1_2, TLSv1_3};
    let (acceptor, ..) = backend::identity("localhost", &["one", "two"]);
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    for (options, version, protocol) in [
        ("", TLSv1_3, None),
        ("maxVersion: VersionTLS12", TLSv1_2, None),
        ("minVersion: VersionTLS13, alpn: [three, two]", TLSv1_3, Some(&b"two"[..])),
    ] {
        let client = stranger("", port, &format!("{{ type: tls, tls: {{ options: {{ {options} }} }} }}"), "");
        let (stream, _) = server.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        let (_, session) = stream.get_ref();
        assert_eq!(
            (session.protocol_version(), session.alpn_protocol()),
            (Some(version), protocol),
            "{options}"
        );
        drop(client);
    }
}

/// However often a dialer connects, its warning is one line; and each dialer has its own.
#[test]
fn that_nobody_is_verified_is_said_once_for_each_dialer() {
    let (first, second) = (free_port(), free_port());
    let node = |name: &str, port: u16| {
        format!(
            "{{ name: {name}, addr: 'localhost:{port}', connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }} }}, \
             dialer: {{ type: tls }} }}"
        )
    };
    let chain = format!(
        "chains:\n- name: c\n  hops: [{{ nodes: [{}, {}] }}]\n",
        node("first", first),
        node("second", second)
    );
    let client = Ours.start(&stranger_by(&chain, ""));
    let count = |text: &str| client.log().lines().filter(|line| line.contains(text)).count();
    eventually("it has tried several times", || (count("cannot connect") >= 6).then_some(()));
    assert_eq!(count("IS NOT VERIFIED"), 2, "{}", client.log());
    for name in ["first", "second"] {
        client.wait_for(&["IS NOT VERIFIED", &format!("node=\"{name}\"")]);
    }
}

/// A peer that stands still is found by pings, long before its silence alone would tell: the sessions on top wait for ever.
#[test]
fn grpc_finds_a_peer_that_stands_still_when_it_is_told_to_ping() {
    let quiet = "mux.keepaliveDisabled: true, mux.keepaliveTimeout: 1h";
    let start = |listener: &str, dialer: &str| {
        let listener = format!("{{ type: grpc, metadata: {{ {listener} }} }}");
        let (server, port, _) = server(&listener, &format!(", {quiet}"));
        let chain = chain(port, &format!("{{ type: grpc, metadata: {{ {dialer} }} }}"), "");
        let client = Ours.start(&stranger_by(&chain.replace(TUNNEL, &format!("{TUNNEL}, {quiet}")), ""));
        client.wait_for(&["connected", "connector="]);
        server.wait_for(&["connector up"]);
        (server, client)
    };
    let (server, client) = start("", "grpc.keepalive: true, grpc.keepalive.time: 500ms");
    server.signal("STOP");
    is_found_in_time(&client.wait_for(&["disconnected"]));
    let (server, client) = start("keepalive: true, ttl: 500ms", "");
    client.signal("STOP");
    is_found_in_time(&server.wait_for(&["connector down"]));
}

/// Whoever does not ping waits for 15 s of silence.
fn is_found_in_time(line: &str) {
    let elapsed = line.split("elapsed=").nth(1).unwrap().split(' ').next().unwrap();
    assert!(elapsed.parse::<f64>().unwrap() < 12.0, "{line}");
}
