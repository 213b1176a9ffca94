//! What a node's `http` changes in requests and replies, whom it lets in, and what is told of where a request comes from.

use crate::support::Program::Ours;
use crate::support::{Proc, backend, curl, exchange, free_port, wait_for_port};

/// A reverse proxy with these handler metadata and nodes, and one more service that answers with what arrived at it.
fn proxy(metadata: &str, nodes: impl Fn(u16) -> String) -> (Proc, u16) {
    let [port, mirror] = [free_port(), free_port()];
    let nodes = nodes(mirror);
    let proxy = Ours.start(&format!(
        "services:
- name: front
  addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true, sniffing.timeout: 300ms, {metadata} }} }}
  forwarder:
    nodes:
{nodes}
- name: mirror
  addr: 127.0.0.1:{mirror}
  handler: {{ type: whoami }}
"
    ));
    [port, mirror].into_iter().for_each(wait_for_port);
    (proxy, port)
}

const REWRITING: &str = "
        host: inner.example:8080
        requestHeader: { X-Team: blue, x-secret: '' }
        responseHeader: { Server: none, Content-Type: '', X-Frame-Options: DENY }
        rewriteURL:
        - { match: '^/api/v1/(.*)$', replacement: '/v1/$1' }
        - { match: '^/user/([0-9]+)$', replacement: '/user?id=$1' }
        - { match: '^/api/', replacement: '/' }
";

#[test]
fn requests_and_replies_are_changed_as_the_node_says() {
    let (_proxy, port) = proxy("", |mirror| {
        format!("    - name: a\n      addr: 127.0.0.1:{mirror}\n      http:{REWRITING}\n")
    });
    for how in [&[][..], &["--http2-prior-knowledge"]] {
        let fields =
            ["-i", "-H", "X-Team: red", "-H", "X-Team: green", "-H", "X-Secret: s", "-H", "X-Other: o"];
        let all: Vec<_> = how.iter().chain(&fields).copied().collect();
        let (status, text) = curl("outer.example", port, "/api/v1/x?q=1", &all);
        let text = text.to_lowercase().replace('\r', "");
        assert_eq!(status, 200, "{text}");
        let (head, body) = text.split_once("\n\n").unwrap();
        for line in ["server: none", "x-frame-options: deny"] {
            assert!(head.lines().any(|l| l == line), "{line} in {head}");
        }
        assert!(!head.contains("content-type"), "{head}");
        for line in ["host: inner.example", "path: /v1/x?q=1", "x-team: blue", "x-other: o"] {
            assert!(body.lines().any(|l| l == line), "{line} in {body}");
        }
        assert!(how.len() == 1 || body.contains("\nhost: inner.example:8080\n"), "{body}");
        for word in ["red", "green", "secret", "outer"] {
            assert!(!body.contains(word), "{word} in {body}");
        }
        let path = |asked: &str| {
            let body = curl("outer.example", port, asked, how).1;
            body.lines().find_map(|line| line.strip_prefix("path: ").map(str::to_owned)).unwrap()
        };
        assert_eq!(path("/user/7?x=y"), "/user?id=7");
        assert_eq!(path("/api/v2/y"), "/v2/y");
        assert_eq!(path("/else/api/"), "/else/api/");
    }
    // A target that names the host itself would tell the node another one.
    let absolute =
        b"GET http://outer.example/z?q HTTP/1.1\r\nHost: outer.example\r\nConnection: close\r\n\r\n";
    let (reply, _) = exchange(port, absolute);
    assert!(reply.contains("\npath: /z?q\n") && !reply.contains("outer"), "{reply}");
}

