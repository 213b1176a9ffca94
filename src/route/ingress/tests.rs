use super::*;
use crate::route::Ingress;
use crate::route::fake::request;
use proptest::prelude::*;
use uuid::Uuid;

fn rules(lines: &[(&str, &str)]) -> Vec<Rule> {
    lines.iter().map(|(h, e)| Rule { hostname: (*h).to_owned(), endpoint: (*e).to_owned() }).collect()
}

fn id(n: u8) -> String {
    Uuid::from_bytes([n; 16]).to_string()
}

fn ask(table: &Table, host: &str) -> Verdict<Endpoint> {
    let Answer::Now(decision) = table.resolve(&request(host, None)) else {
        panic!("a table answers at once")
    };
    decision.unwrap()
}

fn tunnel(table: &Table, host: &str) -> Option<u8> {
    match ask(table, host) {
        Verdict::Use(endpoint) => Some(endpoint.tunnel.as_bytes()[0]),
        Verdict::Pass => None,
        Verdict::Refuse(_) => panic!("refused"),
    }
}

#[test]
fn exact_first_then_the_longest_suffix() {
    let ids: Vec<String> = (1..=6).map(id).collect();
    let (table, problems) = Table::new(&rules(&[
        (".com", &ids[0]),
        (".example.com", &ids[1]),
        ("example.com", &ids[2]),
        ("*.b.example.com", &ids[3]),
        ("*plain.org", &ids[4]),
        ("*.apex.net", &ids[5]),
    ]));
    assert_eq!(problems, []);
    for (host, expected) in [
        ("example.com", Some(3)),
        ("a.example.com", Some(2)),
        ("z.a.example.com", Some(2)),
        ("b.example.com", Some(4)),
        ("x.y.b.example.com", Some(4)),
        ("badexample.com", Some(1)),
        ("com", Some(1)),
        ("plain.org", Some(5)),
        ("x.plain.org", None),
        ("xplain.org", None),
        ("apex.net", Some(6)),
        ("net", None),
        ("", None),
        // The reference compares with case and keeps trailing dots.
        ("EXAMPLE.com", Some(3)),
        ("A.Example.Com.", Some(2)),
    ] {
        assert_eq!(tunnel(&table, host), expected, "{host}");
    }
}

#[test]
fn rules_are_compared_without_case_and_trailing_dots_too() {
    let (table, problems) =
        Table::new(&rules(&[("*.Example.COM.", &id(1)), ("::1", &id(2)), ("192.0.2.7", &id(3))]));
    assert_eq!(problems, []);
    assert_eq!(tunnel(&table, "a.example.com"), Some(1));
    assert_eq!(tunnel(&table, "[0:0::1]"), Some(2));
    assert_eq!(tunnel(&table, "192.0.2.7"), Some(3));
}

#[test]
fn a_later_rule_overwrites_an_earlier_one_with_the_same_pattern() {
    let (table, _) = Table::new(&rules(&[
        ("*.a.com", &id(1)),
        ("a.com", &id(2)),
        (".A.com", &id(3)),
        ("b.com", &id(4)),
        ("b.com.", "gone"),
    ]));
    assert_eq!(tunnel(&table, "x.a.com"), Some(3));
    assert_eq!(tunnel(&table, "a.com"), Some(2));
    assert_eq!(tunnel(&table, "b.com"), None);
}

#[test]
fn an_endpoint_that_is_no_uuid_hides_the_rules_above_it() {
    for endpoint in ["", "nowhere", "$", "$x", "00000000-0000-0000-0000-000000000000"] {
        let (table, problems) =
            Table::new(&rules(&[(".com", &id(1)), (".example.com", endpoint), ("c.com", endpoint)]));
        assert_eq!(tunnel(&table, "a.example.com"), None, "{endpoint}");
        assert_eq!(tunnel(&table, "c.com"), None, "{endpoint}");
        assert_eq!(tunnel(&table, "x.c.com"), Some(1), "{endpoint}");
        assert_eq!(problems.iter().map(Problem::index).collect::<Vec<_>>(), [1, 2], "{endpoint}");
    }
}

#[test]
fn hostnames_that_never_match_are_reported() {
    let (table, problems) =
        Table::new(&rules(&[("*", &id(1)), ("a.com:80", &id(2)), ("ok.com", &id(3)), ("", &id(4))]));
    assert_eq!(problems.iter().map(Problem::index).collect::<Vec<_>>(), [0, 1, 3]);
    assert!(problems[1].to_string().contains("\"a.com:80\" can never match"), "{}", problems[1]);
    assert_eq!(tunnel(&table, "a.com"), None);
    assert_eq!(tunnel(&table, ""), None);
}

#[test]
fn private_endpoints_are_marked() {
    let (table, _) = Table::new(&rules(&[("a", &format!("${}", id(1))), ("*.b", &id(2))]));
    let endpoint = |n, private, rule: &str| {
        Verdict::Use(Endpoint { tunnel: Uuid::from_bytes([n; 16]), private, rule: rule.into() })
    };
    assert_eq!(ask(&table, "a"), endpoint(1, true, "a"));
    assert_eq!(ask(&table, "x.b"), endpoint(2, false, "*.b"));
}

