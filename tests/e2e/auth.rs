//! Who may serve a tunnel, visit one, or connect at all.

use crate::support::Program::Ours;
use crate::support::auth::passwords;
use crate::support::matrix::{Kind, TUNNEL};
use crate::support::relay::{BIND, CONNECT, loopback, message, name, read_message, tunnel};
use crate::support::{Proc, backend, connect, curl, eventually, exchange, free_port, read_all, replace};
use std::io::Write;
use std::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_password_lets_a_client_serve() {
    for kind in [Kind::Tunnel, Kind::Relay] {
        passwords(kind, Ours, Ours, ["user name", "mend connector.auth"]).await;
    }
}

/// A tunnel server; its tunnel port and its entrypoint.
fn server(more: &str, metadata: &str, sections: &str) -> (Proc, u16, u16) {
    let (port, visit) = (free_port(), free_port());
    let server = Ours.start(&format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: tunnel{more}, metadata: {{ entrypoint: '127.0.0.1:{visit}', ingress: i{metadata} }} }}
ingresses:
- {{ name: i, rules: [{{ hostname: known.host, endpoint: {TUNNEL} }}] }}
{sections}"
    ));
    server.wait_for(&["listening", "role=\"service\""]);
    (server, port, visit)
}

fn client(port: u16, bind: &str, auth: &str, web: u16) -> Proc {
    Ours.start(&format!(
        "services:
- name: service-0
  addr: {bind}
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{web}' }}] }}
chains:
- name: c
  hops: [{{ nodes: [{{ addr: '127.0.0.1:{port}', connector: {{ type: tunnel, auth: {{ {auth} }}, metadata: {{ tunnel.id: {TUNNEL} }} }} }}] }}]
"
    ))
}

/// A request of one command; the connection and the status.
pub(crate) fn ask(port: u16, command: u8, auth: Option<(&str, &str)>) -> (TcpStream, u8) {
    let mut stream = connect(port);
    let mut features = vec![loopback(1), name("known.host", 80), tunnel()];
    features.extend(auth.map(|(user, password)| {
        let part = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let data = [part(user), part(password)].concat();
        [&[1][..], &u16::try_from(data.len()).unwrap().to_be_bytes(), &data].concat()
    }));
    stream.write_all(&message(command, &features)).unwrap();
    let (status, _) = read_message(&mut stream).unwrap();
    (stream, status)
}

