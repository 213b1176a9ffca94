//! What is counted.

mod http;
mod plugin;
mod routes;
mod smux;
mod sniff;

use pointsman::addr::Host;
use pointsman::route::{HttpParts, Protocol, Request};
use tokio::runtime::Runtime;

/// One function with its work.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// How many calls are counted.
    pub(crate) calls: usize,
    /// What is not counted: makes everything that a call needs.
    pub(crate) prepare: fn() -> Box<dyn FnMut()>,
}

const fn case(name: &'static str, calls: usize, prepare: fn() -> Box<dyn FnMut()>) -> Case {
    Case { name, calls, prepare }
}

pub(crate) const CASES: &[Case] = &[
    case("sniff-http", 1000, sniff::http),
    case("sniff-tls", 1000, sniff::tls),
    case("ingress", 5000, routes::ingress),
    case("hop", 5000, routes::hop),
    case("hop-rules", 5000, routes::hop_by_rules),
    case("http-request", 1000, http::request),
    case("http-reply", 1000, http::reply),
    case("http-chunked", 1000, http::chunked),
    case("smux-encode", 1000, smux::encode),
    case("smux-decode", 1000, smux::decode),
    case("smux-exchange", 1000, smux::exchange),
    case("smux-bulk", 20, smux::bulk),
    case("plugin-call", 1000, plugin::call),
];

/// One thread, and a clock that stands still while there is work: timers never come in between.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// The names of 1000 rules.
const RULES: usize = 1000;

fn name(i: usize) -> String {
    format!("h{i}.example.com")
}

/// Names in an order of no pattern: of two, one has a rule.
fn hosts() -> impl Iterator<Item = Host> + Clone {
    (0..RULES)
        .map(|i| Host::parse(&name(i * 7919 % (2 * RULES))).unwrap())
        .collect::<Vec<_>>()
        .into_iter()
        .cycle()
}

fn asked(hostname: Host, http: Option<&dyn HttpParts>) -> Request<'_> {
    Request {
        hostname,
        protocol: if http.is_some() { Protocol::Http1 } else { Protocol::Tls },
        client: ([192, 0, 2, 1], 4000).into(),
        service: "web",
        http,
        extra: Default::default(),
    }
}