/// One public rule is enough, also one that is overwritten or that no host can match.
#[test]
fn a_tunnel_is_private_when_no_rule_makes_it_public() {
    let (host, tunnel) = (crate::addr::Host::parse("other").unwrap(), Uuid::from_bytes([1; 16]));
    let (public, private) = (id(1), format!("${}", id(1)));
    for (lines, expected) in [
        (&[("a", &*private), ("*.b", &private)][..], true),
        (&[("a", &private), ("b", &public)], false),
        (&[("a", &private), ("*.b", &public)], false),
        (&[("a", &public), ("a", &private)], false),
        (&[("a", &private), ("a", &public)], false),
        (&[("no host", &public), ("a", &private)], false),
        (&[("no host", &private)], false),
    ] {
        let (table, _) = Table::new(&rules(lines));
        assert_eq!(table.is_private(&host, tunnel), expected, "{lines:?}");
    }
}

#[test]
fn uuids_in_every_form() {
    let plain = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
    let expected = Uuid::parse_str(plain).unwrap();
    for text in [
        plain.to_owned(),
        plain.to_uppercase(),
        plain.replace('-', ""),
        format!("{{{plain}}}"),
        format!("urn:uuid:{plain}"),
        format!("URN:UUID:{plain}"),
        format!(" {plain} "),
    ] {
        assert_eq!(parse_endpoint(&text).unwrap().0, expected, "{text}");
        assert!(parse_endpoint(&format!("${}", text.trim())).unwrap().1, "{text}");
    }
    for text in [
        &plain[1..],
        &format!("{plain}0"),
        &format!("{{{plain}"),
        &format!("$${plain}"),
        &format!("urn:uuid:{}", plain.replace('-', "")),
        "urn:uuid:",
        "urn:uuid:é",
    ] {
        assert_eq!(parse_endpoint(text), None, "{text}");
    }
}

#[test]
fn a_hundred_thousand_rules() {
    let many: Vec<Rule> = (0..100_000u128)
        .map(|n| Rule {
            hostname: format!("{}host-{n}.example.com", if n % 2 == 0 { "*." } else { "" }),
            endpoint: Uuid::from_u128(n + 1).to_string(),
        })
        .collect();
    let (table, problems) = Table::new(&many);
    assert_eq!(problems, []);
    for n in 0..100_000u128 {
        let endpoint = table.lookup(&format!("host-{n}.example.com")).unwrap();
        assert_eq!(endpoint.tunnel.as_u128(), n + 1);
    }
    assert_eq!(table.lookup("host-1000000.example.com"), None);
}

/// The rules as the specification tells them: a list of keys, tried for h, `.h` and every suffix that starts at a dot.
fn reference(rules: &[(String, Option<u8>)], host: &str) -> Option<u8> {
    let find = |key: &str| {
        rules
            .iter()
            .rev()
            .find(|(hostname, _)| hostname.strip_prefix('*').unwrap_or(hostname) == key)
            .map(|r| r.1)
    };
    if host.is_empty() {
        return None;
    }
    let dotted = format!(".{host}");
    let suffixes = dotted.match_indices('.').map(|(at, _)| &dotted[at..]);
    std::iter::once(host).chain(suffixes).find_map(find).flatten()
}

proptest! {
    #[test]
    fn agrees_with_the_specification(
        lines in prop::collection::vec(("[*]?[.]?([abc]|aa)([.]([abc]|aa)){0,3}", prop::option::of(1u8..)), 0..40),
        hosts in prop::collection::vec("(([abc]|aa)([.]([abc]|aa)){0,4})?", 1..20),
    ) {
        let text: Vec<Rule> = lines
            .iter()
            .map(|(hostname, n)| Rule { hostname: hostname.clone(), endpoint: n.map_or_else(String::new, id) })
            .collect();
        let (table, _) = Table::new(&text);
        for host in hosts {
            prop_assert_eq!(tunnel(&table, &host), reference(&lines, &host), "{}", host);
        }
    }
}

#[test]
fn two_columns_with_comments_and_blank_lines() {
    let text = "\u{feff}# comment\r\n\r\nexample.com\t11111111-2222-4333-8444-555555555555 # why\r\n  *.x.org   $abc  \n#\n";
    let lines: Vec<_> =
        parse_lines(text).unwrap().into_iter().map(|rule| (rule.hostname, rule.endpoint)).collect();
    let expected = [("example.com", "11111111-2222-4333-8444-555555555555"), ("*.x.org", "$abc")];
    assert_eq!(lines, expected.map(|(h, e)| (h.to_owned(), e.to_owned())));
}

#[test]
fn a_line_of_one_column_or_three_is_told() {
    for (text, line) in [("a.com 1\n# why\nshort # 2\n", 3), ("a.com 1 more", 1), ("\n\n- hostname: a", 3)] {
        assert_eq!(parse_lines(text), Err(NotTwoColumns(line)), "{text}");
    }
}
