//! Who may open a tunnel, by a plugin: bound, dropped in, failing; and clients that need no password.

use crate::support::Program::Ours;
use crate::support::admission::{guest, put, tunnel_server};
use crate::support::auth::client;
use crate::support::matrix::{Kind, TUNNEL};
use crate::support::relay::{BIND, CONNECT, ask_as, loopback, request};
use crate::support::{Proc, eventually, free_port};
use std::fs;
use std::net::TcpStream;
use std::path::Path;

/// The connection, the status, and whether the client got the name that it asked for.
fn ask(port: u16, command: u8, host: &str, auth: Option<(&str, &str)>) -> (TcpStream, u8, bool) {
    let (stream, status, features) = ask_as(port, command, host, auth);
    let named = features.windows(host.len()).any(|bytes| bytes == host.as_bytes());
    (stream, status, named)
}

fn status(port: u16, host: &str) -> u8 {
    ask(port, BIND, host, None).1
}

const BOUND: &str = "plugin: { type: wasm, name: door }";

#[test]
fn a_plugin_decides_who_opens_a_tunnel_and_for_which_names() {
    let dir = tempfile::tempdir().unwrap();
    let (server, port, _) = tunnel_server(dir.path(), BOUND, "");
    assert_eq!(status(port, "x.example"), 8, "bound, and not there");
    server.wait_for(&["connector refused", "plugin \"door\": not loaded"]);
    put(dir.path(), "door", &guest("admits"));
    server.wait_for(&["plugin in use", "door"]);
    for (host, expected) in [
        ("x.example", (0, true)),
        // Allowed by the plugin, by its names only.
        ("n.example", (0, false)),
        ("p.example", (0, true)),
        ("d.example", (3, false)),
        ("u.example", (3, false)),
        ("e.example", (8, false)),
        ("t.example", (8, false)),
        ("l.example", (8, false)),
        ("x.example", (0, true)),
    ] {
        let (_, status, named) = ask(port, BIND, host, None);
        assert_eq!((status, named), expected, "{host}");
    }
    server.wait_for(&["connector refused", TUNNEL, "error=plugin \"door\": not yours"]);
    server.wait_for(&["connector refused", "plugin \"door\": trap"]);
    server.wait_for(&["not among the hostnames of the tunnel", "n.example"]);
    // Visitors are no question for it.
    let _connector = ask(port, BIND, "x.example", None);
    assert_eq!(ask(port, CONNECT, "known.host", None).1, 0);
}

/// The plugin stands before the list, and what it has no opinion of the list decides.
#[test]
fn the_list_of_tunnels_decides_where_the_plugin_passes() {
    let dir = tempfile::tempdir().unwrap();
    let other = ", tunnels: [{ id: ac74d9dd-3125-442a-a7c1-f9e49e05faca }]";
    let (server, port, _) = tunnel_server(dir.path(), BOUND, other);
    put(dir.path(), "door", &guest("admits"));
    server.wait_for(&["plugin in use", "door"]);
    assert_eq!(status(port, "p.example"), 3);
    server.wait_for(&["connector refused", "not in the list of tunnels"]);
    assert_eq!(status(port, "x.example"), 0);
    drop(server);

    let dir = tempfile::tempdir().unwrap();
    let owned = format!(", tunnels: [{{ id: {TUNNEL}, hostnames: [p.example, n.example] }}]");
    let (server, port, _) = tunnel_server(dir.path(), BOUND, &owned);
    put(dir.path(), "door", &guest("admits"));
    server.wait_for(&["plugin in use", "door"]);
    assert!(ask(port, BIND, "p.example", None).2);
    assert!(!ask(port, BIND, "x.example", None).2, "allowed, without names: those of the list");
    assert!(!ask(port, BIND, "n.example", None).2, "the plugin's names stand in place of the list's");
}

