//! TLS that ends here, and nodes that are spoken to over TLS.

use crate::support::Program::Ours;
use crate::support::{Proc, backend, connect, curl, eventually, free_port, read_all, replace, wait_for_port};
use http::Request;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

/// A reverse proxy to one node with these keys.
fn proxy_to(node: &str) -> (Proc, u16) {
    let port = free_port();
    let proxy = Ours.start(&format!(
        "services:
- name: front
  addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true, connectTimeout: 2s }} }}
  forwarder:
    nodes:
    - {{ name: inner, {node} }}
"
    ));
    wait_for_port(port);
    (proxy, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_spoken_to_over_tls() {
    let (inner, ca, _dir) = backend::https("inner", "inner.example").await;
    let (ca, addr) = (ca.display(), format!("addr: '127.0.0.1:{inner}'"));
    for (tls, status, told) in [
        ("tls: { secure: false }".to_owned(), 200, "certificate IS NOT VERIFIED"),
        (format!("tls: {{ secure: true, caFile: '{ca}', serverName: inner.example }}"), 200, "listening"),
        (
            format!("tls: {{ secure: true, caFile: '{ca}' }}, http: {{ host: inner.example }}"),
            200,
            "listening",
        ),
        (
            format!("tls: {{ secure: true, caFile: '{ca}' }}"),
            503,
            "give the name in the certificate as tls.serverName",
        ),
        (
            "tls: { secure: true, serverName: inner.example }".to_owned(),
            503,
            "give the server's CA as tls.caFile",
        ),
    ] {
        let (proxy, port) = proxy_to(&format!("{addr}, {tls}"));
        let (got, body) = curl("outer.example", port, "/x", &[]);
        assert_eq!(got, status, "{tls}: {body}");
        assert!(status != 200 || body.starts_with("inner "), "{body}");
        proxy.wait_for(&[told]);
    }
}

/// Whoever speaks TLS with the node itself is not wrapped in another one.
#[tokio::test(flavor = "multi_thread")]
async fn tls_of_the_visitors_own_goes_through_to_such_a_node() {
    let (inner, ca, _dir) = backend::https("inner", "inner.example").await;
    let (_proxy, port) = proxy_to(&format!("addr: '127.0.0.1:{inner}', tls: {{ secure: false }}"));
    let (status, body) = curl("inner.example", port, "/x", &["--cacert", &ca.display().to_string()]);
    assert!(status == 200 && body.starts_with("inner "), "{body}");
}

#[test]
fn http2_goes_on_over_tls() {
    let inner = free_port();
    let _mirror = Ours.start(&format!(
        "services:
- name: mirror
  addr: 127.0.0.1:{inner}
  listener: {{ type: tls, tls: {{ options: {{ alpn: [h2, http/1.1] }} }} }}
  handler: {{ type: whoami }}
"
    ));
    wait_for_port(inner);
    let (_proxy, port) = proxy_to(&format!("addr: '127.0.0.1:{inner}', tls: {{ secure: false }}"));
    for how in [&[][..], &["--http2-prior-knowledge"]] {
        let (status, body) = curl("a.example", port, "/x?y", how);
        assert!(status == 200 && body.contains("path: /x?y\n"), "{body}");
        // HTTP/1 has the host in a field.
        assert_eq!(body.to_lowercase().contains("\nhost: a.example:"), how.is_empty(), "{body}");
    }
}

/// Certificates signed by nobody, for these names; the files of each and the one that visitors trust.
struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, file: &str) -> String {
        self.dir.path().join(file).display().to_string()
    }

    /// How a visitor trusts one of them.
    fn trusting(&self, file: &str, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path(file)).unwrap()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// Writes `NAME.crt` and `NAME.key`; returns the lines of a configuration for them.
    fn make(&self, name: &str, hosts: &[&str]) -> String {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(hosts).unwrap();
        replace(&self.dir.path().join(format!("{name}.key")), &made.signing_key.serialize_pem());
        replace(&self.dir.path().join(format!("{name}.crt")), &made.cert.pem());
        let [crt, key] = [".crt", ".key"].map(|end| self.path(&format!("{name}{end}")));
        format!("{{ certFile: '{crt}', keyFile: '{key}' }}")
    }
}

