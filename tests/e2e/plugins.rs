//! Plugins in the built binary: dropped into the folder, bound by name, exchanged under load.

use crate::support::Program::Ours;
use crate::support::matrix::TUNNEL;
use crate::support::{Proc, backend, connect, curl, eventually, exchange, free_port, wait_for_port};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

fn guest(name: &str) -> Vec<u8> {
    wat::parse_file(format!("tests/data/guests/{name}.wat")).unwrap()
}

/// Other bytes, the same plugin.
fn marked(mut code: Vec<u8>, mark: u8) -> Vec<u8> {
    code.extend([0, 3, 1, b'm', mark]);
    code
}

/// In one step.
fn put(dir: &Path, name: &str, code: &[u8]) {
    fs::write(dir.join(".new"), code).unwrap();
    fs::rename(dir.join(".new"), dir.join(name)).unwrap();
}

fn plugins(dir: &Path) -> String {
    format!(
        "plugins: {{ dir: '{}', cache: '{}', limits: {{ deadline: 50ms }} }}\n",
        dir.join("plugins.d").display(),
        dir.join("cache").display()
    )
}

/// A tunnel server whose ingress has this line, a client of its tunnel, and the port of the entrypoint.
fn tunnel(dir: &Path, ingress: &str, target: u16) -> (Proc, Proc, u16) {
    let (port, visit) = (free_port(), free_port());
    let plugins = plugins(dir);
    let server = Ours.start(&format!(
        "{plugins}services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{visit}', ingress: i, sniffing.timeout: 300ms }} }}
ingresses:
- name: i
  {ingress}
"
    ));
    server.wait_for(&["listening", "role=\"service\""]);
    let client = Ours.start(&format!(
        "services:
- name: service-0
  addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true, sniffing.timeout: 300ms }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{target}' }}] }}
chains:
- name: c
  hops:
  - nodes:
    - name: server
      addr: 127.0.0.1:{port}
      connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }} }}
