//! The configurations of both ends of a row.

use super::{Kind, Row, TLS, TUNNEL, WEB, WS};

/// The targets: what they are called, and their ports.
pub(super) type Targets = [(&'static str, u16); 3];

/// Whoever takes the row's data channel at `port`, and visitors at `visit`.
pub(super) fn server(row: &Row, port: u16, visit: u16, targets: &Targets) -> String {
    let mux = row.mux();
    match row.kind {
        Kind::Tunnel => {
            let metadata = format!("entrypoint: '127.0.0.1:{visit}', ingress: ingress-0{mux}");
            let rules: String = [WEB, TLS, WS]
                .map(|host| format!("  - {{ hostname: {host}, endpoint: {TUNNEL} }}\n"))
                .concat();
            let ingress = format!("ingresses:\n- name: ingress-0\n  rules:\n{rules}");
            service(row, port, &format!("tunnel, metadata: {{ {metadata} }}")) + &ingress
        }
        Kind::Relay => service(row, port, &format!("relay, metadata: {{ bind: true{mux} }}")),
        Kind::Forward => service(row, port, "tcp, metadata: { sniffing: true }") + &forwarder(targets),
    }
}

fn service(row: &Row, port: u16, handler: &str) -> String {
    format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: {handler} }}
  listener: {}
",
        row.channel.yaml()
    )
}

fn forwarder(targets: &Targets) -> String {
    let nodes = targets
        .map(|(host, port)| format!("    - {{ name: {host}, addr: '127.0.0.1:{port}', host: {host} }}\n"));
    format!("  forwarder:\n    nodes:\n{}", nodes.concat())
}

/// Whoever dials `port`.
pub(super) fn client(row: &Row, port: u16, visit: u16, targets: &Targets) -> String {
    let mux = row.mux();
    let at = format!("127.0.0.1:{visit}");
    let (addr, kind, connector) = match row.kind {
        Kind::Tunnel => {
            (":0".to_owned(), "rtcp", format!("tunnel, metadata: {{ tunnel.id: {TUNNEL}{mux} }}"))
        }
        Kind::Relay => (at, "rtcp", format!("relay, metadata: {{ {} }}", mux.trim_start_matches(", "))),
        Kind::Forward => (at, "tcp", "forward".to_owned()),
    };
    // The chain is the way of what is bound there, or of what goes out.
    let [bound, out] = if kind == "rtcp" { [", chain: chain-0", ""] } else { ["", ", chain: chain-0"] };
    format!(
        "services:
- name: service-0
  addr: {addr}
  handler: {{ type: {kind}, metadata: {{ sniffing: true }}{out} }}
  listener: {{ type: {kind}{bound} }}
{}chains:
- name: chain-0
  hops:
  - name: hop-0
    nodes:
    - name: node-0
      addr: 127.0.0.1:{port}
      connector: {{ type: {connector} }}
      dialer: {}
",
        forwarder(targets),
        row.channel.yaml()
    )
}
