//! A line that is cut without a word: both ends find out by themselves, in time, and are together again once it is mended. All
//! channels at once, for it takes as long as their settings say, which are those that everybody has who sets nothing.

use crate::support::netns::{End, Line};
use crate::support::{Proc, eventually_within, free_port, now};
use std::time::Duration;

const KINDS: [&str; 12] =
    ["tcp", "tls", "mtls", "mtcp", "ws", "wss", "mws", "mwss", "h2c", "h2", "grpc", "quic"];
/// What a client may take to find out: 15 s of silence, and what a slow machine adds.
const CLIENT: Duration = Duration::from_secs(30);
/// The same of a server, which waits for 30 s.
const SERVER: Duration = Duration::from_secs(60);
/// What both may take to be together again.
const AGAIN: Duration = Duration::from_secs(30);

/// The ports of one channel.
struct Ports {
    kind: &'static str,
    /// Of the tunnel that a client at the far end serves, and one at the near end.
    tunnels: [String; 2],
    server: u16,
    /// Where visitors of the tunnels come to.
    entry: u16,
    relay: u16,
    /// At the far end: whoever comes here is led through the relay.
    visitors: u16,
}

struct Setup {
    line: Line,
    ports: Vec<Ports>,
    /// Of `whoami` at either end.
    target: u16,
}

impl Setup {
    fn new() -> Self {
        let ports = KINDS.iter().enumerate().map(|(n, kind)| Ports {
            kind,
            tunnels: ["a", "b"].map(|end| format!("5f0b4a4e-8b7c-4e6c-9d0e-1f2a3b4c{end}0{n:02}")),
            server: free_port(),
            entry: free_port(),
            relay: free_port(),
            visitors: free_port(),
        });
        Self { line: Line::new(), ports: ports.collect(), target: free_port() }
    }

    fn start(&self, end: End, yaml: &str) -> Proc {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, yaml).unwrap();
        let mut command = self.line.command(end, env!("CARGO_BIN_EXE_pointsman"));
        command.arg("-C").arg(&file);
        Proc::spawn(command, dir)
    }

    fn whoami(&self) -> String {
        format!("- {{ addr: '127.0.0.1:{}', handler: {{ type: whoami }} }}\n", self.target)
    }

    /// At the near end.
    fn server(&self) -> Proc {
        let service = |Ports { kind, tunnels: [far, near], server, entry, relay, .. }: &Ports| {
            format!(
                "- name: {kind}
  addr: 0.0.0.0:{server}
  listener: {{ type: {kind} }}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{entry}', tunnel: 'far.host:{far},near.host:{near}' }} }}
- {{ addr: '0.0.0.0:{relay}', listener: {{ type: {kind} }}, handler: {{ type: relay }} }}
"
            )
        };
        let services: String = self.ports.iter().map(service).collect();
        let server = self.start(End::Near, &format!("services:\n{services}{}", self.whoami()));
        for ports in &self.ports {
            server.wait_for(&["listening", &format!("0.0.0.0:{}", ports.relay)]);
        }
        server
    }

    /// Clients of the tunnels, and at the far end also ways for visitors.
    fn clients(&self, end: End) -> Proc {
        // The near end has the server's.
        let mut services = if end == End::Far { self.whoami() } else { String::new() };
        let mut chains = String::new();
        for Ports { kind, tunnels, server, relay, visitors, .. } in &self.ports {
            let (addr, target) = (End::Near.addr(), self.target);
            let tunnel = &tunnels[usize::from(end == End::Near)];
            let node = |name: &str, port: &u16, connector: &str| {
                format!(
                    "- {{ name: {name}, hops: [{{ nodes: [{{ name: {name}, addr: '{addr}:{port}', connector: {connector}, dialer: {{ type: {kind} }} }}] }}] }}\n"
                )
            };
            services += &format!(
                "- name: {kind}
  addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: {kind} }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{target}' }}] }}
"
            );
            chains +=
                &node(kind, server, &format!("{{ type: tunnel, metadata: {{ tunnel.id: {tunnel} }} }}"));
            if end == End::Far {
                services += &format!(
                    "- addr: 127.0.0.1:{visitors}
  handler: {{ type: tcp, chain: to-{kind}, metadata: {{ sniffing: true }} }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{target}' }}] }}
"
                );
                chains += &node(&format!("to-{kind}"), relay, "{ type: relay }");
            }
        }
        self.start(end, &format!("services:\n{services}chains:\n{chains}"))
    }

    /// What a visitor at that end is told; 0: nothing.
    fn visit(&self, end: End, host: &str, port: u16) -> u16 {
        let mut curl = self.line.command(end, "curl");
        let limit = CLIENT.as_secs().to_string();
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", &limit, "-H"]);
        let output = curl.arg(format!("Host: {host}")).arg(format!("http://127.0.0.1:{port}/"));
        String::from_utf8_lossy(&output.output().unwrap().stdout).parse().unwrap()
    }

    /// For each channel at the same time.
    fn each(&self, look: impl Fn(&Ports) + Sync) {
        std::thread::scope(|scope| {
            let look = &look;
            let looks: Vec<_> = self.ports.iter().map(|ports| scope.spawn(move || look(ports))).collect();
            looks.into_iter().for_each(|look| look.join().unwrap());
        });
    }

    fn answers(&self, kind: &str, end: End, host: &str, port: u16) {
        let answered = || (self.visit(end, host, port) == 200).then_some(());
        eventually_within(AGAIN, &format!("{kind}: {host} is answered"), answered);
    }

    /// Through all tunnels, and through the relays.
    fn all_answer(&self) {
        self.each(|Ports { kind, entry, visitors, .. }| {
            self.answers(kind, End::Near, "far.host", *entry);
            self.answers(kind, End::Near, "near.host", *entry);
            self.answers(kind, End::Far, "visitor.host", *visitors);
        });
    }
}

#[test]
fn a_cut_line_is_found_by_both_ends() {
    let setup = Setup::new();
    let server = setup.server();
    let near = setup.clients(End::Near);
    setup.each(|Ports { kind, entry, .. }| setup.answers(kind, End::Near, "near.host", *entry));
    let alone = server.descriptors();
    let far = setup.clients(End::Far);
    setup.all_answer();
    let before = far.descriptors();

    setup.line.cut();
    let cut = now();
    setup.each(|Ports { kind, entry, visitors, .. }| {
        let status = setup.visit(End::Far, "visitor.host", *visitors);
        assert!(status >= 500, "{kind}: a visitor of the far end is told {status} after {:?}", cut.elapsed());
        assert_eq!(setup.visit(End::Near, "near.host", *entry), 200, "{kind}");
    });
    for kind in KINDS {
        far.wait_for(&["disconnected", &format!("service=\"{kind}\"")]);
    }
    let left = |wait: Duration| wait.saturating_sub(cut.elapsed());
    eventually_within(left(CLIENT), "no connection of the far end is left", || {
        (far.connections_to(End::Near.addr()) == 0).then_some(())
    });
    eventually_within(left(SERVER), &format!("the server has {alone} descriptors"), || {
        (server.descriptors() <= alone).then_some(())
    });
    for Ports { tunnels: [down, _], .. } in &setup.ports {
        server.wait_for(&["connector down", down]);
    }

    setup.line.mend();
    setup.all_answer();
    eventually_within(AGAIN, &format!("the far end has {before} descriptors"), || {
        (far.descriptors() <= before).then_some(())
    });
    assert!(!near.log().contains("disconnected"), "{}", near.log());
}
