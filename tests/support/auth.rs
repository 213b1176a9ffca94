//! Who gets in by which password, at a server of any make.

use super::matrix::{Kind, TUNNEL};
use super::{Proc, Program, backend, curl, eventually, free_port, wait_for_port};

/// A server that asks for `ann` and her password; its port, and where visitors come.
fn server(kind: Kind, program: Program) -> (Proc, u16, u16) {
    let (port, visit) = (free_port(), free_port());
    let (handler, metadata) = match kind {
        Kind::Tunnel => ("tunnel", format!("entrypoint: '127.0.0.1:{visit}', ingress: i")),
        Kind::Relay => ("relay", "bind: true".to_owned()),
        Kind::Forward => unreachable!("nobody is asked for a password there"),
    };
    let server = program.start(&format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: {handler}, auther: staff, metadata: {{ {metadata} }} }}
  listener: {{ type: tcp }}
ingresses:
- {{ name: i, rules: [{{ hostname: known.host, endpoint: {TUNNEL} }}] }}
authers:
- {{ name: staff, auths: [{{ username: ann, password: 'her:own secret' }}] }}
"
    ));
    wait_for_port(port);
    (server, port, visit)
}

fn client(kind: Kind, program: Program, port: u16, visit: u16, auth: &str, web: u16) -> Proc {
    let (bind, connector) = match kind {
        Kind::Tunnel => (":0".to_owned(), format!("type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }}")),
        Kind::Relay => (format!("127.0.0.1:{visit}"), "type: relay".to_owned()),
        Kind::Forward => unreachable!("nobody is asked for a password there"),
    };
    program.start(&format!(
        "services:
- name: service-0
  addr: {bind}
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{web}' }}] }}
chains:
- name: c
  hops: [{{ name: h, nodes: [{{ name: s, addr: '127.0.0.1:{port}', connector: {{ {connector}{auth} }}, dialer: {{ type: tcp }} }}] }}]
"
    ))
}

/// Only the right password lets a client serve; `told` is what the one or the other says of a wrong one.
pub(crate) async fn passwords(kind: Kind, server_program: Program, client_program: Program, told: [&str; 2]) {
    let web = backend::http("web").await;
    let (server, port, visit) = server(kind, server_program);
    for auth in [
        "",
        ", auth: { username: ann, password: wrong }",
        ", auth: { username: bob, password: 'her:own secret' }",
    ] {
        let said = || server.log().matches(told[0]).count();
        let before = said();
        let stranger = client(kind, client_program, port, visit, auth, web);
        eventually(&format!("a client with{auth} is told no"), || {
            (said() > before || stranger.log().contains(told[1])).then_some(())
        });
        assert_ne!(curl("known.host", visit, "/", &[]).0, 200, "{auth}");
    }
    let _client = client(
        kind,
        client_program,
        port,
        visit,
        ", auth: { username: ann, password: 'her:own secret' }",
        web,
    );
    eventually("the right password lets in", || (curl("known.host", visit, "/", &[]).0 == 200).then_some(()));
}
