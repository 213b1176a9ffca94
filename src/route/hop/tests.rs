use super::{Strategy, *};
use crate::addr::Host;
use crate::route::fake::{Http, request};
use crate::route::hosts::HostPattern;
use crate::route::{Answer, Decision, Protocol, Refusal};
use proptest::prelude::*;
use proptest::strategy::Strategy as Generator;
use std::collections::BTreeMap;

const FAIL_TIMEOUT: Duration = Duration::from_secs(10);

/// A node from `key=value` words: host, path, protocol, rule, priority, weight, max_fails, `backup`; the first word is the name.
fn node(line: &str) -> NodeSettings {
    let mut settings = NodeSettings::new(String::new(), FAIL_TIMEOUT);
    let (line, rule) = line.split_once(" rule=").map_or((line, None), |(line, rule)| (line, Some(rule)));
    settings.rule = rule.map(|text| Rule::parse(text).unwrap());
    for word in line.split_whitespace() {
        match word.split_once('=') {
            Some(("host", v)) => settings.host = v.to_owned(),
            Some(("path", v)) => settings.path = v.to_owned(),
            Some(("protocol", v)) => settings.protocol = v.to_owned(),
            Some(("priority", v)) => settings.priority = v.parse().unwrap(),
            Some(("max_fails", v)) => settings.max_fails = v.parse().unwrap(),
            Some(_) => panic!("{word}"),
            None if word == "backup" => settings.backup = true,
            None => settings.name = word.to_owned(),
        }
    }
    settings
}

fn hop_with(strategy: Strategy, lines: &[&str]) -> Hop {
    Hop::new(HopSettings { nodes: lines.iter().map(|line| node(line)).collect(), strategy })
}

fn hop(lines: &[&str]) -> Hop {
    hop_with(Strategy::Fifo, lines)
}

/// Names of the candidates, tiers divided by `|`.
fn candidates(hop: &Hop, request: &Request<'_>) -> String {
    let candidates = hop.candidates(request);
    let tier = |tier: &Tier<'_>| tier.nodes.iter().map(|n| n.name.to_string()).collect::<Vec<_>>().join(" ");
    candidates.tiers.iter().map(tier).collect::<Vec<_>>().join(" | ")
}

fn get(hop: &Hop, host: &str, path: &str) -> String {
    candidates(hop, &request(host, Some(&Http::get(path))))
}

fn choose(hop: &Hop, request: &Request<'_>, tried: &mut Tried, seconds: u64) -> Option<String> {
    hop.choose(request, tried, Duration::from_secs(seconds)).map(|node| node.name.to_string())
}

/// What a request at `seconds` would try, one node after the other.
fn attempts(hop: &Hop, request: &Request<'_>, seconds: u64) -> String {
    let mut tried = Tried::new();
    std::iter::from_fn(|| choose(hop, request, &mut tried, seconds)).collect::<Vec<_>>().join(" ")
}

fn fail(hop: &Hop, name: &str, seconds: u64) {
    let node = hop.nodes().iter().find(|node| &*node.name == name).unwrap();
    node.health.failed(Duration::from_secs(seconds));
}

#[test]
fn the_most_specific_host_wins_and_nodes_without_host_are_the_fallback() {
    let hop = hop(&[
        "any",
        "com host=.com",
        "sub host=*.example.com",
        "exact host=Example.COM.",
        "star host=*example.org",
        "exact2 host=example.com",
        "deep host=.b.example.com",
        "never host=bad:80",
    ]);
    for (host, expected) in [
        ("example.com", "exact exact2"),
        ("EXAMPLE.com.", "exact exact2"),
        ("a.example.com", "sub"),
        ("x.y.example.com", "sub"),
        ("b.example.com", "deep"),
        ("x.b.example.com", "deep"),
        ("badexample.com", "com"),
        ("example.org", "star"),
        ("a.example.org", "star"),
        ("badexample.org", "any"),
        ("bad", "any"),
        ("", "any"),
    ] {
        assert_eq!(get(&hop, host, "/"), expected, "{host}");
    }
}