/// What answers with what arrived at it.
fn mirror() -> (Proc, u16) {
    let port = free_port();
    let mirror = Ours.start(&format!(
        "services: [{{ name: mirror, addr: '127.0.0.1:{port}', handler: {{ type: whoami }} }}]\n"
    ));
    wait_for_port(port);
    (mirror, port)
}

/// A reverse proxy that ends TLS with these keys of `handler.tls`, and nodes.
fn ending(tls: &str, nodes: &str) -> (Proc, u16) {
    ending_with("", tls, nodes)
}

/// The same with more metadata of the handler.
fn ending_with(metadata: &str, tls: &str, nodes: &str) -> (Proc, u16) {
    let port = free_port();
    let proxy = Ours.start(&format!(
        "services:
- name: front
  addr: 127.0.0.1:{port}
  handler:
    type: tcp
    tls: {{ {tls} }}
    metadata: {{ sniffing: true, sniffing.timeout: 300ms, http.forwarded: true, {metadata} }}
  forwarder:
    nodes:
{nodes}"
    ));
    wait_for_port(port);
    (proxy, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_ends_for_names_with_a_certificate_and_passes_for_others() {
    let certificates = Certificates::new();
    let [a, b] =
        [certificates.make("a", &["a.example"]), certificates.make("b", &["*.b.example", "b.example"])];
    let (one, two) = (backend::http("one").await, backend::http("two").await);
    let (through, ca, _dir) = backend::https("through", "c.example").await;
    let (proxy, port) = ending(
        &format!("certificates: [{a}, {b}]"),
        &format!(
            "    - {{ name: one, addr: '127.0.0.1:{one}', host: a.example }}
    - {{ name: two, addr: '127.0.0.1:{two}', host: .b.example }}
    - {{ name: through, addr: '127.0.0.1:{through}', host: c.example }}
"
        ),
    );
    let [a, b] = ["a.crt", "b.crt"].map(|file| certificates.path(file));
    for how in [&["--http1.1"][..], &["--http2"], &["--http2", "--tls-max", "1.2"]] {
        let ask = |host: &str, path: &str, ca: &str| {
            let all: Vec<_> = how.iter().chain(&["--cacert", ca]).copied().collect();
            curl(host, port, path, &all)
        };
        for (host, ca, said) in [
            ("a.example", &a, "one"),
            ("b.example", &b, "two"),
            ("x.b.example", &b, "two"),
            ("A.example", &a, "one"),
        ] {
            let (status, body) = ask(host, "/p?q", ca);
            let said = format!("{said} {}:{port} /p GET", host.to_lowercase());
            assert_eq!((status, body.to_lowercase()), (200, said.to_lowercase()), "{how:?} {host}");
        }
        let (status, body) = ask("c.example", "/p", &ca.display().to_string());
        assert!(status == 200 && body.starts_with("through "), "{body}");
        // A wildcard stands for one label.
        assert_eq!(ask("x.y.b.example", "/", &b).0, 0);
    }
    // Each request by its own host, whatever the connection was opened for.
    let many = ["--cacert", &a, "--http2", "-H", "Host: x.b.example"];
    assert!(curl("a.example", port, "/", &many).1.starts_with("two "));
    proxy.wait_for(&["host=\"a.example\"", "node=\"one\"", "outcome=\"ok\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_pass_through_http2_whole() {
    let certificates = Certificates::new();
    let a = certificates.make("a", &["a.example"]);
    let inner = backend::http("inner").await;
    let (_proxy, port) =
        ending(&format!("certificates: [{a}]"), &format!("    - {{ name: a, addr: '127.0.0.1:{inner}' }}\n"));
    let ca = certificates.path("a.crt");
    let ask = |path: &str, more: &[&str]| {
        let all: Vec<_> = ["--cacert", &ca, "--http2"].iter().chain(more).copied().collect();
        curl("a.example", port, path, &all)
    };
    const SIZE: usize = 8 << 20;
    let file = certificates.path("body");
    std::fs::write(&file, backend::pattern(0, SIZE)).unwrap();
    let sum = format!("{SIZE} {:08x}", backend::pattern_sum(SIZE));
    for more in
        [&["-T", &file][..], &["-H", "Content-Length:", "-T", &file], &["--data-binary", &format!("@{file}")]]
    {
        assert_eq!(ask("/sum", more), (200, sum.clone()));
    }
    for query in ["", "?length"] {
        let saved = certificates.path("saved");
        assert_eq!(ask(&format!("/bytes/{SIZE}{query}"), &["-o", &saved]).0, 200);
        assert!(std::fs::read(&saved).unwrap() == backend::pattern(0, SIZE), "{query}");
    }
    assert_eq!(ask("/sum", &["-X", "POST"]), (200, "0 00000000".to_owned()));
    let (status, head) = ask("/x", &["-I"]);
    assert!(status == 200 && head.starts_with("HTTP/2 200"), "{head}");
}

#[test]
fn what_http2_says_in_its_own_way_reaches_the_target_in_http1s() {
    let certificates = Certificates::new();
    let a = certificates.make("a", &["a.example"]);
    let (_mirror, mirror) = mirror();
    let (_proxy, port) = ending(
        &format!("certificates: [{a}]"),
        &format!("    - {{ name: a, addr: '127.0.0.1:{mirror}' }}\n"),
    );
    let ca = certificates.path("a.crt");
    let cookies = ["--cacert", &ca, "--http2", "-H", "Cookie: a=1; b=2", "-H", "TE: trailers", "-H", "X: y"];
    let (status, body) = curl("a.example", port, "/x?y", &cookies);
    assert_eq!(status, 200, "{body}");
    let body = body.to_lowercase();
    let lines: Vec<_> = body.lines().collect();
    for line in [
        "host: a.example",
        "path: /x?y",
        "cookie: a=1; b=2",
        "x: y",
        "x-forwarded-proto: https",
        "x-forwarded-for: 127.0.0.1",
    ] {
        assert!(lines.contains(&line), "{line} in {body}");
    }
    assert!(lines.contains(&format!("host: a.example:{port}").as_str()), "{body}");
    assert!(!body.contains("te: trailers"), "{body}");
}

/// Requests of one visitor over one connection share what is kept towards the target, and are answered side by side.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_connection_are_answered_side_by_side() {
    let certificates = Certificates::new();
    let a = certificates.make("a", &["a.example"]);
    let inner = backend::http("inner").await;
    let (proxy, port) =
        ending(&format!("certificates: [{a}]"), &format!("    - {{ name: a, addr: '127.0.0.1:{inner}' }}\n"));
    let mut sender = http2(&certificates, port).await;
    for _ in 0..3 {
        let asked: Vec<_> = (0..100)
            .map(|i| {
                let request = Request::get(format!("https://a.example/id/{i}")).body(()).unwrap();
                (i, sender.send_request(request, true).unwrap().0)
            })
            .collect();
        for (i, answer) in asked {
            let (head, mut body) = answer.await.unwrap().into_parts();
            let mut text = Vec::new();
            while let Some(data) = body.data().await {
                text.extend_from_slice(&data.unwrap());
            }
            let said = String::from_utf8(text).unwrap();
            assert_eq!(
                (head.status.as_u16(), said.as_str()),
                (200, format!("inner a.example /id/{i} GET").as_str())
            );
        }
        sender = sender.ready().await.unwrap();
    }
    assert_eq!(proxy.close_wait(), 0);
}

/// A visitor of `a.example` that speaks HTTP/2, as agreed by ALPN.
async fn http2(certificates: &Certificates, port: u16) -> h2::client::SendRequest<bytes::Bytes> {
    let config = certificates.trusting("a.crt", &["h2", "http/1.1"]);
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("a.example").unwrap();
    let stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_breaks_off_is_no_whole_one() {
    let certificates = Certificates::new();
    let a = certificates.make("a", &["a.example"]);
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = target.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in target.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let n = stream.read(&mut head).unwrap();
            let reply: &[u8] = if head[..n].starts_with(b"GET /length") {
                b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
            } else {
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
            };
            stream.write_all(reply).unwrap();
        }
    });
    let (_proxy, port) =
        ending(&format!("certificates: [{a}]"), &format!("    - {{ name: a, addr: '{addr}' }}\n"));
    for path in ["/length", "/chunked"] {
        let mut sender = http2(&certificates, port).await;
        let request = Request::get(format!("https://a.example{path}")).body(()).unwrap();
        let broken = async {
            let mut body = sender.send_request(request, true).unwrap().0.await?.into_body();
            while let Some(data) = body.data().await {
                data?;
            }
            Ok::<_, h2::Error>(())
        };
        assert!(broken.await.unwrap_err().is_reset(), "{path}");
    }
}

/// A visitor that takes nothing of its reply does not hold it for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_that_stops_reading_is_given_up() {
    let certificates = Certificates::new();
    let a = certificates.make("a", &["a.example"]);
    let inner = backend::http("inner").await;
    let (proxy, port) = ending_with(
        "http.stallTimeout: 500ms",
        &format!("certificates: [{a}]"),
        &format!("    - {{ name: a, addr: '127.0.0.1:{inner}' }}\n"),
    );
    let mut sender = http2(&certificates, port).await;
    let request = Request::get("https://a.example/bytes/1000000").body(()).unwrap();
    let mut body = sender.send_request(request, true).unwrap().0.await.unwrap().into_body();
    let mut taken = 0;
    // What is received and not released is all that there is room for.
    let end = loop {
        match body.data().await.unwrap() {
            Ok(data) => taken += data.len(),
            Err(error) => break error,
        }
    };
    assert!(end.is_reset() && taken < 1_000_000, "{taken}: {end}");
    proxy.wait_for(&["outcome=\"stalled\"", "http.stallTimeout"]);
    // The connection goes on.
    let mut sender = sender.ready().await.unwrap();
    let request = Request::get("https://a.example/x").body(()).unwrap();
    assert_eq!(sender.send_request(request, true).unwrap().0.await.unwrap().status(), 200);
}

