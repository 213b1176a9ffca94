//! What the real program was seen to do, row by row of its recorded tables, against ours: the same, or different for a reason
//! that stands in the row.

mod client;
mod colon_port;
mod http_cases;
mod http_rows;
mod probes;
mod server_name;

use crate::support::Program::Ours;
use crate::support::matrix::TUNNEL;
use crate::support::{Proc, free_port};

/// The tunnel that the rules of the recordings mark private.
const PRIVATE: &str = "ac74d9dd-3125-442a-a7c1-f9e49e05faca";

/// A server with the rules of the recordings, one host whose tunnel nobody serves, and short times; its tunnel port and its
/// entrypoint.
fn server() -> (Proc, u16, u16) {
    let (port, visit) = (free_port(), free_port());
    let server = Ours.start(&format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler:
    type: tunnel
    metadata: {{ entrypoint: '127.0.0.1:{visit}', ingress: i, entrypoint.readTimeout: 1s, sniffing.timeout: 300ms,
      sniffing.clientHelloTimeout: 300ms }}
ingresses:
- name: i
  rules:
  - {{ hostname: srv-0.local, endpoint: {TUNNEL} }}
  - {{ hostname: mute.local, endpoint: {TUNNEL} }}
  - {{ hostname: '*.wild.local', endpoint: {TUNNEL} }}
  - {{ hostname: srv-1.local, endpoint: ${PRIVATE} }}
  - {{ hostname: empty.local, endpoint: 11111111-2222-4333-8444-555555555555 }}
"
    ));
    server.wait_for(&["listening", "role=\"service\""]);
    (server, port, visit)
}