#[test]
fn a_suffix_needs_a_label_boundary() {
    for pattern in [".example.com", "*.example.com", "*example.com"] {
        let hop = hop(&[&format!("n host={pattern}")]);
        assert_eq!(get(&hop, "badexample.com", "/"), "", "{pattern}");
        assert_eq!(get(&hop, "example.com", "/"), "n", "{pattern}");
        assert_eq!(get(&hop, "A.Example.com", "/"), "n", "{pattern}");
        assert_eq!(hop.candidates(&request("x", None)).nodes().count(), 0);
    }
}

#[test]
fn a_star_alone_is_no_host() {
    let hop = hop(&["star host=*", "a host=a"]);
    assert_eq!(get(&hop, "a", "/"), "a");
    assert_eq!(get(&hop, "b", "/"), "star");
    assert_eq!(get(&hop, "", "/"), "star");
}

#[test]
fn the_longest_path_wins_within_the_most_specific_host() {
    let hop = hop(&[
        "root host=a",
        "api host=a path=/api",
        "v1 host=a path=/api/v1",
        "v1b host=a path=/api/v1",
        "apple host=a path=/apple",
        "deep host=.a path=/api/v1/deep",
        "only host=only path=/x",
        "any path=/api/v1/deep/er",
    ]);
    for (host, path, expected) in [
        ("a", "/", "root"),
        ("a", "/ap", "root"),
        ("a", "/api", "api"),
        ("a", "/apix", "api"),
        ("a", "/api/v1/deep/er", "v1 v1b"),
        ("a", "/api/v0", "api"),
        ("a", "/apple/pie", "apple"),
        ("a", "/%61pi", "api"),
        ("b.a", "/api/v1/deep/er", "deep"),
        ("b.a", "/api", ""),
        ("only", "/x", "only"),
        ("only", "/y", ""),
        ("only", "/api/v1/deep/er", "any"),
    ] {
        assert_eq!(get(&hop, host, path), expected, "{host} {path}");
    }
    // What is not HTTP has no path.
    assert_eq!(candidates(&hop, &request("a", None)), "root");
    assert_eq!(candidates(&hop, &request("only", None)), "");
}

#[test]
fn a_named_protocol_must_be_met_and_goes_before_any() {
    let hop =
        hop(&["any", "ssh protocol=SSH", "web protocol=http", "tls host=a protocol=tls", "api path=/api"]);
    let mut asked = request("", None);
    for (host, protocol, expected) in [
        ("", Protocol::Ssh, "ssh"),
        ("", Protocol::Unknown, "any"),
        ("a", Protocol::Tls, "tls"),
        ("b", Protocol::Tls, "any"),
        ("a", Protocol::Http1, "web"),
        ("a", Protocol::Http2, "web"),
        ("a", Protocol::Ssh, "ssh"),
    ] {
        (asked.hostname, asked.protocol) = (Host::parse(host).unwrap(), protocol);
        assert_eq!(candidates(&hop, &asked), expected, "{host} {protocol:?}");
    }
    assert_eq!(get(&hop, "a", "/api"), "api");
    assert_eq!(candidates(&self::hop(&["web protocol=http"]), &request("", None)), "");
}

#[test]
fn raw_connections_meet_only_nodes_without_filters() {
    let hop = hop(&["web host=a", "pathed path=/", "ssh protocol=ssh", "plain", "ruled rule=Host(`a`)"]);
    let mut raw = request("", None);
    raw.protocol = Protocol::Unknown;
    assert_eq!(candidates(&hop, &raw), "plain");
}

#[test]
fn a_rule_decides_and_its_filter_is_ignored() {
    let hop = hop(&["filter host=a", "ruled host=b path=/x rule=Host(`a`) && PathPrefix(`/api`)"]);
    assert_eq!(get(&hop, "a", "/api"), "ruled");
    assert_eq!(get(&hop, "a", "/"), "filter");
    assert_eq!(get(&hop, "b", "/x"), "");
}