fn answers(visit: u16, expected: u16) {
    eventually(&format!("{expected} at the entrypoint"), || {
        (curl("known.host", visit, "/", &[]).0 == expected).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_is_revoked_is_cut_and_another_is_not() {
    let web = backend::http("web").await;
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    replace(&users, "ann one\nbob two\n");
    let sections = format!("authers:\n- {{ name: staff, file: {{ path: '{}' }} }}\n", users.display());
    let (server, port, visit) = server(", auther: staff", "", &sections);
    let ann = client(port, ":0", "username: ann, password: one", web);
    answers(visit, 200);
    let (mut visitor, status) = ask(port, CONNECT, Some(("bob", "two")));
    assert_eq!(status, 0);
    let (mut other, status) = ask(port, CONNECT, Some(("ann", "one")));
    assert_eq!(status, 0);

    replace(&users, "ann one\n");
    assert_eq!(read_all(&mut visitor), (String::new(), true), "the visitor's user is gone");
    assert_eq!(ask(port, CONNECT, Some(("bob", "two"))).1, 2);
    answers(visit, 200);
    other.write_all(b"GET / HTTP/1.1\r\nHost: known.host\r\nConnection: close\r\n\r\n").unwrap();
    assert!(read_all(&mut other).0.starts_with("HTTP/1.1 200 "));

    replace(&users, "# nobody\n");
    ann.wait_for(&["disconnected"]);
    server.wait_for(&["its user may no longer serve this tunnel"]);
    answers(visit, 503);
    ann.wait_for(&["cannot connect", "mend connector.auth"]);
    replace(&users, "ann one\n");
    // The next try of a client with a wrong password is up to 30 s away.
    drop(ann);
    let _ann = client(port, ":0", "username: ann, password: one", web);
    answers(visit, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_its_owners() {
    let web = backend::http("web").await;
    let owned = format!(
        ", tunnels: [{{ id: {TUNNEL}, credentials: [{{ username: ann, password: one }}, {{ username: bob }}], \
         hostnames: [known.host], maxConnectors: 1 }}]"
    );
    let auth = ", auther: staff";
    let staff = "authers:\n- { name: staff, auths: [{ username: bob, password: two }, { username: cid, password: three }] }\n";
    let (server, port, visit) = server(auth, &owned, staff);
    for (user, status) in [
        (None, 2),
        (Some(("ann", "two")), 2),
        (Some(("cid", "three")), 3),
        (Some(("dan", "x")), 2),
        (Some(("ann", "one")), 0),
        (Some(("bob", "two")), 0),
    ] {
        eventually(&format!("{user:?} gets {status}"), || (ask(port, BIND, user).1 == status).then_some(()));
    }
    server.wait_for(&["connector refused", "another user", "cid"]);
    let log = server.log();
    assert!(!log.contains("three") && !log.contains("password: "), "{log}");
    // Visitors are asked as the handler says; owners may, too.
    let first = client(port, "elsewhere.host:80", "username: ann, password: one", web);
    server.wait_for(&["not among the hostnames", "elsewhere.host"]);
    assert!(!first.wait_for(&["connected", "connector="]).contains("elsewhere"));
    for (user, status) in
        [(None, 2), (Some(("cid", "three")), 0), (Some(("ann", "one")), 0), (Some(("ann", "x")), 2)]
    {
        assert_eq!(ask(port, CONNECT, user).1, status, "{user:?}");
    }
    answers(visit, 200);
    assert_eq!(ask(port, BIND, Some(("bob", "two"))).1, 5, "one connector is all that it may have");
    server.wait_for(&["connector refused", "maxConnectors"]);
    drop(first);
    let named = client(port, "known.host:80", "username: bob, password: two", web);
    assert!(named.wait_for(&["connected", "connector="]).contains("known.host:80"));
}

/// With a list there are no other tunnels.
#[test]
fn a_tunnel_that_is_not_listed_is_nobodys() {
    let (_server, port, _) = server("", ", tunnels: [{ id: ac74d9dd-3125-442a-a7c1-f9e49e05faca }]", "");
    assert_eq!(ask(port, BIND, None).1, 3);
    let (_server, port, _) = server("", &format!(", tunnels: [{{ id: {TUNNEL} }}]"), "");
    assert_eq!(ask(port, BIND, None).1, 0);
}

/// A stranger who tries passwords makes us compute hashes; whoever is known goes on.
#[tokio::test(flavor = "multi_thread")]
async fn passwords_that_are_tried_out_hold_up_nobody_who_is_in() {
    let web = backend::http("web").await;
    // Of "one", with 16 MiB and three rounds.
    let hash = argon2("one");
    let (_server, port, visit) = server(&format!(", auth: {{ username: ann, password: '{hash}' }}"), "", "");
    let _ann = client(port, ":0", "username: ann, password: one", web);
    answers(visit, 200);
    let tried: Vec<_> = (0..200)
        .map(|n| {
            let mut stream = connect(port);
            let password = format!("guess {n}");
            let data =
                [&[3][..], b"ann", &[u8::try_from(password.len()).unwrap()], password.as_bytes()].concat();
            let auth = [&[1][..], &u16::try_from(data.len()).unwrap().to_be_bytes(), &data].concat();
            stream.write_all(&message(BIND, &[loopback(1), loopback(1), tunnel(), auth])).unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(curl("known.host", visit, "/", &[]).0, 200);
    }
    // She comes in again at once: what was right once is known.
    assert_eq!(ask(port, CONNECT, Some(("ann", "one"))).1, 0);
    drop(tried);
}

fn argon2(password: &str) -> String {
    use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
    let params = Params::new(16 * 1024, 3, 1, None).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_with_salt(password.as_bytes(), b"some salt of it").unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_let_in_or_kept_out() {
    let web = backend::http("web").await;
    let dir = tempfile::tempdir().unwrap();
    let kept_out = dir.path().join("kept-out");
    replace(&kept_out, "203.0.113.0/24\n");
    let port = free_port();
    let proxied = free_port();
    let proxy = Ours.start(&format!(
        "services:
- name: plain
  addr: 127.0.0.1:{port}
  admissions: [loopback, scanners]
  handler: {{ type: tcp, metadata: {{ sniffing: true }} }}
  forwarder: {{ nodes: [{{ addr: '127.0.0.1:{web}' }}] }}
- name: proxied
  addr: 127.0.0.1:{proxied}
  admission: loopback
  handler: {{ type: tcp, metadata: {{ sniffing: true }} }}
  forwarder: {{ nodes: [{{ addr: '127.0.0.1:{web}' }}] }}
  metadata: {{ proxyProtocol: 1 }}
admissions:
- {{ name: loopback, whitelist: true, matchers: [127.0.0.0/8] }}
- {{ name: scanners, file: {{ path: '{}' }} }}
",
        kept_out.display()
    ));
    proxy.wait_for(&["listening", "proxied"]);
    assert_eq!(curl("h", port, "/", &[]).0, 200);
    assert_eq!(curl("h", proxied, "/", &[]).0, 200);
    // The header tells who asks.
    let request = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let from =
        |ip: &str| exchange(proxied, format!("PROXY TCP4 {ip} 127.0.0.1 1 2\r\n{request}").as_bytes()).0;
    assert!(from("127.0.0.9").starts_with("HTTP/1.1 200 "));
    assert_eq!(from("198.51.100.1"), "");
    proxy.wait_for(&["service=\"proxied\"", "client=198.51.100.1:1", "not_admitted", "loopback"]);

    replace(&kept_out, "127.0.0.1\n");
    eventually("the file is read", || (curl("h", port, "/", &[]).0 == 0).then_some(()));
    proxy.wait_for(&["service=\"plain\"", "not_admitted", "scanners"]);
}

#[test]
fn visitors_and_clients_have_admissions_of_their_own() {
    let admissions = "admissions: [{ name: none, whitelist: true, matchers: [] }]\n";
    let (_server, port, visit) = server("", ", entrypoint.admission: none", admissions);
    assert_eq!(ask(port, BIND, None).1, 0);
    assert_eq!(curl("known.host", visit, "/", &[]).0, 0);
}
