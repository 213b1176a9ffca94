//! The files in `config/`, as they stand but for ports and addresses, do what their comments say.

use crate::support::Program::Ours;
use crate::support::{Proc, backend, connect, curl, free_port, read_all, wait_for_port};
use std::io::Write;

/// An example with texts replaced, each of which must be there.
fn example(name: &str, changes: &[(&str, String)]) -> String {
    let mut text = std::fs::read_to_string(format!("config/{name}.yaml")).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{name}: {from}");
        text = text.replace(from, to);
    }
    text
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

#[test]
fn quickstart() {
    let (tunnel, visit, target) = (free_port(), free_port(), free_port());
    let changes = [
        ("127.0.0.1:8443", local(tunnel)),
        ("127.0.0.1:8080", local(visit)),
        ("127.0.0.1:8081", local(target)),
    ];
    let all = Ours.start(&example("quickstart", &changes));
    all.wait_for(&["connected", "connector="]);
    let (status, body) = curl("hello.example", visit, "/", &[]);
    assert_eq!(status, 200, "{body}");
    for line in ["host: hello.example", "tunnel: 4d21094e-b74c-4916-86c1-d9fa36ea677b", "node: whoami"] {
        assert!(body.contains(line), "{body}");
    }
    let (status, body) = curl("hello.example", visit, "/", &["--http2-prior-knowledge"]);
    assert!(status == 200 && body.contains("host: hello.example"), "{status} {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reverse_proxy() {
    let com = backend::http("com").await;
    let (org, ca, _dir) = backend::https("org", "example.org").await;
    let port = free_port();
    let changes = [
        ("addr: :80", format!("addr: {}", local(port))),
        ("addr: example.com:80", format!("addr: {}", local(com))),
        ("addr: example.org:80", format!("addr: {}", local(org))),
    ];
    let _proxy = Ours.start(&example("reverse-proxy", &changes));
    wait_for_port(port);
    assert_eq!(curl("example.com", port, "/", &[]), (200, format!("com example.com:{port} / GET")));
    let over_tls = curl("example.org", port, "/", &["--cacert", ca.to_str().unwrap()]);
    assert_eq!(over_tls, (200, format!("org example.org:{port} / GET")));
}

async fn targets(from: [&'static str; 2]) -> [(&'static str, String); 2] {
    let (zero, one) = (backend::http("zero").await, backend::http("one").await);
    [(from[0], format!("addr: {}", local(zero))), (from[1], format!("addr: {}", local(one)))]
}

fn client(name: &str, server: u16, changes: &[(&str, String)]) -> Proc {
    let mut changes = changes.to_vec();
    changes.push(("addr: 192.0.2.1:8443", format!("addr: {}", local(server))));
    let client = Ours.start(&example(name, &changes));
    client.wait_for(&["connected", "node="]);
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnel_server_and_client() {
    let (port, visit) = (free_port(), free_port());
    let changes = [("addr: :8443", format!("addr: {}", local(port))), ("\":80\"", local(visit))];
    let _server = Ours.start(&example("tunnel-server", &changes));
    wait_for_port(port);
    let nodes = targets(["addr: 192.168.1.1:80", "addr: 192.168.1.2:80"]).await;
    let _client = client("tunnel-client", port, &nodes);
    assert_eq!(curl("srv-0.local", visit, "/", &[]), (200, format!("zero srv-0.local:{visit} / GET")));
    assert_eq!(curl("srv-1.local", visit, "/", &[]), (200, format!("one srv-1.local:{visit} / GET")));
    // The tunnel of this one has no client; and nobody has heard of that one.
    assert_eq!(curl("srv-2.local", visit, "/", &[]).0, 503);
    assert_eq!(curl("srv-9.local", visit, "/", &[]).0, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_forwarding() {
    let (port, opened) = (free_port(), free_port());
    // The server's file stands in the comments of the client's.
    let text = std::fs::read_to_string("config/remote-forwarding.yaml").unwrap();
    let server: String = text
        .lines()
        .filter_map(|line| line.strip_prefix("#   | "))
        .map(|line| line.to_owned() + "\n")
        .collect();
    assert!(server.contains("addr: :8443"), "{text}");
    let _server = Ours.start(&server.replace("addr: :8443", &format!("addr: {}", local(port))));
    wait_for_port(port);
    let [zero, one] = targets(["addr: 192.168.1.1:80", "addr: 192.168.1.2:80"]).await;
    let bind = ("addr: 0.0.0.0:80", format!("addr: {}", local(opened)));
    let _client = client("remote-forwarding", port, &[zero, one, bind]);
    wait_for_port(opened);
    assert_eq!(curl("srv-1.local", opened, "/", &[]), (200, format!("one srv-1.local:{opened} / GET")));
    // No node is for this host.
    let mut visitor = connect(opened);
    visitor.write_all(b"GET / HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n").unwrap();
    assert!(read_all(&mut visitor).0.starts_with("HTTP/1.1 502 "));
}

/// No file in `config/` is without a test here.
#[test]
fn every_example_is_started() {
    let mut names: Vec<_> = std::fs::read_dir("config")
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["quickstart", "remote-forwarding", "reverse-proxy", "tunnel-client", "tunnel-server"]);
}
