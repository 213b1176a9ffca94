//! The configuration that pointsman and GOST share.

use super::{Channel, Proxy, Tunnel};

/// A reverse proxy that routes by what it sniffs.
pub(super) fn proxy(task: &Proxy) -> String {
    let node =
        |(host, port): &(String, u16)| format!("{{ name: {host}, addr: '127.0.0.1:{port}', host: {host} }}");
    let nodes = task.targets.iter().map(node).collect::<Vec<_>>().join(", ");
    format!(
        "log: {{ level: error }}
services:
- name: proxy
  addr: 127.0.0.1:{}
  handler: {{ type: tcp, metadata: {{ sniffing: true, http.keepalive: true }} }}
  listener: {{ type: tcp }}
  forwarder: {{ nodes: [{nodes}] }}
",
        task.port
    )
}

/// A tunnel server; `ingress` is what decides.
pub(super) fn server(task: &Tunnel, ingress: &str) -> String {
    format!(
        "log: {{ level: error }}
services:
- name: server
  addr: 127.0.0.1:{}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{}', entrypoint.keepalive: true, ingress: i }} }}
  listener: {{ type: {} }}
ingresses:
- name: i
{ingress}",
        task.port,
        task.entries[0],
        word(task.channel)
    )
}

/// Rules for all hosts of all tunnels.
pub(super) fn rules(task: &Tunnel) -> String {
    let mut text = "  rules:\n".to_owned();
    for (index, hosts) in task.tunnels.iter().enumerate() {
        let id = Tunnel::id(index);
        for host in hosts {
            text += &format!("  - {{ hostname: {host}, endpoint: {id} }}\n");
        }
    }
    text
}

/// A client with a service and a chain for each tunnel.
pub(super) fn client(task: &Tunnel, target: u16) -> String {
    let (mut services, mut chains) = (String::new(), String::new());
    for index in 0..task.tunnels.len() {
        services += &format!(
            "- name: s{index}
  addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true, http.keepalive: true }} }}
  listener: {{ type: rtcp, chain: c{index} }}
  forwarder: {{ nodes: [{{ name: target, addr: '127.0.0.1:{target}' }}] }}
"
        );
        let connector = format!("{{ type: tunnel, metadata: {{ tunnel.id: {} }} }}", Tunnel::id(index));
        let (reach, channel) = (task.reach, word(task.channel));
        chains += &format!(
            "- name: c{index}
  hops:
  - name: h{index}
    nodes: [{{ name: n, addr: '127.0.0.1:{reach}', connector: {connector}, dialer: {{ type: {channel} }} }}]
"
        );
    }
    format!("log: {{ level: error }}\nservices:\n{services}chains:\n{chains}")
}

fn word(channel: Channel) -> &'static str {
    match channel {
        Channel::Tcp => "tcp",
        Channel::Tls => "tls",
    }
}
