//! TLS that ends here, and nodes that are spoken to over TLS.

use crate::support::Program::Ours;
use crate::support::{Proc, backend, curl, free_port, wait_for_port};

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