#[test]
fn plain_http_is_sent_to_https() {
    let certificates = Certificates::new();
    let a = certificates.make("a", &["a.example"]);
    let (_mirror, mirror) = mirror();
    let node = format!("    - {{ name: a, addr: '127.0.0.1:{mirror}' }}\n");
    for (redirect, to) in [("true", "https://a.example/x?y=z"), ("8443", "https://a.example:8443/x?y=z")] {
        let (_proxy, port) = ending(&format!("certificates: [{a}], redirect: {redirect}"), &node);
        for how in [&["-i"][..], &["-i", "-X", "POST", "-d", "body"], &["-i", "--http2-prior-knowledge"]] {
            let (status, reply) = curl("a.example", port, "/x?y=z", how);
            assert!(
                status == 308 && reply.to_lowercase().contains(&format!("location: {to}\r\n")),
                "{reply}"
            );
        }
        assert_eq!(curl("b.example", port, "/x", &[]).0, 200);
        assert_eq!(curl("a.example", port, "/x", &["--cacert", &certificates.path("a.crt")]).0, 200);
    }
    let (_proxy, port) = ending(&format!("certificates: [{a}]"), &node);
    assert_eq!(curl("a.example", port, "/x", &[]).0, 200);
}

#[test]
fn a_new_certificate_counts_from_the_next_connection_on() {
    let certificates = Certificates::new();
    let a = certificates.make("a", &["a.example"]);
    let (_mirror, mirror) = mirror();
    let (proxy, port) = ending(
        &format!("certificates: [{a}]"),
        &format!("    - {{ name: a, addr: '127.0.0.1:{mirror}' }}\n"),
    );
    let old = certificates.path("old.crt");
    std::fs::copy(certificates.path("a.crt"), &old).unwrap();
    assert_eq!(curl("a.example", port, "/", &["--cacert", &old]).0, 200);
    replace(&certificates.dir.path().join("a.crt"), "no certificate");
    eventually("the change is seen", || {
        assert_eq!(curl("a.example", port, "/", &["--cacert", &old]).0, 200);
        proxy.log().contains("the one before stays").then_some(())
    });
    certificates.make("a", &["a.example", "b.example"]);
    eventually("the new one is shown", || {
        (curl("b.example", port, "/", &["--cacert", &certificates.path("a.crt")]).0 == 200).then_some(())
    });
    assert_eq!(curl("a.example", port, "/", &["--cacert", &old]).0, 0);
}

