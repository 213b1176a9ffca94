//! Who may serve a tunnel, visit one, or connect at all.

mod at_a_relay;
mod revoked;

use crate::support::Program::Ours;
use crate::support::auth::{self, answers, owners, passwords, tunnel_server};
use crate::support::matrix::{Kind, TUNNEL};
use crate::support::relay::{self, BIND, CONNECT, loopback, message, tunnel};
use crate::support::{Proc, backend, connect, curl, eventually, exchange, free_port, replace};
use std::io::Write;
use std::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_password_lets_a_client_serve() {
    for kind in [Kind::Tunnel, Kind::Relay] {
        passwords(kind, Ours, Ours, ["user name", "mend connector.auth"]).await;
    }
}

/// A client of [`TUNNEL`] as that user.
fn client(port: u16, bind: &str, (user, password): (&str, &str), web: u16) -> Proc {
    Ours.start(&auth::client(Kind::Tunnel, port, bind, &auth::user(user, password), web))
}

/// A request of one command; the connection and the status.
pub(crate) fn ask(port: u16, command: u8, auth: Option<(&str, &str)>) -> (TcpStream, u8) {
    let (stream, status, _) = relay::ask_as(port, command, "known.host", auth);
    (stream, status)
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
    let (server, port, visit) = tunnel_server(auth, &owned, staff);
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
    let first = client(port, "elsewhere.host:80", ("ann", "one"), web);
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
    let named = client(port, "known.host:80", ("bob", "two"), web);
    assert!(named.wait_for(&["connected", "connector="]).contains("known.host:80"));
}

/// The handler asks nobody, its tunnel does: visitors that come by its ID as well as clients.
#[test]
fn a_tunnel_with_owners_asks_its_visitors_where_the_handler_asks_nobody() {
    let owned = |credentials: &str| format!(", tunnels: [{{ id: {TUNNEL}{credentials} }}]");
    let ann = ", credentials: [{ username: ann, password: one }]";
    let (server, port, _) = tunnel_server("", &owned(ann), "");
    let _connector = ask(port, BIND, Some(("ann", "one")));
    for (user, status) in
        [(Some(("ann", "one")), 0), (Some(("ann", "x")), 2), (Some(("bob", "one")), 2), (None, 2)]
    {
        assert_eq!(ask(port, CONNECT, user).1, status, "{user:?}");
    }
    server.wait_for(&["unauthorized", "wrong user name or password"]);
    server.wait_for(&["unauthorized", "no user name and password"]);
    // Without owners the ID is all that a visitor needs, whatever else it shows.
    let (_server, port, _) = tunnel_server("", &owned(""), "");
    let _connector = ask(port, BIND, None);
    for user in [None, Some(("ann", "x"))] {
        assert_eq!(ask(port, CONNECT, user).1, 0, "{user:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_and_visitors_of_a_tunnel_are_its_owners() {
    owners(Ours).await;
}

/// With a list there are no other tunnels.
#[test]
fn a_tunnel_that_is_not_listed_is_nobodys() {
    let (_server, port, _) =
        tunnel_server("", ", tunnels: [{ id: ac74d9dd-3125-442a-a7c1-f9e49e05faca }]", "");
    assert_eq!(ask(port, BIND, None).1, 3);
    let (_server, port, _) = tunnel_server("", &format!(", tunnels: [{{ id: {TUNNEL} }}]"), "");
    assert_eq!(ask(port, BIND, None).1, 0);
}

/// A stranger who tries passwords makes us compute hashes; whoever is known goes on.
#[tokio::test(flavor = "multi_thread")]
async fn passwords_that_are_tried_out_hold_up_nobody_who_is_in() {
    let web = backend::http("web").await;
    // Of "one", with 16 MiB and three rounds.
    let hash = argon2("one");
    let (_server, port, visit) =
        tunnel_server(&format!(", auth: {{ username: ann, password: '{hash}' }}"), "", "");
    let _ann = client(port, ":0", ("ann", "one"), web);
    answers(visit, 200);
    let tried: Vec<_> = (0..200)
        .map(|n| {
            let mut stream = connect(port);
            let auth = relay::user("ann", &format!("guess {n}"));
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
    let (_server, port, visit) = tunnel_server("", ", entrypoint.admission: none", admissions);
    assert_eq!(ask(port, BIND, None).1, 0);
    assert_eq!(curl("known.host", visit, "/", &[]).0, 0);
}