#[test]
fn the_highest_priority_wins() {
    let hop = hop(&[
        "short rule=Host(`a`)",
        "long rule=Host(`a`) && Path(`/long`)",
        "low priority=-1 rule=Host(`a`) && Path(`/low`) && Method(`GET`)",
        "high priority=99 rule=PathPrefix(`/high`)",
        "filter host=b",
        "weak priority=-5 rule=Host(`b`)",
    ]);
    assert_eq!(get(&hop, "a", "/"), "short");
    assert_eq!(get(&hop, "a", "/long"), "long");
    assert_eq!(get(&hop, "a", "/low"), "short");
    assert_eq!(get(&hop, "a", "/high"), "high");
    assert_eq!(get(&hop, "c", "/high"), "high");
    assert_eq!(get(&hop, "c", "/"), "");
    assert_eq!(get(&hop, "b", "/"), "filter | weak");
}

#[test]
fn tiers_of_several_nodes_fall_over_to_the_next() {
    let hop = hop(&[
        "a1 rule=Host(`a`) && Path(`/`)",
        "a2 rule=Host(`a`) && Path(`/`)",
        "b1 rule=Host(`a`)",
        "fallback",
    ]);
    let asked = Http::get("/");
    let asked = request("a", Some(&asked));
    assert_eq!(candidates(&hop, &asked), "a1 a2 | b1 | fallback");
    assert_eq!(attempts(&hop, &asked, 0), "a1 a2 b1 fallback");
    fail(&hop, "a1", 1);
    fail(&hop, "a2", 2);
    assert_eq!(attempts(&hop, &asked, 3), "b1 fallback a1 a2");
    assert_eq!(attempts(&hop, &asked, 12), "a1 a2 b1 fallback");
}

#[test]
fn a_rule_with_one_node_is_not_replaced_by_another_site() {
    let hop = hop(&["api rule=PathPrefix(`/api`)", "web"]);
    let http = Http::get("/api");
    let asked = request("a", Some(&http));
    fail(&hop, "api", 1);
    assert_eq!(attempts(&hop, &asked, 1), "api");
}

#[test]
fn tiers_of_backups_stand_behind_all_others() {
    let hop = hop(&[
        "spare backup priority=50 rule=Host(`a`)",
        "main priority=20 rule=Host(`a`)",
        "low priority=10 rule=Host(`a`)",
    ]);
    assert_eq!(get(&hop, "a", "/"), "main | low | spare");
    let hop = self::hop(&["spare backup rule=Host(`a`)", "web host=a", "web2 backup host=a"]);
    assert_eq!(get(&hop, "a", "/"), "web web2 | spare");
    let hop = self::hop(&["spare backup rule=Host(`a`)"]);
    assert_eq!(get(&hop, "a", "/"), "spare");
}

#[test]
fn backups_serve_only_without_a_live_primary() {
    let hop = hop(&["b backup", "p1", "p2"]);
    let asked = request("", None);
    assert_eq!(attempts(&hop, &asked, 0), "p1 p2 b");
    fail(&hop, "p1", 1);
    assert_eq!(attempts(&hop, &asked, 1), "p2 b p1");
    fail(&hop, "p2", 1);
    assert_eq!(attempts(&hop, &asked, 1), "b p1 p2");
}

#[test]
fn a_node_is_dead_after_max_fails_until_fail_timeout() {
    let hop = hop(&["a max_fails=2", "b"]);
    let asked = request("", None);
    let first = |seconds| choose(&hop, &asked, &mut Tried::new(), seconds).unwrap();
    fail(&hop, "a", 100);
    assert_eq!(first(100), "a");
    fail(&hop, "a", 103);
    assert_eq!(first(103), "b");
    assert_eq!(first(112), "b");
    assert_eq!(first(113), "a");
    fail(&hop, "a", 113);
    assert_eq!(first(114), "b");
    hop.nodes()[0].health.succeeded();
    assert_eq!(first(114), "a");
    fail(&hop, "a", 115);
    assert_eq!(first(115), "a");
}

#[test]
fn failures_do_not_wrap_and_time_does_not_go_back() {
    let health = Health::default();
    assert!(!health.is_dead(Duration::ZERO, 0, Duration::MAX));
    health.failed(Duration::from_secs(9));
    health.failed(Duration::from_secs(5));
    assert_eq!(health.last_failure(), Duration::from_secs(9));
    assert!(health.is_dead(Duration::from_secs(1), 2, Duration::from_secs(1)));
    assert!(!health.is_dead(Duration::from_secs(9), 3, Duration::from_secs(1)));
    assert!(!health.is_dead(Duration::from_secs(9), 1, Duration::ZERO));
}