/// A pair that has become bad does not keep the others from being renewed.
#[test]
fn a_certificate_that_has_become_bad_leaves_the_others_alone() {
    let certificates = Certificates::new();
    let [a, b] = [certificates.make("a", &["a.example"]), certificates.make("b", &["b.example"])];
    let (_mirror, mirror) = mirror();
    let (proxy, port) = ending(
        &format!("certificates: [{a}, {b}]"),
        &format!("    - {{ name: a, addr: '127.0.0.1:{mirror}' }}\n"),
    );
    let old = certificates.path("old.crt");
    std::fs::copy(certificates.path("a.crt"), &old).unwrap();
    replace(&certificates.dir.path().join("a.crt"), "no certificate");
    certificates.make("b", &["b.example", "c.example"]);
    eventually("the new one is shown", || {
        (curl("c.example", port, "/", &["--cacert", &certificates.path("b.crt")]).0 == 200).then_some(())
    });
    assert_eq!(curl("a.example", port, "/", &["--cacert", &old]).0, 200);
    let line = proxy.wait_for(&["the one before stays", "services[0].handler.tls.certificates[0]"]);
    assert!(line.contains(&certificates.path("a.crt")), "{line}");
    assert!(!proxy.log().contains("certificates[1]"), "{}", proxy.log());
}