"
    ));
    client.wait_for(&["connected", "connector="]);
    (server, client, visit)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_dropped_in_routes_and_its_refusal_reaches_the_visitor() {
    let web = backend::http("web").await;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("plugins.d");
    fs::create_dir(&folder).unwrap();
    let fixed = String::from_utf8(fs::read("tests/data/guests/fixed.wat").unwrap()).unwrap();
    let fixed = wat::parse_str(fixed.replace("4d21094e-b74c-4916-86c1-d9fa36ea677b", TUNNEL)).unwrap();
    let (server, _client, visit) = tunnel(dir.path(), "rules: []", web);
    assert_eq!(curl("a.example", visit, "/", &[]).0, 502);
    put(&folder, "geo.wasm", &fixed);
    server.wait_for(&["plugin in use", "plugin=\"geo\"", "version="]);
    eventually("the new route", || (curl("a.example", visit, "/x", &[]).0 == 200).then_some(()));
    let (status, body) = curl("r.example", visit, "/", &[]);
    assert!(status == 451 && body.contains("not today"), "{status} {body}");
    let (status, body) = curl("r.example", visit, "/", &["--http2-prior-knowledge"]);
    assert!(status == 451, "{status} {body}");
    assert_eq!(curl("e.example", visit, "/", &[]).0, 502, "it failed, and no rule knows the host");
    put(&folder, "geo.wasm", b"no plugin");
    server.wait_for(&["plugin not taken into use", "plugin=\"geo\"", "not WebAssembly", "kept="]);
    assert_eq!(curl("a.example", visit, "/", &[]).0, 200);
    put(&folder, "geo.wasm", b"no plugin");
    let told = || server.log().matches("plugin not taken into use").count() == 2;
    eventually("whoever drops it in again is told again", || told().then_some(()));
    fs::remove_file(folder.join("geo.wasm")).unwrap();
    server.wait_for(&["plugin removed", "plugin=\"geo\""]);
    assert_eq!(curl("a.example", visit, "/", &[]).0, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_asks_the_plugin_that_it_names() {
    let web = backend::http("web").await;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("plugins.d");
    fs::create_dir(&folder).unwrap();
    let fixed = String::from_utf8(fs::read("tests/data/guests/fixed.wat").unwrap()).unwrap();
    let fixed = wat::parse_str(fixed.replace("4d21094e-b74c-4916-86c1-d9fa36ea677b", TUNNEL)).unwrap();
    let ingress = format!(
        "plugin: {{ type: wasm, name: geo }}\n  rules: [{{ hostname: p.example, endpoint: {TUNNEL} }}, {{ hostname: a.private, endpoint: ${TUNNEL} }}, {{ hostname: e.example, endpoint: {TUNNEL} }}]"
    );
    let (_server, _client, visit) = tunnel(dir.path(), &ingress, web);
    let status = |host: &str| curl(host, visit, "/", &[]).0;
    assert!(status("p.example") >= 500, "named, and not there");
    put(&folder, "geo.wasm", &fixed);
    eventually("the plugin is in use", || (status("a.example") == 200).then_some(()));
    assert_eq!(status("p.example"), 200, "it passes, and a rule knows the host");
    assert_eq!(status("a.private"), 502, "a private rule stays private");
    assert!(status("e.example") >= 500, "a named plugin that fails refuses");
}

/// What the core knows beyond the request: the service's metadata, and of TLS visitors the protocols that they offer.
#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_told_metadata_and_offered_protocols() {
    let (_, ca, _ca_dir) = backend::https("tls", "a.example").await;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("plugins.d");
    fs::create_dir(&folder).unwrap();
    put(&folder, "tells.wasm", &guest("tells"));
    let (port, visit) = (free_port(), free_port());
    let server = Ours.start(&format!(
        "{}services:
- name: service-0
  addr: 127.0.0.1:{port}
  metadata: {{ labels: {{ region: north }} }}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{visit}', ingress: i }} }}
ingresses: [{{ name: i, rules: [] }}]
",
        plugins(dir.path())
    ));
    server.wait_for(&["listening", "role=\"service\""]);
    let (status, body) = curl("d.example", visit, "/", &[]);
    assert!(status == 401 && body.contains("north"), "{status} {body}");
    let curl_offers = ["--cacert", ca.to_str().unwrap()];
    assert_eq!(curl("a.example", visit, "/", &curl_offers).0, 0);
    server.wait_for(&["outcome=\"refused\"", "host=\"a.example\"", "http/1.1"]);
}

/// The counts of each plugin are fields of a line in the log, now and then while it is asked and at the end.
#[test]
fn what_plugins_did_is_told_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("plugins.d");
    fs::create_dir(&folder).unwrap();
    put(&folder, "tells.wasm", &guest("tells"));
    let (port, visit) = (free_port(), free_port());
    let mut server = Ours.start(&format!(
        "{}services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{visit}', ingress: i }} }}
ingresses: [{{ name: i, rules: [] }}]
",
        plugins(dir.path()).replace("limits:", "statusInterval: 50ms, limits:")
    ));
    server.wait_for(&[
        "plugin status",
        "plugin=\"tells\"",
        "calls=0",
        "version=",
        "[\"ingress\"]",
        "swaps=0",
    ]);
    assert_eq!(curl("h.example", visit, "/", &[]).0, 400);
    let line = server.wait_for(&["plugin status", "calls=1 ", "errors=0", "traps=0", "cache_hits=0"]);
    assert!(line.contains("latency=[") && line.contains("memory=131072"), "{line}");
    server.signal("TERM");
    server.wait();
    assert_eq!(server.log().matches("plugin status").count(), 2, "only what is new");
}

