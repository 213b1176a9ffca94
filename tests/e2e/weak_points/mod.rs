//! The weak points of the reference (section 9.2 of the wire specification), one test each, named after them.
//!
//! Here: 1 (the bound on connectors and its log line; binding an ID to a user comes with authentication), 3, 6, 7, 9, 10, 11, 12,
//! 13, 15, 16, 18, 19, 22 and 24. In `tunnel`: 2 and 3 (`strangers_do_not_harm_a_connector`), 4 and 5
//! (`one_slow_stream_does_not_hold_up_the_others`), 14 (`a_hung_or_dead_connector_costs_no_request` and
//! `every_visitor_passes_over_a_hung_connector`). In `http`: 9
//! (`a_reply_without_length_ends`), 21 (`unasked_bytes_on_an_idle_upstream_end_it`), 22 (`descriptors_run_out_and_come_back`),
//! 23 (`ambiguous_requests_are_refused`). Ingress files (8), TLS data channels (17) and plugins (25) come with those parts.

mod bounds;
mod peers;
mod retries;
mod routing;
mod waits;

use crate::support::matrix::TUNNEL;
use crate::support::{Proc, Program::Ours, free_port};

/// A tunnel server with one public host; its tunnel port and its entrypoint.
fn server(metadata: &str) -> (Proc, u16, u16) {
    let (port, visit) = (free_port(), free_port());
    let server = Ours.start(&format!(
        "services:
- name: server
  addr: 127.0.0.1:{port}
  handler:
    type: tunnel
    metadata: {{ entrypoint: '127.0.0.1:{visit}', ingress: i{metadata} }}
ingresses: [{{ name: i, rules: [{{ hostname: known.host, endpoint: {TUNNEL} }}] }}]
"
    ));
    server.wait_for(&["listening", "role=\"service\""]);
    (server, port, visit)
}

/// A client of that server; `service` is the handler's and the forwarder's part.
fn client(port: u16, service: &str) -> Proc {
    let client = Ours.start(&client_yaml(port, service));
    client.wait_for(&["connected", "connector="]);
    client
}

fn client_yaml(port: u16, service: &str) -> String {
    format!(
        "services:
- name: client
  addr: :0
  listener: {{ type: rtcp, chain: c, metadata: {{ handshakeTimeout: 1s }} }}
{service}
chains:
- name: c
  hops:
  - nodes:
    - {{ name: server, addr: '127.0.0.1:{port}', connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }} }} }}
"
    )
}

/// Handler and forwarder with one node for everything.
fn to(target: u16) -> String {
    format!(
        "  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{target}' }}] }}"
    )
}

fn get(path: &str, host: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes()
}