#[test]
fn when_all_are_dead_the_one_that_failed_longest_ago_is_tried() {
    let hop = hop_with(Strategy::Round, &["a", "b", "c backup", "d"]);
    for (name, seconds) in [("a", 3), ("b", 1), ("c", 2), ("d", 4)] {
        fail(&hop, name, seconds);
    }
    for _ in 0..3 {
        assert_eq!(attempts(&hop, &request("", None), 5), "b c a d");
    }
}

#[test]
fn each_node_is_tried_once_and_tries_are_bounded() {
    let lines: Vec<String> = (0..40).map(|n| format!("n{n}")).collect();
    let hop = hop_with(Strategy::Random, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let mut tried = Tried::new();
    let mut names = Vec::new();
    while let Some(name) = choose(&hop, &request("", None), &mut tried, 0) {
        assert!(!names.contains(&name));
        names.push(name);
        assert_eq!(tried.count(), names.len());
    }
    assert_eq!(names.len(), 16);
}

#[test]
fn turns_belong_to_each_set_of_nodes() {
    let hop =
        hop_with(Strategy::Round, &["a1 host=a", "b1 host=b", "a2 host=a", "b2 host=b", "c1", "c2", "c3"]);
    let mut chosen = String::new();
    for host in ["a", "b", "a", "b", "c", "a", "c", "b", "c", "c"] {
        chosen += &choose(&hop, &request(host, None), &mut Tried::new(), 0).unwrap();
        chosen.push(' ');
    }
    assert_eq!(chosen, "a1 b1 a2 b2 c1 a1 c2 b1 c3 c1 ");
}

#[test]
fn a_retry_does_not_take_a_turn_from_the_others() {
    let hop = hop_with(Strategy::Round, &["a", "b"]);
    let asked = request("", None);
    assert_eq!(attempts(&hop, &asked, 0), "a b");
    assert_eq!(attempts(&hop, &asked, 0), "b a");
    assert_eq!(attempts(&hop, &asked, 0), "a b");
}

#[test]
fn different_rules_of_equal_priority_share_in_the_order_of_the_configuration() {
    let lines = [
        "a priority=5 rule=Host(`x`) || Host(`*.x`)",
        "b priority=5 rule=Host(`*.x`) || PathPrefix(`/b`)",
        "c priority=5 rule=Host(`x`) || Host(`*.x`)",
        "d backup priority=5 rule=Host(`*.x`)",
    ];
    let hop = hop_with(Strategy::Round, &lines);
    assert_eq!(get(&hop, "x", "/"), "a c");
    assert_eq!(get(&hop, "y.x", "/"), "a b c d");
    assert_eq!(get(&hop, "x", "/b"), "a b c");
    let asked = request("y.x", None);
    let turns: Vec<String> = (0..4).map(|_| choose(&hop, &asked, &mut Tried::new(), 0).unwrap()).collect();
    assert_eq!(turns, ["a", "b", "c", "a"]);
}

#[test]
fn a_rule_that_names_the_host_twice_matches_once() {
    let hop = hop(&["a priority=5 rule=Host(`y.x`) || Host(`.x`)", "b priority=5 rule=Host(`.x`)"]);
    assert_eq!(get(&hop, "y.x", "/"), "a b");
    let hop = self::hop(&["a rule=Host(`y.x`) || Host(`.x`)"]);
    assert_eq!(get(&hop, "y.x", "/"), "a");
}

/// Answers what it was told, and checks what it sees.
#[derive(Debug)]
struct Told(Decision<usize>, &'static str);

impl Forwarder for Told {
    fn select(&self, _: &Request<'_>, candidates: &[Arc<Node>]) -> Answer<Choice> {
        let names: Vec<&str> = candidates.iter().map(|node| &*node.name).collect();
        assert_eq!(names.join(" "), self.1);
        Answer::Now(self.0.clone().map(|verdict| match verdict {
            Verdict::Use(index) => Verdict::Use(Choice::Candidate(index)),
            Verdict::Pass => Verdict::Pass,
            Verdict::Refuse(refusal) => Verdict::Refuse(refusal),
        }))
    }
}

#[test]
fn a_forwarder_sees_what_may_be_used_and_its_answer_stands() {
    let hop = hop(&["a", "b", "c", "d backup"]);
    let asked = request("", None);
    fail(&hop, "b", 1);
    let now = Duration::from_secs(2);
    let mut tried = Tried::new();
    let mut ask = |told: &Told| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(hop.choose_with(told, &asked, &mut tried, now))
    };
    let named = |answer: Result<Verdict<Arc<Node>>, RouteError>| match answer {
        Ok(Verdict::Use(node)) => node.name.to_string(),
        other => format!("{other:?}"),
    };
    let refusal = Refusal { status: 403, reason: "no".to_owned() };
    assert!(ask(&Told(Err(RouteError("broken".to_owned())), "a c")).is_err());
    let refused = ask(&Told(Ok(Verdict::Refuse(refusal.clone())), "a c"));
    assert!(matches!(refused, Ok(Verdict::Refuse(r)) if r == refusal));
    let wrong = ask(&Told(Ok(Verdict::Use(2)), "a c")).unwrap_err();
    assert_eq!(wrong.to_string(), "forwarder chose candidate 2 of 2 (counted from 0)");
    assert_eq!(named(ask(&Told(Ok(Verdict::Use(1)), "a c"))), "c");
    assert_eq!(named(ask(&Told(Ok(Verdict::Pass), "a"))), "a");
    assert_eq!(named(ask(&Told(Ok(Verdict::Use(0)), "d"))), "d");
    assert_eq!(named(ask(&Told(Ok(Verdict::Use(0)), "b"))), "b");
    assert!(matches!(ask(&Told(Ok(Verdict::Use(0)), "never asked")), Ok(Verdict::Pass)));
}

#[test]
fn what_an_address_leaves_open_comes_from_the_request() {
    use Protocol::{Http1, Http2, Ssh, Tls, Unknown};
    for (addr, host, protocol, expected) in [
        (Some("t.org:81"), "a.com", Http1, Some("t.org:81")),
        (Some("t.org:81"), "", Unknown, Some("t.org:81")),
        (Some("t.org"), "a.com", Http1, Some("t.org:80")),
        (Some("t.org"), "a.com", Http2, Some("t.org:80")),
        (Some("t.org"), "a.com", Tls, Some("t.org:443")),
        (Some("t.org"), "", Ssh, Some("t.org:22")),
        (Some("t.org"), "a.com", Unknown, None),
        (Some(":8080"), "a.com", Unknown, Some("a.com:8080")),
        (Some(":8080"), "", Http1, None),
        (None, "a.com", Http1, Some("a.com:80")),
        (None, "a.com", Tls, Some("a.com:443")),
        (None, "a.com", Unknown, None),
        (None, "", Http1, None),
        (Some("[::1]"), "a.com", Http1, Some("[::1]:80")),
    ] {
        let addr = addr.map(|text| HostPort::parse(text, 0).unwrap());
        let node = Node::new(&NodeSettings { addr, ..node("n") }, 0);
        let mut asked = request(host, None);
        asked.protocol = protocol;
        assert_eq!(node.target(&asked).map(|t| t.to_string()).as_deref(), expected, "{node:?} {asked:?}");
    }
}

#[test]
fn a_hundred_thousand_nodes() {
    let nodes = (0..100_000)
        .map(|n| match n % 4 {
            0 => node(&format!("{n} host=host-{n}.example.com")),
            1 => node(&format!("{n} host=*.host-{n}.example.com")),
            2 => node(&format!("{n} host=one.example.com path=/{n}/")),
            _ => node(&format!("{n} rule=Host(`host-{n}.example.com`)")),
        })
        .collect();
    let hop = Hop::new(HopSettings { nodes, strategy: Strategy::Round });
    for n in 0..100_000 {
        let found = match n % 4 {
            0 | 3 => get(&hop, &format!("host-{n}.example.com"), "/"),
            1 => get(&hop, &format!("a.b.host-{n}.example.com"), "/"),
            _ => get(&hop, "one.example.com", &format!("/{n}/x")),
        };
        assert_eq!(found, n.to_string());
    }
    assert_eq!(get(&hop, "host-100000.example.com", "/"), "");
}

/// However many rules there are, those are evaluated that are bound to the request's host and to a beginning of its path.
#[test]
fn among_many_rules_few_are_evaluated() {
    const SHAPES: [&str; 8] = [
        "Host(`hN.example.com`)",
        "Host(`*.hN.example.com`) || Host(`hN.example.com`)",
        "Path(`/N/end`)",
        "PathPrefix(`/N/`)",
        "PathPrefix(`/N/`) && HostRegexp(`^h`)",
        "(Host(`one.example.com`) || Host(`hN.example.com`)) && PathPrefix(`/N/`)",
        "Host(`.example.com`) && PathPrefix(`/N/`) && Method(`GET`)",
        "(Host(`hN.example.com`) || Host(`hN.example.org`)) && (Path(`/N/end`) || PathPrefix(`/N/e`))",
    ];
    for count in [SHAPES.len(), 100_000] {
        let rule = |n: usize| SHAPES[n % SHAPES.len()].replace('N', &n.to_string());
        let nodes = (0..count).map(|n| node(&format!("{n} rule={}", rule(n)))).collect();
        let hop = Hop::new(HopSettings { nodes, strategy: Strategy::Round });
        for n in (0..count).step_by(if count > 10 { 997 } else { 1 }) {
            let http = Http::get(&format!("/{n}/end"));
            let request = request(&format!("h{n}.example.com"), Some(&http));
            let evaluated = hop.index.possible_rules(&Subject::new(&request)).count();
            assert!(evaluated <= 2, "{evaluated} for {}", rule(n));
            assert_eq!(candidates(&hop, &request), n.to_string());
        }
    }
}

#[test]
fn rules_that_are_bound_to_nothing_are_evaluated_every_time() {
    let hop =
        hop(&["a rule=HostRegexp(`a`)", "b rule=!Host(`b`)", "c rule=PathRegexp(`c`)", "d rule=Host(`d`)"]);
    assert_eq!(hop.index.possible_rules(&Subject::new(&request("x", None))).count(), 3);
}

/// The header of the module, word for word and without an index: places of the candidates by tiers.
fn reference(nodes: &[NodeSettings], request: &Request<'_>) -> Vec<Vec<usize>> {
    let specific = |node: &NodeSettings| {
        let host = match HostPattern::from_filter(&node.host).unwrap() {
            None => 0,
            Some(pattern) if !pattern.matches(&request.hostname) => return None,
            Some(HostPattern::Exact(_)) => usize::MAX,
            Some(pattern) => pattern.name().len(),
        };
        let path = request.http.map_or("", |http| http.path());
        let protocol = node.protocol.is_empty() || node.protocol == request.protocol.as_str();
        (path.starts_with(&node.path) && protocol).then_some((
            host,
            node.path.len(),
            !node.protocol.is_empty(),
        ))
    };
    let filtered = |node: &NodeSettings| if node.rule.is_none() { specific(node) } else { None };
    let best = nodes.iter().filter_map(filtered).max();
    let mut tiers: BTreeMap<Reverse<i64>, Vec<usize>> = BTreeMap::new();
    for (place, node) in nodes.iter().enumerate() {
        let priority = match &node.rule {
            Some(rule) if !rule.matches(request) => continue,
            Some(rule) if node.priority == 0 => rule.text().len() as i64,
            Some(_) => node.priority,
            None if filtered(node).is_none() || filtered(node) != best => continue,
            None => 0,
        };
        tiers.entry(Reverse(priority)).or_default().push(place);
    }
    if let Some((Reverse(1..), [only])) = tiers.first_key_value().map(|(p, tier)| (*p, tier.as_slice()))
        && !nodes[*only].backup
    {
        return vec![vec![*only]];
    }
    let only_backups = |tier: &[usize]| tier.iter().all(|place| nodes[*place].backup);
    let (order, behind): (Vec<_>, Vec<_>) = tiers.into_iter().partition(|(_, tier)| !only_backups(tier));
    let mut order: Vec<Vec<usize>> = order.into_iter().chain(behind).map(|(_, tier)| tier).collect();
    order.iter_mut().for_each(|tier| tier.sort_by_key(|place| nodes[*place].backup));
    order
}

fn some_node() -> impl Generator<Value = NodeSettings> {
    let host = prop_oneof![Just(String::new()), "(\\*?\\.)?[ab](\\.[ab]){0,2}"];
    let rule = prop_oneof![
        3 => Just(None),
        2 => "(\\*?\\.)?[ab](\\.[ab]){0,1}".prop_map(|host| Some(format!("Host(`{host}`)"))),
        1 => Just(Some("Host(`a`) || Host(`.b`) || Host(`a.b`)".to_owned())),
        2 => "Path(Prefix)?\\(`/[ab]?(/[ab])?`\\)".prop_map(Some),
        3 => "(Host\\(`(\\.)?[ab]`\\)|HostRegexp\\(`\\^a`\\)) && (Path|PathPrefix|PathRegexp)\\(`/[ab]?(/[ab])?`\\)"
            .prop_map(Some),
        1 => "(Host\\(`[ab]`\\)|Path\\(`/[ab]`\\)) (&&|\\|\\|) !?(PathPrefix\\(`/[ab]`\\)|Method\\(`(GET|PUT)`\\))"
            .prop_map(Some),
    ];
    let word = |words: &'static [&'static str]| prop::sample::select(words).prop_map(str::to_owned);
    let path = word(&["", "", "/", "/a", "/ab", "/a/b"]);
    let protocol = word(&["", "", "http", "tls"]);
    (host, path, protocol, rule, -2i64..3, prop::bool::weighted(0.2)).prop_map(
        |(host, path, protocol, rule, priority, backup)| NodeSettings {
            host,
            path,
            protocol,
            rule: rule.map(|text| Rule::parse(&text).unwrap()),
            priority,
            backup,
            ..node("n")
        },
    )
}

