//! How long 100,000 ingress rules and 100,000 nodes take to load, what memory they take, and what a look-up costs beside
//! one among ten: `cargo bench --bench routes`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints its numbers")]

use pointsman::addr::Host;
use pointsman::config::{self, Handler, Source};
use pointsman::route::hop::{Hop, Tried};
use pointsman::route::ingress::Table;
use pointsman::route::{Ingress, Protocol, Request};
use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

const LOOKUPS: u32 = 1_000_000;

fn main() {
    for count in [10, 25_000, 100_000] {
        let before = peak();
        let text = document(count);
        let size = text.len();
        let start = now();
        let loaded = config::load(&[Source { name: "f.yaml".to_owned(), text }]).unwrap();
        let load = start.elapsed();
        let (table, problems) = Table::new(&loaded.config.ingresses[0].rules);
        assert!(problems.is_empty());
        let Handler::Forward { hop, .. } = &loaded.config.services[0].handler else { panic!() };
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
    let host = |i| Host::parse(&format!("h{}.example.com", i * count / 10)).unwrap();
    let request = |i| Request {
        hostname: host(i),
        protocol: Protocol::Tls,
        client: ([127, 0, 0, 1], 1).into(),
        service: "s",
        http: None,
        extra: Default::default(),
    };
    let requests: Vec<_> = (0..20).map(request).collect();
    let start = now();
    requests.iter().cycle().take(LOOKUPS as usize).for_each(look);
    start.elapsed() / LOOKUPS
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
