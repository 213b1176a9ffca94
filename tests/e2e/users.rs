//! Users that come over the network: from a real Redis, from an HTTP server, and from GOST's plugins.

use crate::auth::ask;
use crate::support::Program::Ours;
use crate::support::redis::Redis;
use crate::support::relay::CONNECT;
use crate::support::source::{Says, Server};
use crate::support::{Proc, eventually, free_port, read_all, vectors};
use bytes::Bytes;

/// A tunnel server that asks this auther; its port. `direct`: whoever comes in may visit.
fn server(auther: &str) -> (Proc, u16) {
    let port = free_port();
    let program = Ours.start(&format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: tunnel, auther: staff, metadata: {{ tunnel.direct: true }} }}
authers:
- {{ name: staff, {auther} }}
"
    ));
    program.wait_for(&["listening", "role=\"service\""]);
    (program, port)
}

/// What a visitor without a right password gets, and one whose tunnel nobody serves.
const UNAUTHORIZED: u8 = 2;
const LET_IN: u8 = 5;

fn status(port: u16, user: &str, password: &str) -> u8 {
    ask(port, CONNECT, Some((user, password))).1
}

fn becomes(port: u16, user: &str, password: &str, expected: u8) {
    eventually(&format!("{expected} for {user}"), || {
        (status(port, user, password) == expected).then_some(())
    });
}

#[test]
fn users_in_redis_come_and_go() {
    let mut redis = Redis::start(&[], &[]);
    redis.command(&["HSET", "users", "ann", "her secret # 1", "bob", "two"]);
    let (program, port) = server(&format!(
        "auths: [{{ username: cid, password: three }}], reload: 1s, redis: {{ addr: '127.0.0.1:{}', key: users }}",
        redis.port
    ));
    assert_eq!(status(port, "ann", "her secret # 1"), LET_IN);
    assert_eq!(status(port, "ann", "her secret"), UNAUTHORIZED);
    assert_eq!((status(port, "bob", "two"), status(port, "cid", "three")), (LET_IN, LET_IN));
    redis.command(&["HDEL", "users", "bob"]);
    becomes(port, "bob", "two", UNAUTHORIZED);
    redis.command(&["HSET", "users", "ann", "another"]);
    becomes(port, "ann", "another", LET_IN);
    // The hash goes with its last field: whoever was in it must be out.
    redis.command(&["HDEL", "users", "ann"]);
    becomes(port, "ann", "another", UNAUTHORIZED);
    program.wait_for(&["nothing is listed there"]);
    redis.command(&["HSET", "users", "ann", "another"]);
    becomes(port, "ann", "another", LET_IN);
    redis.stop();
    program.wait_for(&["auther \\\"staff\\\"", "what it said before stays"]);
    assert_eq!((status(port, "ann", "another"), status(port, "bob", "two")), (LET_IN, UNAUTHORIZED));
    assert!(!program.log().contains("secret"), "{}", program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn users_behind_http_come_and_go() {
    let list = Server::http(Says::ok("\u{feff}ann one\n# bob two\n")).await;
    let (program, port) = server(&format!("reload: 1s, http: {{ url: 'http://127.0.0.1:{}/' }}", list.port));
    assert_eq!((status(port, "ann", "one"), status(port, "bob", "two")), (LET_IN, UNAUTHORIZED));
    list.say(Says::ok("bob two\nann\n"));
    program.wait_for(&["line 2: expected USER PASSWORD", "what it said before stays"]);
    assert_eq!((status(port, "ann", "one"), status(port, "bob", "two")), (LET_IN, UNAUTHORIZED));
    list.say(Says::ok("bob two\n"));
    becomes(port, "bob", "two", LET_IN);
    assert_eq!(status(port, "ann", "one"), UNAUTHORIZED);
    list.say(Says::ok(""));
    becomes(port, "bob", "two", UNAUTHORIZED);
}

/// What the reference asked its plugin, recorded; the visitor's port is another each time.
fn recorded() -> String {
    let text = vectors::text("28");
    let line = text.lines().find(|line| line.starts_with("POST /auth")).unwrap();
    line.rsplit(" | ").next().unwrap().split("127.0.0.1:").next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_behind_http_knows_users() {
    let plugin = Server::http(Says::ok("{\"ok\":true,\"id\":\"x\"}")).await;
    let (program, port) = server(&format!(
        "plugin: {{ type: http, addr: 'http://127.0.0.1:{}/auth', token: tok, timeout: 1s }}",
        plugin.port
    ));
    assert_eq!(status(port, "u1", "good"), LET_IN);
    let asked = plugin.asked().pop().unwrap();
    assert_eq!(
        (asked.line.as_str(), &asked.fields["authorization"]),
        ("POST /auth HTTP/1.1", &"Bearer tok".parse().unwrap())
    );
    let body = String::from_utf8(asked.body.to_vec()).unwrap();
    assert!(body.starts_with(&recorded()), "{body}");
    for says in [
        Says::ok("{\"ok\":false}"),
        Says::ok("{}"),
        Says::ok("no"),
        Says::status(401),
        Says { hangs: true, ..Says::ok("") },
    ] {
        plugin.say(says);
        assert_eq!(status(port, "u1", "good"), UNAUTHORIZED);
    }
    program.wait_for(&["plugin fails", "auther \\\"staff\\\"", "JSON"]);
    assert_eq!(ask(port, CONNECT, None).1, UNAUTHORIZED);
    plugin.say(Says::ok("{\"ok\":true}"));
    assert_eq!(status(port, "u1", "good"), LET_IN);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_behind_grpc_knows_users() {
    let known = |ok: u8| Says::ok(Bytes::from(vec![0, 0, 0, 0, 2, 8, ok]));
    let plugin = Server::grpc(known(1)).await;
    let (_program, port) = server(&format!("plugin: {{ addr: '127.0.0.1:{}' }}", plugin.port));
    let (mut visitor, status_of_first) = ask(port, CONNECT, Some(("u1", "good")));
    assert_eq!(status_of_first, LET_IN);
    drop(read_all(&mut visitor));
    let asked = plugin.asked().pop().unwrap();
    assert_eq!(asked.line, "POST /proto.Authenticator/Authenticate");
    assert!(asked.body[5..].starts_with(b"\x0a\x02u1\x12\x04good\x1a"), "{:?}", asked.body);
    assert!(asked.body.ends_with(b"\x22\x09service-0"), "{:?}", asked.body);
    plugin.say(known(0));
    assert_eq!(status(port, "u1", "good"), UNAUTHORIZED);
    plugin.say(Says::ok(Bytes::from_static(&[0; 5])));
    assert_eq!(status(port, "u1", "good"), UNAUTHORIZED);
}
