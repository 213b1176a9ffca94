//! Who gets in by which password, at a server of any make.

use super::matrix::{Kind, TUNNEL};
use super::{Proc, Program, backend, curl, eventually, free_port, replace, wait_for_port};
use std::path::Path;

/// A server that asks for users of auther `staff`; its port, and where visitors come.
fn server(kind: Kind, program: Program, staff: &str) -> (Proc, u16, u16) {
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
{staff}"
    ));
    wait_for_port(port);
    (server, port, visit)
}

/// The users in that file.
pub(crate) fn staff(users: &Path) -> String {
    format!("authers:\n- {{ name: staff, file: {{ path: '{}' }} }}\n", users.display())
}

/// Where a client serves: a name, or a port of the server's.
fn bind(kind: Kind, visit: u16) -> String {
    match kind {
        Kind::Tunnel => ":0".to_owned(),
        Kind::Relay => format!("127.0.0.1:{visit}"),
        Kind::Forward => unreachable!("nobody is asked for a password there"),
    }
}

/// A tunnel server of ours; its tunnel port and its entrypoint. `keys`: those of the handler beside its metadata, of which
/// `metadata` is more; `sections`: more of the file.
pub(crate) fn tunnel_server(keys: &str, metadata: &str, sections: &str) -> (Proc, u16, u16) {
    let (port, visit) = (free_port(), free_port());
    let server = Program::Ours.start(&format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: tunnel{keys}, metadata: {{ entrypoint: '127.0.0.1:{visit}', ingress: i{metadata} }} }}
  listener: {{ type: tcp }}
ingresses:
- {{ name: i, rules: [{{ hostname: known.host, endpoint: {TUNNEL} }}] }}
{sections}"
    ));
    server.wait_for(&["listening", "role=\"service\""]);
    (server, port, visit)
}

/// A client that asks for the name or address in `bind`; `auth`: more keys of its connector, such as [`user`] makes.
pub(crate) fn client(kind: Kind, port: u16, bind: &str, auth: &str, web: u16) -> String {
    let connector = match kind {
        Kind::Tunnel => format!("type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }}"),
        Kind::Relay => "type: relay".to_owned(),
        Kind::Forward => unreachable!("nobody is asked for a password there"),
    };
    format!(
        "services:
- name: service-0
  addr: {bind}
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{web}' }}] }}
{}",
        chain(port, &format!("{connector}{auth}"))
    )
}

/// `auth` of a connector.
pub(crate) fn user(name: &str, password: &str) -> String {
    format!(", auth: {{ username: {name}, password: '{password}' }}")
}

/// Only the right password lets a client serve; `told` is what the one or the other says of a wrong one.
pub(crate) async fn passwords(kind: Kind, server_program: Program, client_program: Program, told: [&str; 2]) {
    let web = backend::http("web").await;
    let staff = "authers: [{ name: staff, auths: [{ username: ann, password: 'her:own secret' }] }]\n";
    let (server, port, visit) = server(kind, server_program, staff);
    let start = |auth: &str| client_program.start(&client(kind, port, &bind(kind, visit), auth, web));
    for auth in [String::new(), user("ann", "wrong"), user("bob", "her:own secret")] {
        let said = || server.log().matches(told[0]).count();
        let before = said();
        let stranger = start(&auth);
        eventually(&format!("a client with{auth} is told no"), || {
            (said() > before || stranger.log().contains(told[1])).then_some(())
        });
        assert_ne!(curl("known.host", visit, "/", &[]).0, 200, "{auth}");
    }
    let _client = start(&user("ann", "her:own secret"));
    answers(visit, 200);
}

/// A client at our server is cut when its user is gone from the file, and comes in again when it is back.
pub(crate) async fn revocation(kind: Kind, program: Program) {
    let web = backend::http("web").await;
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    replace(&users, "ann one\n");
    let (server, port, visit) = server(kind, Program::Ours, &staff(&users));
    let start = || program.start(&client(kind, port, &bind(kind, visit), &user("ann", "one"), web));
    let ann = start();
    answers(visit, 200);
    replace(&users, "# nobody\n");
    server.wait_for(&[match kind {
        Kind::Tunnel => "its user may no longer serve this tunnel",
        Kind::Relay => "port closed",
        Kind::Forward => unreachable!("nobody is asked for a password there"),
    }]);
    server.wait_for(&["wrong user name or password"]);
    assert_ne!(curl("known.host", visit, "/", &[]).0, 200);
    // The next try of ours with a wrong password is up to 30 s away.
    drop(ann);
    replace(&users, "ann one\n");
    let _ann = start();
    answers(visit, 200);
}

/// Who may serve a tunnel of ours, and who visits it by its ID.
pub(crate) async fn owners(program: Program) {
    let web = backend::http("web").await;
    let owned = format!(", tunnels: [{{ id: {TUNNEL}, credentials: [{{ username: ann, password: one }}] }}]");
    let (server, port, public) = tunnel_server("", &owned, "");
    let start = |user: &str| program.start(&client(Kind::Tunnel, port, ":0", user, web));
    for (user, told) in
        [(String::new(), "no user name and password"), (user("ann", "two"), "wrong user name or password")]
    {
        let _stranger = start(&user);
        server.wait_for(&["connector refused", told]);
        assert_ne!(curl("known.host", public, "/", &[]).0, 200, "{user}");
    }
    let _ann = start(&user("ann", "one"));
    answers(public, 200);
    for (user, status) in [(user("ann", "one"), Some(200)), (user("ann", "two"), None), (String::new(), None)]
    {
        let visit = free_port();
        let visitor = program.start(&visitor(port, visit, &user));
        wait_for_port(visit);
        if let Some(status) = status {
            answers(visit, status);
        } else {
            let got = curl("known.host", visit, "/", &[]);
            assert!(got.0 != 200 && !got.1.contains("web "), "{user}: {got:?}");
        }
        drop(visitor);
    }
    server.wait_for(&["outcome=\"unauthorized\"", "wrong user name or password"]);
    server.wait_for(&["outcome=\"unauthorized\"", "no user name and password"]);
}

/// Takes connections for `known.host` into the tunnel; `auth`: more keys of its connector.
fn visitor(port: u16, visit: u16, auth: &str) -> String {
    format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{visit}
  handler: {{ type: tcp, chain: c }}
  listener: {{ type: tcp }}
  forwarder: {{ nodes: [{{ name: n, addr: 'known.host:80' }}] }}
{}",
        chain(port, &format!("type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }}{auth}"))
    )
}

fn chain(port: u16, connector: &str) -> String {
    format!(
        "chains:
- name: c
  hops: [{{ name: h, nodes: [{{ name: s, addr: '127.0.0.1:{port}', connector: {{ {connector} }}, dialer: {{ type: tcp }} }}] }}]
"
    )
}

/// What a visitor of the tunnel gets at last.
pub(crate) fn answers(visit: u16, expected: u16) {
    eventually(&format!("{expected} at the entrypoint"), || {
        (curl("known.host", visit, "/", &[]).0 == expected).then_some(())
    });
}