/// A file dropped in decides; what is open stays open, and whoever comes again is asked about again.
#[test]
fn a_plugin_dropped_in_is_asked_about_whoever_comes_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let (server, port, _) = tunnel_server(dir.path(), "", "");
    let (stream, status, named) = ask(port, BIND, "d.example", None);
    assert_eq!((status, named), (0, true), "nobody is asked");
    let folder = dir.path().join("plugins.d");
    put(dir.path(), "10-door", &guest("admits"));
    server.wait_for(&["plugin in use", "10-door"]);
    // The line comes a moment before it is asked.
    eventually("the plugin is asked", || (self::status(port, "d.example") == 3).then_some(()));
    assert_eq!(self::status(port, "t.example"), 8, "a door that does not work stays shut");
    assert_eq!(self::status(port, "x.example"), 0);
    // The first one is still in, by the word of the registry.
    let server_log = server.log();
    let up = server_log.lines().find(|line| line.contains("connector up")).unwrap();
    let id = up.split("connector=").nth(1).unwrap().split(' ').next().unwrap();
    assert!(!server_log.contains(&format!("connector={id} elapsed")), "{server_log}");
    fs::remove_file(folder.join("10-door.wasm")).unwrap();
    server.wait_for(&["plugin removed"]);
    eventually("nobody is asked", || (self::status(port, "d.example") == 0).then_some(()));
    drop(stream);
    server.wait_for(&["connector down", id]);
}

fn with_users(dir: &Path, metadata: &str) -> (Proc, u16) {
    let auth = format!("auth: {{ username: ann, password: one }}, {BOUND}");
    let (server, port, _) = tunnel_server(dir, &auth, metadata);
    put(dir, "door", &guest("admits"));
    server.wait_for(&["plugin in use", "door"]);
    (server, port)
}

/// A password is asked for first, and the plugin is told whose it was.
#[test]
fn the_plugin_is_told_the_user_whose_password_was_right() {
    let dir = tempfile::tempdir().unwrap();
    let (server, port) = with_users(dir.path(), "");
    assert_eq!(ask(port, BIND, "u.example", Some(("ann", "two"))).1, 2);
    assert_eq!(ask(port, BIND, "x.example", None).1, 2);
    assert_eq!(ask(port, BIND, "x.example", Some(("ann", "one"))).1, 0);
    assert!(!server.log().contains("plugin \"door\""), "{}", server.log());
    assert_eq!(ask(port, BIND, "u.example", Some(("ann", "one"))).1, 3);
    server.wait_for(&["connector refused", "plugin \"door\": ann, user \"ann\""]);
}

#[test]
fn clients_of_skipauth_need_no_password() {
    let dir = tempfile::tempdir().unwrap();
    let (server, port) = with_users(dir.path(), ", skipauth: [203.0.113.0/24, 127.0.0.0/8]");
    let connector = ask(port, BIND, "x.example", None);
    assert_eq!(connector.1, 0);
    assert_eq!(ask(port, BIND, "x.example", Some(("ann", "two"))).1, 0);
    assert_eq!(ask(port, CONNECT, "known.host", None).1, 0);
    assert_eq!(ask(port, BIND, "d.example", None).1, 3, "the plugin has its say all the same");
    server.wait_for(&["plugin \"door\": not yours"]);
    drop(server);
    let dir = tempfile::tempdir().unwrap();
    let (_server, port) = with_users(dir.path(), ", skipauth: 203.0.113.0/24");
    assert_eq!(ask(port, BIND, "x.example", None).1, 2);

    for (skip, expected) in [("127.0.0.1", 0), ("203.0.113.1", 2)] {
        let port = free_port();
        let relay = Ours.start(&format!(
            "services: [{{ addr: '127.0.0.1:{port}', handler: {{ type: relay, auth: {{ username: ann, password: one }}, \
             metadata: {{ bind: true, skipauth: {skip} }} }} }}]\n"
        ));
        relay.wait_for(&["listening"]);
        assert_eq!(request(port, BIND, &[loopback(0)]).1, expected, "{skip}");
    }
}

/// A real client, whose name the plugin knows.
#[test]
fn a_client_is_told_that_it_may_not_and_comes_in_when_it_may() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("plugins.d")).unwrap();
    fs::write(dir.path().join("plugins.d/door.yaml"), "n").unwrap();
    let (server, port, _) = tunnel_server(dir.path(), BOUND, "");
    put(dir.path(), "door", &guest("admits"));
    server.wait_for(&["plugin in use", "door"]);
    let stranger = Ours.start(&client(Kind::Tunnel, port, "x.example:80", "", 1));
    stranger.wait_for(&["cannot connect", "not to this user"]);
    server.wait_for(&["connector refused", "not yours"]);
    drop(stranger);
    fs::write(dir.path().join("plugins.d/door.yaml"), "y").unwrap();
    eventually("the door is open", || (status(port, "y.example") == 0).then_some(()));
    let known = Ours.start(&client(Kind::Tunnel, port, "x.example:80", "", 1));
    assert!(known.wait_for(&["connected", "connector="]).contains("x.example:80"));
}