/// A reverse proxy whose forwarder asks `picks`.
fn forwarder(dir: &Path, nodes: &[(&str, u16)]) -> (Proc, u16) {
    let folder = dir.join("plugins.d");
    fs::create_dir(&folder).unwrap();
    put(&folder, "picks.wasm", &guest("picks"));
    let port = free_port();
    let nodes: String = nodes
        .iter()
        .map(|(name, port)| format!("    - {{ name: {name}, addr: 127.0.0.1:{port} }}\n"))
        .collect();
    let proxy = Ours.start(&format!(
        "{}services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true, sniffing.timeout: 300ms }} }}
  listener: {{ type: tcp }}
  forwarder:
    plugin: {{ type: wasm, name: picks }}
    nodes:
{nodes}",
        plugins(dir)
    ));
    wait_for_port(port);
    (proxy, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarder_asks_which_node_and_again_when_it_is_down() {
    let (a, b) = (backend::http("a").await, backend::http("b").await);
    let dir = tempfile::tempdir().unwrap();
    let (proxy, port) = forwarder(dir.path(), &[("a", a), ("b", b)]);
    proxy.wait_for(&["plugin in use", "picks"]);
    assert!(curl("0.example", port, "/", &[]).1.starts_with("a "));
    assert!(curl("1.example", port, "/", &[]).1.starts_with("b "));
    for how in [&[][..], &["--http2-prior-knowledge"]] {
        assert_eq!(curl("r.example", port, "/", how).0, 451, "{how:?}");
        assert!(curl("7.example", port, "/", how).0 >= 500, "no such node: {how:?}");
    }
    drop(proxy);
    let dir = tempfile::tempdir().unwrap();
    let (_proxy, port) = forwarder(dir.path(), &[("dead", free_port()), ("b", b)]);
    let (status, body) = curl("0.example", port, "/", &[]);
    assert!(status == 200 && body.starts_with("b "), "the first of those that are left: {status} {body}");
}

/// A client asks the plugin of its chain which server it is to serve; nobody else would leave the first one alone.
#[test]
fn a_chain_asks_which_server() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("plugins.d")).unwrap();
    // ok({ node(1), none }) at 0
    let second =
        "(module (memory (export \"memory\") 1) (data (i32.const 4) \"\\01\\00\\00\\00\\01\\00\\00\\00\")
        (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) i32.const 1024)
        (func (export \"select\") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) i32.const 0))";
    let (first, port) = (free_port(), free_port());
    let server =
        Ours.start(&format!("services: [{{ addr: '127.0.0.1:{port}', handler: {{ type: tunnel }} }}]\n"));
    server.wait_for(&["listening"]);
    let client = Ours.start(&format!(
        "{}services:
- addr: :0
  handler: {{ type: whoami }}
  listener: {{ type: rtcp, chain: c }}
chains:
- name: c
  hops:
  - plugin: {{ type: wasm, name: second }}
    nodes:
    - {{ name: first, addr: 127.0.0.1:{first}, connector: {{ type: tunnel }} }}
    - {{ name: second, addr: 127.0.0.1:{port}, connector: {{ type: tunnel }} }}
",
        plugins(dir.path())
    ));
    client.wait_for(&["no server", "second"]);
    put(&dir.path().join("plugins.d"), "second.wasm", &wat::parse_str(second).unwrap());
    client.wait_for(&["connected", "node=\"second\""]);
    assert!(!client.log().contains("cannot connect"), "{}", client.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarder_asks_for_tls_by_its_server_name() {
    let (tls, ca, _dir) = backend::https("tls", "1.example").await;
    let plain = backend::http("plain").await;
    let dir = tempfile::tempdir().unwrap();
    let (_proxy, port) = forwarder(dir.path(), &[("plain", plain), ("tls", tls)]);
    let (status, body) = curl("1.example", port, "/s", &["--cacert", ca.to_str().unwrap()]);
    assert!(status == 200 && body.starts_with("tls "), "{status} {body}");
}

/// Requests go on without one failure while the plugin is exchanged, and an open connection is not touched.
#[tokio::test(flavor = "multi_thread")]
async fn a_swap_under_load_fails_no_request() {
    let web = backend::http("web").await;
    let echo = TcpListener::bind("127.0.0.1:0").unwrap();
    let raw = echo.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = echo.accept().unwrap();
        let mut bytes = [0; 64];
        while let Ok(n @ 1..) = stream.read(&mut bytes) {
            stream.write_all(&bytes[..n]).unwrap();
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let (proxy, port) = forwarder(dir.path(), &[("web", web), ("raw", raw)]);
    proxy.wait_for(&["plugin in use", "picks"]);
    // The name in it is all that a connection that is no HTTP says; what follows is between the two ends.
    let mut open = connect(port);
    let hello = client_hello("1.example");
    open.write_all(&hello).unwrap();
    let mut echoed = vec![0; hello.len()];
    open.read_exact(&mut echoed).unwrap();
    assert_eq!(echoed, hello);
    let (done, served) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let request = b"GET /x HTTP/1.1\r\nHost: 0.example\r\nConnection: close\r\n\r\n";
                    let (reply, _) = exchange(port, request);
                    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for n in 0..20 {
            let code = marked(guest("picks"), n);
            put(&dir.path().join("plugins.d"), "picks.wasm", &code);
            eventually("one more swap", || {
                (proxy.log().matches("plugin in use").count() > usize::from(n) + 1).then_some(())
            });
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(served.load(Ordering::Relaxed) > 20);
    open.write_all(b"still there").unwrap();
    open.read_exact(&mut echoed[..11]).unwrap();
    assert_eq!(&echoed[..11], b"still there");
    assert!(!proxy.log().contains("plugin failed"));
}

/// The smallest ClientHello with a server name (RFC 8446, section 4.1.2; RFC 6066, section 3).
fn client_hello(name: &str) -> Vec<u8> {
    let sized = |len: usize, bytes: &[u8]| [&bytes.len().to_be_bytes()[8 - len..], bytes].concat();
    let server_name = sized(2, &[&[0][..], &sized(2, name.as_bytes())].concat());
    let extensions = sized(2, &[&[0, 0][..], &sized(2, &server_name)].concat());
    let body = [&[3, 3][..], &[7; 32], &[0], &sized(2, &[0x13, 1]), &sized(1, &[0]), &extensions].concat();
    let hello = [&[1][..], &sized(3, &body)].concat();
    [&[22, 3, 1][..], &sized(2, &hello)].concat()
}
