//! What a node's `http` asks for is done by both programs in the same way.
//!
//! But for two things, which GOST 3.3.0 does not do as it says: an empty value in `requestHeader` leaves an empty field, and a
//! `?` in the replacement of `rewriteURL` comes out as `%3F`. And for one that changes what is asked for: escapes that the pattern
//! has seen through are gone in the request that GOST sends.

use crate::support::Program::{Gost, Ours};
use crate::support::{Proc, Program, curl, free_port, wait_for_port};

/// What a target saw and what came back, as far as the file asks for a change.
fn changed(program: Program) -> Vec<String> {
    let (_running, port) = start(program);
    let mut seen = Vec::new();
    for path in ["/api/v1/x?q=1", "/foo/o?o", "/plain", "/%61pi/v1/x", "/api/v1/a%20b", "/api%2Fv1/x"] {
        let more = ["-i", "-H", "X-Team: red"];
        let (status, text) = curl("open.example", port, path, &more);
        let lines = text.lines().map(|line| line.trim().to_lowercase());
        let asked = ["host:", "path:", "x-team:", "x-frame-options:", "content-type:"];
        let named = lines.filter(|line| asked.iter().any(|name| line.starts_with(name)));
        // The order of fields means nothing.
        let mut named: Vec<_> = named.collect();
        named.sort_unstable();
        seen.push(format!("{path} {status} {named:?}"));
    }
    for user in [&[][..], &["-u", "u:wrong"], &["-u", "u:secret"]] {
        let more: Vec<_> = user.iter().chain(&["-i"]).copied().collect();
        let (status, text) = curl("closed.example", port, "/", &more);
        let asks = text.to_lowercase().contains("www-authenticate: basic");
        let passes = text.to_lowercase().contains("\nauthorization: basic");
        seen.push(format!("{user:?} {status} {asks} {passes}"));
    }
    seen
}

/// A proxy with such nodes before a mirror, and its port.
fn start(program: Program) -> ([Proc; 2], u16) {
    let [port, mirror] = [free_port(), free_port()];
    let behind = Ours.start(&format!(
        "services: [{{ name: mirror, addr: '127.0.0.1:{mirror}', handler: {{ type: whoami }}, listener: {{ type: tcp }} }}]\n"
    ));
    let proxy = program.start(&format!(
        "services:
- name: front
  addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: tcp }}
  forwarder:
    nodes:
    - name: open
      addr: 127.0.0.1:{mirror}
      host: open.example
      http:
        host: inner.example
        requestHeader: {{ X-Team: blue }}
        responseHeader: {{ X-Frame-Options: DENY, Content-Type: text/html }}
        rewriteURL:
        - {{ match: '^/api/v1/(.*)$', replacement: '/v1/$1' }}
        - {{ match: 'o', replacement: '0' }}
    - name: closed
      addr: 127.0.0.1:{mirror}
      host: closed.example
      http: {{ auth: {{ username: u, password: secret }} }}
"
    ));
    [port, mirror].into_iter().for_each(wait_for_port);
    ([proxy, behind], port)
}

#[test]
fn both_change_the_same() {
    assert_eq!(changed(Ours), changed(Gost));
}

/// `/a%2Fb` names one thing, `/a/b` one in another: a server behind GOST is asked for what nobody has asked for.
#[test]
fn escapes_outlive_a_replacement_here() {
    for (program, expected) in
        [(Ours, ["/v1/a%2Fb", "/v1/..%2F%2e%2e/b"]), (Gost, ["/v1/a/b", "/v1/../../b"])]
    {
        let (_running, port) = start(program);
        let sent = ["/api/v1/a%2Fb", "/api/v1/..%2F%2e%2e/b"].map(|path| {
            let text = curl("open.example", port, path, &["--path-as-is"]).1;
            text.lines().find_map(|line| line.strip_prefix("path: ").map(str::to_owned)).unwrap_or(text)
        });
        assert_eq!(sent, expected.map(str::to_owned));
    }
}
