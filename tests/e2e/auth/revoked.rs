//! Users that are taken out of a file: all that they have ends, and nobody else's.

use super::{ask, client};
use crate::support::Program::Ours;
use crate::support::auth::{answers, revocation, staff, tunnel_server};
use crate::support::matrix::Channel;
use crate::support::matrix::{Kind, TUNNEL};
use crate::support::relay::{BIND, CONNECT, UDP, loopback, network, request, user};
use crate::support::udp::{chain, name_server};
use crate::support::{PATIENCE, Proc, backend, eventually, free_port, read_all, replace, udp};
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_is_revoked_is_cut_and_another_is_not() {
    let web = backend::http("web").await;
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    replace(&users, "ann one\nbob two\n");
    let (server, port, visit) = tunnel_server(", auther: staff", "", &staff(&users));
    let ann = client(port, ":0", ("ann", "one"), web);
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
    let _ann = client(port, ":0", ("ann", "one"), web);
    answers(visit, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_go_with_their_users_and_come_back_with_them() {
    for kind in [Kind::Tunnel, Kind::Relay] {
        revocation(kind, Ours).await;
    }
}

/// Owners that stand in a file are revoked there, those with a password of the tunnel's own are not.
#[test]
fn an_owner_that_is_revoked_is_cut_and_another_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    replace(&users, "ann one\n");
    let owned = format!(
        ", tunnel.silence: 1h, tunnels: [{{ id: {TUNNEL}, credentials: [{{ username: ann }}, {{ username: own, password: three }}] }}]"
    );
    let (server, port, _) = tunnel_server(", auther: staff", &owned, &staff(&users));
    let (ann, own) = (Some(("ann", "one")), Some(("own", "three")));
    let held = |user| [BIND, CONNECT].map(|command| ask(port, command, user));
    // Whoever visits first is served by the only connector that there is then.
    let owns = held(own);
    let anns = held(ann);
    assert_eq!([&anns, &owns].map(|held| [held[0].1, held[1].1]), [[0; 2]; 2]);

    replace(&users, "# nobody\n");
    anns.into_iter().for_each(|(stream, _)| is_cut(stream));
    let line = server.wait_for(&["its user may no longer serve this tunnel"]);
    let id = line.split("connector=").nth(1).unwrap();
    server.wait_for(&["connector down", id]);
    assert_eq!([BIND, CONNECT].map(|command| ask(port, command, ann).1), [2, 2]);
    owns.iter().for_each(|(stream, _)| is_open(stream));
    assert_eq!(server.log().matches("connector down").count(), 1, "{}", server.log());
}

/// The other side has ended it, whatever it had to say before.
fn is_cut(mut stream: TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(read_all(&mut stream).1, "still open");
}

fn is_open(mut stream: &TcpStream) {
    stream.set_nonblocking(true).unwrap();
    let mut buf = [0; 4096];
    while stream.read(&mut buf).is_ok_and(|len| len > 0) {}
    let error = stream.read(&mut buf).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

fn relay(users: &Path) -> (Proc, u16) {
    let port = free_port();
    let relay = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: relay, auther: staff, metadata: {{ bind: true }} }}
{}",
        staff(users)
    ));
    relay.wait_for(&["listening"]);
    (relay, port)
}

/// What a relay gives: ways on to a web server and a name server, and a port of each kind.
struct Given {
    ways: [TcpStream; 2],
    ports: [(TcpStream, u16); 2],
}

impl Given {
    fn to(name: &str, password: &str, relay: u16, web: u16, names: u16) -> Self {
        let ask = |command, wanted, udp| {
            let (stream, status, answer) =
                request(relay, command, &[network(udp), loopback(wanted), user(name, password)]);
            assert_eq!(status, 0, "{name} {command}");
            (stream, answer.last_chunk().map_or(0, |port| u16::from_be_bytes(*port)))
        };
        Self {
            ways: [ask(CONNECT, web, false).0, ask(CONNECT | UDP, names, true).0],
            ports: [ask(BIND, 0, false), ask(BIND | UDP, 0, true)],
        }
    }

    /// Whether each of the two ports is somebody's.
    fn taken(&self) -> [bool; 2] {
        let [(_, tcp), (_, udp)] = self.ports;
        [TcpStream::connect(("127.0.0.1", tcp)).is_ok(), UdpSocket::bind(("127.0.0.1", udp)).is_err()]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_relay_gave_somebody_goes_with_the_user() {
    let web = backend::http("web").await;
    let names = name_server(6);
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    replace(&users, "ann one\nbob two\n");
    let (relay, port) = relay(&users);
    let bobs = Given::to("bob", "two", port, web, names);
    let mut anns = Given::to("ann", "one", port, web, names);
    assert_eq!((bobs.taken(), anns.taken()), ([true; 2], [true; 2]));

    replace(&users, "ann one\n");
    eventually("both ports are closed", || (bobs.taken() == [false; 2]).then_some(()));
    for (_, port) in &bobs.ports {
        relay.wait_for(&["port closed", &format!(":{port}")]);
    }
    bobs.ways.into_iter().chain(bobs.ports.map(|(stream, _)| stream)).for_each(is_cut);
    assert_eq!(request(port, CONNECT, &[loopback(web), user("bob", "two")]).1, 2);

    assert_eq!(anns.taken(), [true; 2]);
    let [http, datagrams] = &mut anns.ways;
    http.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    assert!(read_all(http).0.starts_with("HTTP/1.1 200 "));
    datagrams.write_all(b"\0\x11\x01\x02\0\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01").unwrap();
    let mut answer = [0; 2 + 17 + 16];
    datagrams.read_exact(&mut answer).unwrap();
    assert_eq!(answer[34], 6);
}

/// Our own side of the same: who serves datagrams at a relay, and who visits through one.
#[tokio::test(flavor = "multi_thread")]
async fn clients_and_visitors_of_a_relay_are_told_that_their_user_is_gone() {
    let names = name_server(7);
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    replace(&users, "ann one\n");
    let (_relay, port) = relay(&users);
    let chain = chain(port, Channel::TCP, "{ type: relay, auth: { username: ann, password: one } }");
    let served = udp::free_udp_port();
    let client = udp::client(Ours, &format!("127.0.0.1:{served}"), &chain, names);
    let (visitor, visit) = udp::visitor(Ours, &chain, &format!("127.0.0.1:{names}"));
    assert_eq!([served, visit].map(|port| udp::Resolver::new(port).ask(0)), [7, 7]);

    replace(&users, "# nobody\n");
    client.wait_for(&["disconnected"]);
    client.wait_for(&["cannot connect", "mend connector.auth"]);
    eventually("a visitor is told", || {
        udp::is_silent(visit);
        visitor.log().contains("wrong user name or password: mend connector.auth").then_some(())
    });
}
