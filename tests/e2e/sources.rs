//! Rules that come over the network: from a real Redis, from HTTP servers, and from GOST's plugins.

use crate::support::Program::Ours;
use crate::support::matrix::TUNNEL;
use crate::support::redis::Redis;
use crate::support::source::{Says, Server};
use crate::support::{Proc, backend, curl, eventually, free_port, vectors};
use bytes::Bytes;

/// A server, and a client that serves its tunnel; where visitors come. `ingress`: what stands there beside the name.
async fn start(ingress: &str, environment: &[(&str, &str)]) -> (Proc, u16) {
    start_as(":0", ingress, environment).await
}

/// The same with a client that asks for a name.
async fn start_as(name: &str, ingress: &str, environment: &[(&str, &str)]) -> (Proc, u16) {
    let web = backend::http("web").await;
    let (port, visit) = (free_port(), free_port());
    let yaml = format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{visit}', ingress: i }} }}
- name: client
  addr: {name}
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: [{{ addr: '127.0.0.1:{web}' }}] }}
ingresses:
- {{ name: i, {ingress} }}
chains:
- name: c
  hops:
  - nodes: [{{ addr: '127.0.0.1:{port}', connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }} }} }}]
"
    );
    let program = Ours.start_with(&yaml, &[], environment);
    program.wait_for(&["connected", "connector="]);
    (program, visit)
}

fn status(visit: u16, host: &str) -> u16 {
    curl(host, visit, "/", &[]).0
}

fn becomes(visit: u16, host: &str, expected: u16) {
    eventually(&format!("{expected} for {host}"), || (status(visit, host) == expected).then_some(()));
}

