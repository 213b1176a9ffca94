//! Which rule or node is meant for a host, among 1000.

use super::{RULES, asked, hosts, name};
use bytes::BytesMut;
use pointsman::route::Ingress;
use pointsman::route::hop::{Hop, HopSettings, NodeSettings, Strategy, Tried};
use pointsman::route::ingress::{Rule, Table};
use pointsman::route::rule;
use pointsman::wire::http::{HeadReader, Limits};
use std::hint::black_box;
use std::time::Duration;

pub(super) fn ingress() -> Box<dyn FnMut()> {
    let endpoint = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
    let rule = |i| Rule { hostname: format!("*.{}", name(i)), endpoint: endpoint.to_owned() };
    let (table, problems) = Table::new(&(0..RULES).map(rule).collect::<Vec<_>>());
    assert!(problems.is_empty());
    let mut requests =
        hosts().map(|host| asked(host, None)).take(RULES).collect::<Vec<_>>().into_iter().cycle();
    Box::new(move || drop(black_box(table.resolve(&requests.next().unwrap()))))
}

pub(super) fn hop() -> Box<dyn FnMut()> {
    choosing(|i| NodeSettings { host: name(i), ..node(i) })
}

pub(super) fn hop_by_rules() -> Box<dyn FnMut()> {
    choosing(|i| {
        let text = format!("Host(`{}`) && PathPrefix(`/api/`) && Method(`GET`)", name(i));
        NodeSettings { rule: Some(rule::Rule::parse(&text).unwrap()), ..node(i) }
    })
}

fn node(i: usize) -> NodeSettings {
    NodeSettings::new(format!("node-{i}"), Duration::ZERO)
}

fn choosing(node: impl Fn(usize) -> NodeSettings) -> Box<dyn FnMut()> {
    let hop = Hop::new(HopSettings { nodes: (0..RULES).map(node).collect(), strategy: Strategy::Round });
    let mut text = BytesMut::from("GET /api/users HTTP/1.1\r\nHost: example.com\r\n\r\n");
    let head = HeadReader::default().request(&mut text, &Limits::default()).unwrap().unwrap();
    let mut hosts = hosts();
    Box::new(move || {
        let request = asked(hosts.next().unwrap(), Some(&head));
        drop(black_box(hop.choose(&request, &mut Tried::new(), Duration::ZERO)));
    })
}
