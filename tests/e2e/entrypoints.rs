//! Several entrypoints of one tunnel server, and what its ingress means to visitors that know a tunnel's ID.

use crate::support::Program::Ours;
use crate::support::auth::{answers, client, tunnel_server};
use crate::support::eventually;
use crate::support::matrix::{Kind, TUNNEL};
use crate::support::relay::{BIND, CONNECT, ask};
use crate::support::{backend, curl, free_port};

/// Each has its own ingress, or that of the handler; the tunnels are the same.
#[tokio::test(flavor = "multi_thread")]
async fn entrypoints_have_rules_of_their_own() {
    let web = backend::http("web").await;
    let [second, third] = [free_port(), free_port()];
    let more = format!(
        ", entrypoints: [{{ addr: '127.0.0.1:{second}', ingress: j }}, {{ addr: '127.0.0.1:{third}' }}]"
    );
    let other = format!("- {{ name: j, rules: [{{ hostname: other.host, endpoint: {TUNNEL} }}] }}\n");
    let (server, port, first) = tunnel_server("", &more, &other);
    let _client = Ours.start(&client(Kind::Tunnel, port, ":0", "", web));
    answers(first, 200);
    for (visit, host, status) in [
        (first, "known.host", 200),
        (first, "other.host", 502),
        (second, "known.host", 502),
        (second, "other.host", 200),
        (third, "known.host", 200),
        (third, "other.host", 502),
    ] {
        assert_eq!(curl(host, visit, "/", &[]).0, status, "{host} at {visit}");
    }
    for visit in [first, second, third] {
        server.wait_for(&["listening", "role=\"entrypoint\"", &format!(":{visit}")]);
    }
}

/// With `tunnel.direct` the ID is enough; without, the host has to lead there. It is no business of the entrypoint's.
#[test]
fn visitors_that_know_the_id_need_a_rule_unless_the_way_is_direct() {
    for (direct, expected) in
        [("", [0, 0, 6, 6]), (", tunnel.direct: false", [0, 0, 6, 6]), (", tunnel.direct: true", [0; 4])]
    {
        let (port, visit) = (free_port(), free_port());
        let server = Ours.start(&format!(
            "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{visit}', ingress: i{direct} }} }}
ingresses:
- name: i
  rules:
  - {{ hostname: known.host, endpoint: {TUNNEL} }}
  - {{ hostname: private.host, endpoint: ${TUNNEL} }}
  - {{ hostname: other.host, endpoint: ac74d9dd-3125-442a-a7c1-f9e49e05faca }}
"
        ));
        server.wait_for(&["listening", "role=\"service\""]);
        let _connector = ask(port, BIND, "", false);
        // It is told so a moment before.
        eventually("the connector serves", || (ask(port, CONNECT, "known.host", false).1 == 0).then_some(()));
        let hosts = ["known.host", "private.host", "other.host", "unknown.host"];
        assert_eq!(hosts.map(|host| ask(port, CONNECT, host, false).1), expected, "{direct}");
        for host in ["private.host", "unknown.host"] {
            assert_eq!(curl(host, visit, "/", &[]).0, 502, "{host}{direct}");
        }
    }
}