const STAYS: &str = "what it said before stays";
const AGAIN: &str = "can be read again";

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_in_redis_is_followed_and_what_it_said_outlives_it() {
    let mut redis = Redis::start(&[], &[]);
    redis.command(&[
        "HSET",
        "gost",
        "old.host",
        TUNNEL,
        "*.wide.host",
        TUNNEL,
        "inline.host",
        &format!("${TUNNEL}"),
    ]);
    let ingress = format!(
        "rules: [{{ hostname: inline.host, endpoint: {TUNNEL} }}], reload: 1s, redis: {{ addr: '127.0.0.1:{}' }}",
        redis.port
    );
    let (program, visit) = start(&ingress, &[]).await;
    // They were there before the port opened.
    assert_eq!((status(visit, "old.host"), status(visit, "a.wide.host")), (200, 200));
    assert_eq!(status(visit, "inline.host"), 502, "the hash has it private");
    redis.command(&["HSET", "gost", "new.host", TUNNEL]);
    becomes(visit, "new.host", 200);
    redis.command(&["HDEL", "gost", "old.host", "inline.host"]);
    becomes(visit, "old.host", 502);
    assert_eq!(status(visit, "inline.host"), 200, "what is in the file is left");

    redis.stop();
    program.wait_for(&["ingress \\\"i\\\"", "hash", "Connection refused", STAYS]);
    assert_eq!((status(visit, "new.host"), status(visit, "old.host")), (200, 502));
    redis.run();
    // It comes back empty: it has lost what it had.
    program.wait_for(&["nothing is there any more", "a field # takes all rules away", STAYS]);
    assert_eq!(status(visit, "new.host"), 200);
    redis.command(&["SET", "gost", "text"]);
    program.wait_for(&["WRONGTYPE", "redis.type", STAYS]);
    redis.command(&["DEL", "gost"]);
    redis.command(&["HSET", "gost", "newer.host", TUNNEL, "bad.host", "7"]);
    program.wait_for(&["field \\\"bad.host\\\": no tunnel ID", STAYS]);
    assert_eq!((status(visit, "newer.host"), status(visit, "new.host")), (502, 200));
    redis.command(&["HDEL", "gost", "bad.host"]);
    becomes(visit, "newer.host", 200);
    assert_eq!(status(visit, "new.host"), 502);
    redis.command(&["HSET", "gost", "#", "no rules yet"]);
    redis.command(&["HDEL", "gost", "newer.host"]);
    becomes(visit, "newer.host", 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_in_redis_behind_a_password() {
    let redis = Redis::start(&["--requirepass", "hush"], &["-a", "hush", "-n", "2"]);
    redis.command(&["SADD", "hosts", &format!("one.host {TUNNEL} # ours"), "# nothing"]);
    redis.command(&["SADD", "hosts", &format!("two.host\t{TUNNEL}")]);
    let at = format!("addr: '127.0.0.1:{}', db: 2, key: hosts, type: set", redis.port);
    let (program, visit) =
        start(&format!("reload: 1s, redis: {{ {at}, username: default, password: hush }}"), &[]).await;
    assert_eq!((status(visit, "one.host"), status(visit, "two.host")), (200, 200));
    redis.command(&["SADD", "hosts", "short"]);
    program.wait_for(&["line 3, \\\"short\\\"", "expected two columns", STAYS]);
    assert_eq!(status(visit, "one.host"), 200);
    redis.command(&["DEL", "hosts"]);
    program.wait_for(&["nothing is there any more", "a member # takes all rules away", STAYS]);
    assert_eq!(status(visit, "one.host"), 200);
    assert!(!program.log().contains("hush"), "{}", program.log());

    for (password, told) in [("", "NOAUTH"), (", password: wrong", "WRONGPASS")] {
        let (program, visit) = start(&format!("reload: 1s, redis: {{ {at}{password} }}"), &[]).await;
        program.wait_for(&[told, "redis.password", "nothing comes from it until it is"]);
        assert_eq!(status(visit, "one.host"), 502);
    }
}

/// The program starts without its rules, and they come when they can.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_down_at_the_start_is_waited_for() {
    let mut redis = Redis::start(&[], &[]);
    redis.stop();
    let ingress = format!("reload: 1s, redis: {{ addr: '127.0.0.1:{}' }}", redis.port);
    let (program, visit) = start(&ingress, &[]).await;
    program.wait_for(&["nothing comes from it until it is"]);
    assert_eq!(status(visit, "known.host"), 502);
    redis.run();
    redis.command(&["HSET", "gost", "known.host", TUNNEL]);
    becomes(visit, "known.host", 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_behind_http_are_followed_and_outlive_every_failure() {
    let server = Server::http(Says::ok(format!("# hosts\n\nold.host {TUNNEL}\n"))).await;
    let port = server.port;
    let ingress = format!(
        "reload: 1s, http: {{ url: 'http://ann:s3cret@127.0.0.1:{port}/rules?key=hidden', timeout: 3s }}"
    );
    let (program, visit) = start(&ingress, &[]).await;
    assert_eq!(status(visit, "old.host"), 200);
    let asked = server.asked().remove(0);
    assert_eq!(asked.line, "GET /rules?key=hidden HTTP/1.1");
    assert_eq!(asked.fields["authorization"], "Basic YW5uOnMzY3JldA==");
    server.say(Says::ok(format!("new.host {TUNNEL}\n")));
    becomes(visit, "new.host", 200);
    assert_eq!(status(visit, "old.host"), 502);

    for (says, told) in [
        (Says::status(500), "the server answers 500"),
        (Says { location: Some("https://elsewhere.example/"), ..Says::status(302) }, "redirects (302) to"),
        (Says::ok("new.host\n"), "line 1, \\\"new.host\\\": expected two columns"),
        (Says::ok(format!("newer.host {TUNNEL}\nother.host 7")), "line 2, \\\"other.host\\\": no tunnel ID"),
        (Says::ok(format!("newer.host {TUNNEL}\na..b {TUNNEL}")), "line 2, \\\"a..b\\\": no host"),
        (Says::ok(""), "it is empty, which counts as a failure; a line with a # takes all rules away"),
        (Says::ok(&b"\xff"[..]), "not UTF-8"),
        (Says { hangs: true, ..Says::ok("") }, "not read within 3s (http.timeout)"),
    ] {
        server.say(says);
        program.wait_for(&[told, STAYS]);
        // It is said once, however often it is so.
        server.wait_for_requests(2);
        assert_eq!(program.log().matches(told).count(), 1, "{told}");
        assert_eq!((status(visit, "new.host"), status(visit, "newer.host")), (200, 502), "{told}");
    }
    drop(server);
    program.wait_for(&["Connection refused", STAYS]);
    let server = Server::http_at(port, Says::ok(format!("new.host {TUNNEL}\n"))).await;
    program.wait_for(&[AGAIN]);
    server.say(Says::ok(format!("\u{feff}newer.host {TUNNEL}\n* {TUNNEL}\n")));
    becomes(visit, "newer.host", 200);
    program.wait_for(&["a listed rule has no effect", "\"*\""]);
    program.wait_for(&["read", "source=", "entries=1"]);
    server.say(Says::ok("# none for now\n"));
    becomes(visit, "newer.host", 502);
    program.wait_for(&["nothing is listed there"]);
    let log = program.log();
    assert!(!log.contains("s3cret") && !log.contains("hidden"), "{log}");
}

/// There is nothing before it that could stay: the program starts, routes nothing by the list, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_entry_at_the_start_takes_the_list_away_and_not_the_program() {
    let server = Server::http(Says::ok(format!("known.host {TUNNEL}\nbad.host 7\n"))).await;
    let ingress = format!("reload: 1s, http: {{ url: 'http://127.0.0.1:{}/' }}", server.port);
    let (program, visit) = start(&ingress, &[]).await;
    program.wait_for(&["line 2, \\\"bad.host\\\"", "nothing comes from it until it is"]);
    assert_eq!(status(visit, "known.host"), 502);
    server.say(Says::ok(format!("known.host {TUNNEL}\n")));
    becomes(visit, "known.host", 200);
}

/// A request that comes with the first port must not miss its rule.
#[tokio::test(flavor = "multi_thread")]
async fn ports_open_when_every_list_has_been_looked_at() {
    let server = Server::http(Says { hangs: true, ..Says::ok("") }).await;
    let ingress = format!("http: {{ url: 'http://127.0.0.1:{}/', timeout: 1s }}", server.port);
    let (program, _) = start(&ingress, &[]).await;
    let log = program.log();
    let told = log.find("not read within 1s (http.timeout)").unwrap();
    assert!(log.find("listening").is_some_and(|open| told < open), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_behind_https_come_from_a_server_that_is_verified() {
    let (server, ca, _dir) = Server::https(Says::ok(format!("known.host {TUNNEL}\n"))).await;
    let ingress = format!("http: {{ url: 'https://localhost:{}/' }}", server.port);
    let (_program, visit) = start(&ingress, &[("SSL_CERT_FILE", ca.to_str().unwrap())]).await;
    assert_eq!(status(visit, "known.host"), 200);
    let (program, visit) = start(&ingress, &[]).await;
    program.wait_for(&["TLS", "nothing comes from it until it is"]);
    assert_eq!(status(visit, "known.host"), 502);
}

/// What the reference asked its plugin for, recorded.
fn recorded() -> String {
    let text = vectors::text("28");
    let line = text.lines().find(|line| line.contains("host=dash%3A80&")).unwrap();
    line.split(" | ").next().unwrap().to_owned()
}

fn json(endpoint: &str) -> Says {
    Says::ok(format!("{{\"endpoint\":\"{endpoint}\"}}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_behind_http_is_asked_as_gost_asks_it() {
    let server = Server::http(json(TUNNEL)).await;
    let port = server.port;
    let rules = format!(
        "rules: [{{ hostname: own.host, endpoint: {TUNNEL} }}, {{ hostname: kept.host, endpoint: ${TUNNEL} }}]"
    );
    let ingress = format!(
        "{rules}, plugin: {{ type: http, addr: 'http://127.0.0.1:{port}/ingress', token: tok, timeout: 1s }}"
    );
    let (program, visit) = start(&ingress, &[]).await;
    assert_eq!(status(visit, "any.host"), 200);
    curl("dash", visit, "/", &["-H", "Host: dash"]);
    let asked = server.asked().pop().unwrap();
    assert_eq!(asked.line, recorded());
    assert_eq!(
        (&asked.fields["authorization"], &asked.fields["content-type"]),
        (&"Bearer tok".parse().unwrap(), &"application/json".parse().unwrap())
    );
    assert_eq!(status(visit, "any.host"), 200);
    let with_port = format!("GET /ingress?host=any.host%3A{visit}&service=service-0 HTTP/1.1");
    assert_eq!(server.asked().pop().unwrap().line, with_port);
    assert_eq!(server.connections(), 1, "one connection serves one request after another");

    // A rule that is private keeps its host from the public, whatever the plugin says.
    assert_eq!(status(visit, "kept.host"), 502);
    server.say(json(&format!("${TUNNEL}")));
    assert_eq!(status(visit, "any.host"), 502);
    server.say(json(""));
    assert_eq!((status(visit, "any.host"), status(visit, "own.host")), (502, 200));

    for (says, told) in [
        (json("nowhere"), "endpoint \\\"nowhere\\\" is no tunnel ID"),
        (Says::status(503), "the server answers 503"),
    ] {
        server.say(says);
        assert_eq!((status(visit, "any.host"), status(visit, "own.host")), (502, 200), "{told}");
    }
    program.wait_for(&["plugin fails", "nowhere"]);
    server.say(Says { hangs: true, ..Says::ok("") });
    assert_eq!(status(visit, "own.host"), 200);
    drop(server);
    assert_eq!(status(visit, "own.host"), 200);
    let _server = Server::http_at(port, json(TUNNEL)).await;
    assert_eq!(status(visit, "any.host"), 200);
    program.wait_for(&["plugin answers again"]);
    assert!(!program.log().contains("tok\""));
}

/// What the reference told its plugin, recorded: the name made from the tunnel's ID, and the one that its client asked for.
fn recorded_names() -> Vec<String> {
    let text = vectors::text("28");
    let lines = text.lines().filter(|line| line.starts_with("PUT /ingress"));
    lines.map(|line| line.rsplit(" | ").next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_told_the_names_of_tunnels_as_gost_tells_them() {
    let server = Server::http(json("")).await;
    let plugin = format!("plugin: {{ type: http, addr: 'http://127.0.0.1:{}/ingress' }}", server.port);
    let _program = start_as("dash:8081", &plugin, &[]).await;
    let told = || {
        let asked = server.asked().into_iter().filter(|asked| asked.line == "PUT /ingress HTTP/1.1");
        asked.map(|asked| String::from_utf8(asked.body.to_vec()).unwrap()).collect::<Vec<_>>()
    };
    eventually("both names are told", || (told().len() >= 2).then_some(()));
    assert_eq!(told(), recorded_names());
    assert_eq!(server.asked().remove(0).line, "GET /ingress?host=dash&service=service-0 HTTP/1.1");

    let server = Server::grpc(message("")).await;
    let plugin = format!("plugin: {{ addr: '127.0.0.1:{}' }}", server.port);
    let _program = start_as("dash:8081", &plugin, &[]).await;
    let told =
        || server.asked().into_iter().filter(|asked| asked.line.ends_with("/SetRule")).collect::<Vec<_>>();
    eventually("both names are told", || (told().len() >= 2).then_some(()));
    let endpoint = [b"\x12\x24", TUNNEL.as_bytes(), b"\x1a\x09service-0"].concat();
    let names = [&b"\x0a\x10a6265c6d9847a4be"[..], b"\x0a\x04dash"].map(|name| [name, &endpoint].concat());
    let told: Vec<_> = told().iter().map(|asked| asked.body[5..].to_vec()).collect();
    assert_eq!(told, names);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_fails_refuses_if_it_is_told_to() {
    let port = free_port();
    let plugin = format!("plugin: {{ type: http, addr: 'http://127.0.0.1:{port}/', onError: refuse }}");
    let (_program, visit) =
        start(&format!("rules: [{{ hostname: own.host, endpoint: {TUNNEL} }}], {plugin}"), &[]).await;
    assert_eq!(status(visit, "own.host"), 500);
    let _server = Server::http_at(port, json("")).await;
    assert_eq!(status(visit, "own.host"), 200);
}

/// `RuleReply { endpoint }` with its prefix.
fn message(endpoint: &str) -> Says {
    let len = u8::try_from(endpoint.len()).unwrap();
    let field = if len == 0 { Vec::new() } else { [&[0x0a, len], endpoint.as_bytes()].concat() };
    Says::ok(Bytes::from([&[0, 0, 0, 0, u8::try_from(field.len()).unwrap()], &field[..]].concat()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_behind_grpc_is_asked_on_one_connection() {
    let server = Server::grpc(message(TUNNEL)).await;
    let port = server.port;
    let rules = format!(
        "rules: [{{ hostname: own.host, endpoint: {TUNNEL} }}, {{ hostname: kept.host, endpoint: ${TUNNEL} }}]"
    );
    // As in GOST, without a type it is gRPC.
    let ingress = format!("{rules}, plugin: {{ addr: '127.0.0.1:{port}', token: tok, timeout: 1s }}");
    let (program, visit) = start(&ingress, &[]).await;
    for _ in 0..3 {
        assert_eq!(status(visit, "any.host"), 200);
    }
    assert_eq!(server.connections(), 1);
    let asked = server.asked().pop().unwrap();
    assert_eq!(
        (asked.line.as_str(), &asked.fields["token"]),
        ("POST /proto.Ingress/GetRule", &"tok".parse().unwrap())
    );
    let host = format!("any.host:{visit}");
    let expected =
        [&[0x0a, u8::try_from(host.len()).unwrap()], host.as_bytes(), b"\x12\x09service-0"].concat();
    assert_eq!(asked.body[5..], expected);
    assert_eq!((status(visit, "kept.host"), status(visit, "own.host")), (502, 200));
    server.say(message(""));
    assert_eq!((status(visit, "any.host"), status(visit, "own.host")), (502, 200));
    server.say(Says::status(13));
    assert_eq!(status(visit, "own.host"), 200);
    program.wait_for(&["plugin fails", "gRPC status 13", "not today"]);
    server.say(message(TUNNEL));
    assert_eq!(status(visit, "any.host"), 200);
    server.say(Says { hangs: true, ..Says::ok("") });
    assert_eq!((status(visit, "own.host"), status(visit, "any.host")), (200, 502));
    drop(server);
    assert_eq!((status(visit, "own.host"), status(visit, "any.host")), (200, 502));
    let _server = Server::grpc_at(port, message(TUNNEL)).await;
    becomes(visit, "any.host", 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_behind_grpc_and_tls_is_verified_if_that_is_asked_for() {
    let (server, ca, _dir) = Server::grpcs(message(TUNNEL)).await;
    let plugin =
        |tls: &str| format!("plugin: {{ type: grpc, addr: 'localhost:{}', tls: {{ {tls} }} }}", server.port);
    let (_program, visit) = start(&plugin(&format!("secure: true, caFile: '{}'", ca.display())), &[]).await;
    assert_eq!(status(visit, "any.host"), 200);
    let (program, visit) = start(&plugin("secure: true"), &[]).await;
    assert_eq!(status(visit, "any.host"), 502);
    program.wait_for(&["plugin fails", "TLS"]);
    let (program, visit) = start(&plugin(""), &[]).await;
    assert_eq!(status(visit, "any.host"), 200);
    program.wait_for(&["IS NOT VERIFIED"]);
}