proptest! {
    #[test]
    fn the_index_finds_what_the_description_says(
        mut nodes in prop::collection::vec(some_node(), 0..12),
        requests in prop::collection::vec(("([ab](\\.[ab]){0,3})?", "/[ab]?(/[ab])?", any::<bool>()), 1..12),
    ) {
        nodes.iter_mut().enumerate().for_each(|(place, node)| node.name = place.to_string());
        let hop = Hop::new(HopSettings { nodes: nodes.clone(), strategy: Strategy::Round });
        for (host, path, http) in requests {
            let get = Http::get(&path);
            let request = request(&host, if http { Some(&get) } else { None });
            let expected = reference(&nodes, &request);
            let expected = expected
                .iter()
                .map(|tier| tier.iter().map(usize::to_string).collect::<Vec<_>>().join(" "))
                .collect::<Vec<_>>()
                .join(" | ");
            prop_assert_eq!(candidates(&hop, &request), expected, "{:?}", request);
        }
    }
}

/// Names an address, whatever was tried before.
#[derive(Debug)]
struct Stubborn;

impl Forwarder for Stubborn {
    fn select(&self, _: &Request<'_>, _: &[Arc<Node>]) -> Answer<Choice> {
        Answer::Now(Ok(Verdict::Use(Choice::Address(HostPort::parse("192.0.2.1:80", 0).unwrap()))))
    }
}

#[test]
fn an_address_that_was_tried_is_no_opinion() {
    let (hop, asked, mut tried) = (hop(&["a", "b"]), request("x", None), Tried::new());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut choose = || match runtime.block_on(hop.choose_with(&Stubborn, &asked, &mut tried, Duration::ZERO))
    {
        Ok(Verdict::Use(node)) => Some(node.name.to_string()),
        Ok(Verdict::Pass) => None,
        other => panic!("{other:?}"),
    };
    let tries: Vec<_> = std::iter::from_fn(&mut choose).collect();
    assert_eq!(tries, ["192.0.2.1:80", "a", "b"]);
}
