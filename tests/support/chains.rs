//! Chains between programs of any make: visitors of a tunnel, hops on the way to its server, and proxies.

use super::matrix::{self, Channel, TUNNEL};
use super::{Proc, Program, backend, curl, eventually, free_port, wait_for_port};

/// The tunnel behind a private rule.
const PRIVATE: &str = "ac74d9dd-3125-442a-a7c1-f9e49e05faca";
/// What a public entrypoint elsewhere calls itself.
const ELSEWHERE: &str = "9fd6c586-86f9-49c1-a03a-d4876851695a";

/// A node of a chain.
fn node(port: u16, connector: &str, channel: Channel) -> String {
    let dialer = channel.yaml();
    format!("{{ name: n{port}, addr: '127.0.0.1:{port}', connector: {connector}, dialer: {dialer} }}")
}

pub(crate) fn tunnel(id: &str) -> String {
    format!("{{ type: tunnel, metadata: {{ tunnel.id: {id} }} }}")
}

/// A chain; each hop is a list of nodes.
pub(crate) fn chain(hops: &[Vec<String>]) -> String {
    let hops: String = hops
        .iter()
        .enumerate()
        .map(|(i, nodes)| {
            let selector = "{ strategy: fifo, maxFails: 1, failTimeout: 60s }";
            format!("  - {{ name: hop-{i}, selector: {selector}, nodes: [{}] }}\n", nodes.join(", "))
        })
        .collect();
    format!("chains:\n- name: chain-0\n  hops:\n{hops}")
}

/// A tunnel server behind a data channel; its tunnel port and its entrypoint.
pub(crate) fn server(program: Program, channel: Channel) -> (Proc, u16, u16) {
    let (port, visit) = (free_port(), free_port());
    let server = program.start(&format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler:
    type: tunnel
    metadata: {{ entrypoint: '127.0.0.1:{visit}', ingress: ingress-0, entrypoint.id: {ELSEWHERE} }}
  listener: {}
ingresses:
- name: ingress-0
  rules:
  - {{ hostname: srv-0.local, endpoint: {TUNNEL} }}
  - {{ hostname: srv-1.local, endpoint: ${PRIVATE} }}
",
        channel.yaml()
    ));
    channel.wait_for(port);
    wait_for_port(visit);
    (server, port, visit)
}

/// A client that serves these targets by their protocol.
pub(crate) fn client(program: Program, chain: &str, http: u16, tls: u16) -> Proc {
    program.start(&format!(
        "services:
- name: service-0
  addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: chain-0 }}
  forwarder:
    nodes:
    - {{ name: web, addr: '127.0.0.1:{http}', filter: {{ protocol: http }} }}
    - {{ name: tls, addr: '127.0.0.1:{tls}', filter: {{ protocol: tls }} }}
{chain}"
    ))
}

/// A service that takes connections through the chain.
pub(crate) fn visitor(program: Program, chain: &str, metadata: &str, target: Option<&str>) -> (Proc, u16) {
    let visit = free_port();
    let nodes = target.map(|addr| format!("  forwarder: {{ nodes: [{{ name: n, addr: '{addr}' }}] }}\n"));
    let process = program.start(&format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{visit}
  handler: {{ type: tcp, chain: chain-0, metadata: {{ {metadata} }} }}
  listener: {{ type: tcp }}
{}{chain}",
        nodes.unwrap_or_default()
    ));
    wait_for_port(visit);
    (process, visit)
}

pub(crate) fn answers(visit: u16, host: &str, name: &str) {
    eventually(&format!("{host} is answered by {name}"), || {
        let (status, body) = curl(host, visit, "/x", &[]);
        (status == 200 && body.starts_with(&format!("{name} "))).then_some(())
    });
}

/// Neither a good answer nor anything of the target.
fn refused(visit: u16, host: &str) {
    let (status, body) = curl(host, visit, "/x", &[]);
    assert!(status != 200 && !body.contains("web "), "{host}: {status} {body}");
}

