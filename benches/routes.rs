//! How long 100,000 ingress rules and 100,000 nodes take to load, what memory they take, and what a look-up costs beside
//! one among ten, by host and by rules of several shapes: `cargo bench --bench routes`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints its numbers")]

use bytes::BytesMut;
use pointsman::addr::Host;
use pointsman::config::{self, Source, Targets};
use pointsman::route::hop::{Hop, HopSettings, NodeSettings, Strategy, Tried};
use pointsman::route::rule::Rule;
use pointsman::route::{HttpParts, Ingress, Protocol, Request};
use pointsman::wire::http::{HeadReader, Limits, RequestHead};
use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

const LOOKUPS: u32 = 1_000_000;

/// Rules that are found by host and path, for the N-th node.
const SHAPES: [&str; 6] = [
    "Host(`hN.example.com`)",
    "Path(`/N/x`)",
    "PathPrefix(`/N/`)",
    "Host(`.example.com`) && PathPrefix(`/N/`)",
    "Host(`hN.example.com`) && PathPrefix(`/N/`) && Method(`GET`)",
    "PathPrefix(`/N/`) && HostRegexp(`^h`)",
];

/// Rules that are tried one after another, and how many of them.
const UNBOUND: [(&str, usize); 2] = [("HostRegexp(`^hN[.]`)", 1_000), ("Header(`X-Node`, `N`)", 100_000)];

fn main() {
    // First, as memory is measured at its peak.
    documents();
    for shape in SHAPES {
        let [few, many] = [10, 100_000].map(|count| per_request(shape, count, LOOKUPS));
        println!("{shape}: a look-up among 10 rules {few:?}, among 100000 {many:?}");
    }
    for (shape, count) in UNBOUND {
        let [few, many] = [10, count].map(|count| per_request(shape, count, 100));
        println!("{shape}: a look-up among 10 rules {few:?}, among {count} {many:?}");
    }
}

/// The mean time of a look-up among `count` rules, for requests of which half meet one.
fn per_request(shape: &str, count: usize, lookups: u32) -> Duration {
    let node = |n: usize| NodeSettings {
        rule: Some(Rule::parse(&shape.replace('N', &n.to_string())).unwrap()),
        ..NodeSettings::new(format!("node-{n}"), Duration::ZERO)
    };
    let hop = Hop::new(HopSettings { nodes: (0..count).map(node).collect(), strategy: Strategy::Round });
    let heads: Vec<_> = (0..20).map(|i| head(i * count / 10)).collect();
    let requests: Vec<_> =
        heads.iter().enumerate().map(|(i, head)| request(i * count / 10, Some(head))).collect();
    mean(&requests, lookups, |request| {
        drop(black_box(hop.choose(request, &mut Tried::new(), Duration::ZERO)));
    })
}

fn head(n: usize) -> RequestHead {
    let text = format!("GET /{n}/x HTTP/1.1\r\nHost: h{n}.example.com\r\nX-Node: {n}\r\n\r\n");
    HeadReader::default().request(&mut BytesMut::from(&*text), &Limits::default()).unwrap().unwrap()
}

fn documents() {
    for count in [10, 25_000, 100_000] {
        let before = peak();
        let text = document(count);
        let size = text.len();
        let start = now();
        let loaded = config::load(&[Source { name: "f.yaml".to_owned(), text }]).unwrap();
        let load = start.elapsed();
        let table = &loaded.config.ingresses[0].table;
        assert!(loaded.warnings.is_empty());
        let Targets { hop, .. } = loaded.config.services[0].handler.targets().unwrap();
        let hop = Hop::new(hop.clone());
        let all = start.elapsed();
        let memory = peak() - before;
        let ingress = per_lookup(count, |request| drop(black_box(table.resolve(request))));
        let node = per_lookup(count, |request| {
            drop(black_box(hop.choose(request, &mut Tried::new(), Duration::ZERO)));
        });
        println!(
            "{count} rules and {count} nodes, {} KiB of YAML: checked in {load:.3?}, compiled after {all:.3?}, \
             {memory:.1} MiB more at the peak; a look-up: ingress {ingress:?}, node {node:?}",
            size >> 10
        );
    }
}

fn document(count: usize) -> String {
    let mut text = String::from(
        "services:\n- name: s\n  addr: :8080\n  handler: { type: tcp, metadata: { sniffing: true } }\n  \
         forwarder:\n    nodes:\n",
    );
    for i in 0..count {
        writeln!(text, "    - {{ name: node-{i}, addr: '10.0.0.1:80', host: h{i}.example.com }}").unwrap();
    }
    text += "ingresses:\n- name: i\n  rules:\n";
    for i in 0..count {
        let endpoint = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
        writeln!(text, "  - {{ hostname: '*.h{i}.example.com', endpoint: {endpoint} }}").unwrap();
    }
    text
}

/// The mean time of a look-up, over hosts of which half are there.
fn per_lookup(count: usize, look: impl Fn(&Request<'_>)) -> Duration {
    let requests: Vec<_> = (0..20).map(|i| request(i * count / 10, None)).collect();
    mean(&requests, LOOKUPS, look)
}

fn mean(requests: &[Request<'_>], lookups: u32, look: impl Fn(&Request<'_>)) -> Duration {
    let start = now();
    requests.iter().cycle().take(lookups as usize).for_each(look);
    start.elapsed() / lookups
}

fn request(n: usize, head: Option<&RequestHead>) -> Request<'_> {
    Request {
        hostname: Host::parse(&format!("h{n}.example.com")).unwrap(),
        protocol: if head.is_some() { Protocol::Http1 } else { Protocol::Tls },
        client: ([127, 0, 0, 1], 1).into(),
        service: "s",
        http: head.map(|head| head as &dyn HttpParts),
        extra: Default::default(),
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// Most memory that this process has held, in MiB.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
}