#[test]
fn a_node_lets_in_whom_it_knows() {
    let (proxy, port) = proxy("", |mirror| {
        let node = |host: &str, auth: &str| {
            format!("    - {{ name: {host}, addr: '127.0.0.1:{mirror}', host: {host}.example, {auth} }}\n")
        };
        node("http", "http: { auth: { username: u, password: secret } }")
            + &node("node", "auth: { username: u, password: secret }")
            + &node("open", "")
            + &node(
                "kept",
                "http: { auth: { username: u, password: secret }, requestHeader: { Authorization: '' } }",
            )
            + &format!(
                "    - {{ name: raw, addr: '127.0.0.1:{mirror}', auth: {{ username: u, password: p }} }}\n"
            )
    });
    for how in [&[][..], &["--http2-prior-knowledge"]] {
        let ask = |host: &str, user: &str| {
            let user: &[&str] = if user.is_empty() { &[] } else { &["-u", user] };
            let all: Vec<_> = how.iter().chain(user).chain(&["-i"]).copied().collect();
            curl(&format!("{host}.example"), port, "/", &all)
        };
        for host in ["http", "node"] {
            let (status, reply) = ask(host, "");
            assert_eq!(status, 401, "{reply}");
            assert!(
                reply
                    .to_lowercase()
                    .contains("www-authenticate: basic realm=\"pointsman\", charset=\"utf-8\""),
                "{reply}"
            );
            assert_eq!(ask(host, "u:wrong").0, 401);
            assert_eq!(ask(host, "v:secret").0, 401);
            let (status, reply) = ask(host, "u:secret");
            assert!(status == 200 && reply.to_lowercase().contains("\nauthorization: basic "), "{reply}");
        }
        let (status, reply) = ask("kept", "u:secret");
        assert!(status == 200 && !reply.to_lowercase().contains("\nauthorization:"), "{reply}");
        assert_eq!(ask("open", "").0, 200);
    }
    proxy.wait_for(&["status=401", "outcome=\"unauthorized\"", "no user that the node lets in (http.auth)"]);
    // What is no HTTP to us may be HTTP to the node.
    let (reply, closed) = exchange(port, b"get / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(reply.is_empty() && closed, "{reply}");
    proxy.wait_for(&["connection", "node=\"raw\"", "outcome=\"unauthorized\""]);
}

/// The lines of `X-Forwarded-*` and of the client that a mirror behind an option saw.
fn forwarded(port: u16, more: &[&str]) -> Vec<String> {
    let (status, body) = curl("a.example", port, "/", more);
    assert_eq!(status, 200, "{body}");
    let lines = body.lines().map(str::to_lowercase);
    let told = ["x-forwarded-", "client:", "forwarded:", "x-real-ip:", "x_forwarded_for:"];
    let mut lines: Vec<_> = lines.filter(|l| told.iter().any(|name| l.starts_with(name))).collect();
    lines.iter_mut().filter(|line| line.starts_with("client: 127.0.0.1:")).for_each(|line| line.truncate(17));
    lines.sort_unstable();
    lines
}

#[test]
fn where_requests_come_from_is_told_and_believed_of_listed_proxies_only() {
    let node = |mirror| format!("    - {{ name: a, addr: '127.0.0.1:{mirror}' }}\n");
    let claim = ["-H", "X-Forwarded-For: 192.0.2.1, 192.0.2.7", "-H", "X-Forwarded-Proto: https"];
    let more =
        ["-H", "Forwarded: for=192.0.2.1", "-H", "X-Real-IP: 192.0.2.1", "-H", "X_Forwarded_For: 192.0.2.1"];
    for how in [&[][..], &["--http2-prior-knowledge"]] {
        let claim: Vec<_> = how.iter().chain(&claim).copied().collect();
        let claims: Vec<_> = claim.iter().chain(&more).copied().collect();
        let (_proxy, port) = proxy("http.routeHeader: true", node);
        assert_eq!(forwarded(port, how), ["client: 127.0.0.1"]);
        let passed =
            ["client: 127.0.0.1", "x-forwarded-for: 192.0.2.1, 192.0.2.7", "x-forwarded-proto: https"];
        assert_eq!(forwarded(port, &claim), passed);
        assert_eq!(forwarded(port, &claims).len(), passed.len() + 3);

        let (_proxy, port) = proxy("http.routeHeader: true, http.forwarded: true", node);
        let host = format!("x-forwarded-host: a.example:{port}");
        let own = ["client: 127.0.0.1", "x-forwarded-for: 127.0.0.1", &host, "x-forwarded-proto: http"];
        assert_eq!(forwarded(port, how), own);
        assert_eq!(forwarded(port, &claim), own);
        assert_eq!(forwarded(port, &claims), own, "nor by another name");

        let trusting =
            "http.routeHeader: true, http.forwarded: true, http.trustedProxies: '127.0.0.0/8, 10.0.0.1'";
        let (proxy, port) = proxy(trusting, node);
        let host = format!("x-forwarded-host: a.example:{port}");
        let told = [
            "client: 192.0.2.7:0",
            "x-forwarded-for: 192.0.2.1, 192.0.2.7, 127.0.0.1",
            &host,
            "x-forwarded-proto: https",
        ];
        assert_eq!(forwarded(port, &claim), told);
        let mut all = [&told[..], &["forwarded: for=192.0.2.1", "x-real-ip: 192.0.2.1"]].concat();
        all.sort_unstable();
        assert_eq!(forwarded(port, &claims), all);
        proxy.wait_for(&["request", "service=\"front\"", "client=192.0.2.7:0"]);
    }
}

/// Behind a proxy that is believed one connection carries many visitors, and each is who it is to rules and to PROXY headers.
#[test]
fn each_request_of_a_trusted_proxy_has_its_own_client() {
    let [port, mirror] = [free_port(), free_port()];
    let proxy = Ours.start(&format!(
        "services:
- name: front
  addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true, http.trustedProxies: [127.0.0.1], proxyProtocol: 1 }} }}
  forwarder:
    nodes:
    - {{ name: inside, addr: '127.0.0.1:{mirror}', matcher: {{ rule: 'ClientIP(`10.0.0.0/8`)' }} }}
- name: mirror
  addr: 127.0.0.1:{mirror}
  handler: {{ type: whoami }}
  metadata: {{ proxyProtocol: 1 }}
"
    ));
    [port, mirror].into_iter().for_each(wait_for_port);
    let request = |client: &str, more: &str| {
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n{more}\r\n")
    };
    let requests =
        request("10.1.1.1", "") + &request("10.2.2.2", "") + &request("192.0.2.1", "Connection: close\r\n");
    let (reply, _) = exchange(port, requests.as_bytes());
    for client in ["client: 10.1.1.1:0", "client: 10.2.2.2:0"] {
        assert!(reply.contains(client), "{client} in {reply}");
    }
    assert!(reply.contains("HTTP/1.1 502 "), "{reply}");
    proxy.wait_for(&["service=\"front\"", "client=192.0.2.1:0", "outcome=\"no_route\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_may_mark_a_node() {
    let good = backend::http("good").await;
    let (_proxy, port) = proxy("", |mirror| {
        format!(
            "    - {{ name: bad, addr: '127.0.0.1:{mirror}', http: {{ failCodes: '404, 2xx' }}, metadata: {{ failTimeout: 1h }} }}
    - {{ name: good, addr: '127.0.0.1:{good}', metadata: {{ backup: true }} }}
"
        )
    });
    assert!(curl("a", port, "/", &[]).1.contains("service: mirror"));
    for _ in 0..3 {
        assert!(curl("a", port, "/", &[]).1.starts_with("good "));
    }
}