/// Who reaches a private tunnel, and who a public one from an entrypoint elsewhere (sections 2.5 and 4.5).
pub(crate) async fn visitors(server_program: Program, client_program: Program, visitor_program: Program) {
    let web = backend::http("web").await;
    let (tls, ca, _dir) = backend::https("tls", "srv-1.local").await;
    let (_server, port, public) = server(server_program, Channel::TCP);
    let to = |id| chain(&[vec![node(port, &tunnel(id), Channel::TCP)]]);
    let _clients = [TUNNEL, PRIVATE].map(|id| client(client_program, &to(id), web, tls));
    answers(public, "srv-0.local", "web");
    refused(public, "srv-1.local");

    // Named by the forwarder, whatever is said inside.
    let (_named, visit) = visitor(visitor_program, &to(PRIVATE), "", Some("srv-1.local"));
    answers(visit, "whatever.local", "web");
    matrix::download("whatever.local", visit, 20_000_000, true);
    let (_stranger, visit) = visitor(visitor_program, &to(TUNNEL), "", Some("srv-1.local"));
    refused(visit, "whatever.local");

    // Named by each request, and by the server name of TLS.
    let (_sniffing, visit) = visitor(visitor_program, &to(PRIVATE), "sniffing: true", None);
    answers(visit, "srv-1.local", "web");
    let (status, body) = curl("srv-1.local", visit, "/x", &["--cacert", ca.to_str().unwrap()]);
    assert!(status == 200 && body.starts_with("tls "), "{status} {body}");
    for host in ["srv-0.local", "nope.local"] {
        refused(visit, host);
    }

    let (_elsewhere, visit) = visitor(visitor_program, &to(ELSEWHERE), "sniffing: true", None);
    answers(visit, "srv-0.local", "web");
    for host in ["srv-1.local", "nope.local"] {
        refused(visit, host);
    }
}

fn relay(program: Program, channel: Channel) -> (Proc, u16) {
    let port = free_port();
    let relay = program.start(&format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: relay }}
  listener: {}
",
        channel.yaml()
    ));
    channel.wait_for(port);
    (relay, port)
}

/// Clients and visitors reach their server through a relay; when that is gone, through the next.
pub(crate) async fn through_relays(
    relay_program: Program,
    server_program: Program,
    client_program: Program,
    channels: [&'static str; 2],
) {
    let channels = channels.map(Channel::new);
    let web = backend::http("web").await;
    let (mut first, one) = relay(relay_program, channels[0]);
    let (_second, other) = relay(relay_program, channels[0]);
    let (_server, port, public) = server(server_program, channels[1]);
    let relays = [one, other].map(|port| node(port, "{ type: relay }", channels[0]));
    let to = |id| chain(&[relays.to_vec(), vec![node(port, &tunnel(id), channels[1])]]);
    let _client = client(client_program, &to(TUNNEL), web, web);
    answers(public, "srv-0.local", "web");
    let (_visitor, visit) = visitor(client_program, &to(TUNNEL), "", Some("srv-0.local"));
    answers(visit, "srv-0.local", "web");
    // A relay is also the end of a chain.
    let end = chain(&[relays.to_vec()]);
    let (_plain, plain) = visitor(client_program, &end, "", Some(&format!("127.0.0.1:{web}")));
    answers(plain, "srv-0.local", "web");
    first.kill();
    for visit in [public, visit, plain] {
        answers(visit, "srv-0.local", "web");
    }
}

/// The way out through a proxy that asks for a password; `kind` is its handler's name and the connector's.
pub(crate) async fn through_a_proxy(
    proxy_program: Program,
    server_program: Program,
    client_program: Program,
    kind: &str,
) {
    let web = backend::http("web").await;
    let proxy = free_port();
    let _proxy = proxy_program.start(&format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{proxy}
  handler: {{ type: {kind}, auth: {{ username: user, password: 'p:ss' }} }}
  listener: {{ type: tcp }}
"
    ));
    wait_for_port(proxy);
    let (_server, port, public) = server(server_program, Channel::TCP);
    let hop = |password: &str| {
        let auth = format!("auth: {{ username: user, password: '{password}' }}");
        vec![node(proxy, &format!("{{ type: {kind}, {auth} }}"), Channel::TCP)]
    };
    let to_server = |password| chain(&[hop(password), vec![node(port, &tunnel(TUNNEL), Channel::TCP)]]);
    let wrong = client(client_program, &to_server("wrong"), web, web);
    wrong.wait_for(&["cannot connect", "mend connector.auth"]);
    drop(wrong);
    let _client = client(client_program, &to_server("p:ss"), web, web);
    answers(public, "srv-0.local", "web");
    let (_plain, plain) =
        visitor(client_program, &chain(&[hop("p:ss")]), "", Some(&format!("127.0.0.1:{web}")));
    answers(plain, "srv-0.local", "web");
    let nobody = free_port();
    let (gone, visit) = visitor(
        client_program,
        &chain(&[hop("p:ss")]),
        "sniffing: true",
        Some(&format!("127.0.0.1:{nobody}")),
    );
    assert_eq!(curl("srv-0.local", visit, "/x", &[]).0, 503);
    gone.wait_for(&["node failed", &format!("n{proxy}")]);
}