#[test]
fn bad_handshakes_end_in_time_and_harm_nobody() {
    let certificates = Certificates::new();
    let a = certificates.make("a", &["a.example"]);
    let (_mirror, mirror) = mirror();
    let (proxy, port) = ending(
        &format!("certificates: [{a}], handshakeTimeout: 500ms"),
        &format!("    - {{ name: a, addr: '127.0.0.1:{mirror}' }}\n"),
    );
    let mut hello = Vec::new();
    let config = certificates.trusting("a.crt", &[]);
    let mut client = ClientConnection::new(config, ServerName::try_from("a.example").unwrap()).unwrap();
    client.write_tls(&mut hello).unwrap();
    let mut silent = connect(port);
    silent.write_all(&hello).unwrap();
    let mut garbage = connect(port);
    garbage.write_all(&[&hello[..], &[0x17; 500]].concat()).unwrap();
    let (_, closed) = read_all(&mut garbage);
    assert!(closed);
    let (_, closed) = read_all(&mut silent);
    assert!(closed);
    proxy.wait_for(&["bad_handshake", "no TLS handshake within 500ms (tls.handshakeTimeout)"]);
    proxy.wait_for(&["bad_handshake", "TLS: "]);
    let ca = certificates.path("a.crt");
    assert_eq!(curl("a.example", port, "/", &["--cacert", &ca]).0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_ends_at_an_entrypoint() {
    let certificates = Certificates::new();
    let a = certificates.make("a", &["a.example", "raw.example"]);
    let inner = backend::http("inner").await;
    let [port, visit] = [free_port(), free_port()];
    let _server = Ours.start(&format!(
        "services:
- name: server
  addr: 127.0.0.1:{port}
  handler:
    type: tunnel
    tls: {{ certificates: [{a}], redirect: {visit} }}
    metadata: {{ entrypoint: '127.0.0.1:{visit}', tunnel: '.example:4d21094e-b74c-4916-86c1-d9fa36ea677b', http.forwarded: true }}
"
    ));
    wait_for_port(port);
    let _client = Ours.start(&format!(
        "services:
- name: client
  addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: chain-0 }}
  forwarder: {{ nodes: [{{ name: inner, addr: '127.0.0.1:{inner}' }}] }}
chains:
- name: chain-0
  hops:
  - nodes:
    - addr: 127.0.0.1:{port}
      connector: {{ type: tunnel, metadata: {{ tunnel.id: 4d21094e-b74c-4916-86c1-d9fa36ea677b }} }}
"
    ));
    let ca = certificates.path("a.crt");
    for how in ["--http1.1", "--http2"] {
        let said = format!("inner a.example:{visit} /x GET");
        eventually("the tunnel works", || {
            (curl("a.example", visit, "/x", &["--cacert", &ca, how]) == (200, said.clone())).then_some(())
        });
    }
    assert_eq!(curl("a.example", visit, "/x", &[]).0, 308);
}
