use super::*;
use crate::route::fake::{Http, request};
use proptest::prelude::*;

fn holds(rule: &str, request: &Request<'_>) -> bool {
    Rule::parse(rule).unwrap_or_else(|e| panic!("{rule}: {e} at {}", e.offset())).matches(request)
}

fn check(http: &Http, yes: &[&str], no: &[&str]) {
    let request = request("www.example.com", Some(http));
    for rule in yes {
        assert!(holds(rule, &request), "{rule}");
        assert!(!holds(&format!("!({rule})"), &request), "!({rule})");
    }
    for rule in no {
        assert!(!holds(rule, &request), "{rule}");
    }
}

#[test]
fn hosts_are_compared_without_case_and_stars_leave_the_apex_out() {
    check(
        &Http::get("/"),
        &[
            "Host(`www.example.com`)",
            "Host(`WWW.Example.com.`)",
            "Host(\"www.example.com\")",
            "Host(`*.example.com`)",
            "Host(`.example.com`)",
            "Host(`.com`)",
            r"HostRegexp(`^www\.example\.(com|org)$`)",
            "HostRegexp(`exam`)",
        ],
        &["Host(`example.com`)", "Host(`*.www.example.com`)", "Host(`.ample.com`)", "HostRegexp(`^example`)"],
    );
    assert!(!holds("Host(`*.example.com`)", &request("example.com", None)));
    assert!(!holds("Host(`.example.com`)", &request("badexample.com", None)));
    assert!(!holds("Host(`.example.com`)", &request("", None)));
    assert!(holds("HostRegexp(`^x`)", &request("X.ORG", None)));
}

#[test]
fn method_and_path() {
    check(
        &Http::get("/api/v1?x=/y"),
        &[
            "Method(`GET`)",
            "Method(`get`)",
            "Path(`/api/v1`)",
            "PathPrefix(`/api`)",
            "PathPrefix(`/ap`)",
            "PathPrefix(`/`)",
            r"PathRegexp(`^/api/v\d$`)",
        ],
        &["Method(`POST`)", "Path(`/api`)", "Path(`/api/v1/`)", "PathPrefix(`/v1`)", "PathRegexp(`y`)"],
    );
    let mut lower = Http::get("/");
    lower.method = "get";
    assert!(!holds("Method(`GET`)", &request("", Some(&lower))));
    check(&Http::get("/%61pi%2Fx"), &["Path(`/api/x`)", "PathPrefix(`/a`)"], &["PathPrefix(`/%61`)"]);
    check(&Http::get("/a%zz"), &["Path(`/a%zz`)"], &[]);
    check(&Http::get("*"), &[], &["PathPrefix(`/`)"]);
}

#[test]
fn query_parameters() {
    check(
        &Http::get("/?a=1&b=two%20words&b=x+y&empty&bad=%zz&n=7.5&se=mi;colon&c%3D=eq"),
        &[
            "Query(`a`)",
            "Query(`a`, `1`)",
            "Query(`b`, `two words`)",
            "Query(`b`, `x y`)",
            "Query(`empty`)",
            "Query(`c=`, `eq`)",
            "QueryRegexp(`b`, `^two`)",
            "QueryRegexp(`a`)",
            "Query(`n`, gt, 7)",
            "Query(`n`, `ge`, `7.5`)",
            "Query(`n`, lt, 1e3)",
            "Query(`n`, le, +7.5)",
            "Query(`n`, eq, 7.50)",
            "Query(`n`, ne, -1)",
        ],
        &[
            "Query(`A`)",
            "Query(`a`, `2`)",
            "Query(`b`, `two`)",
            "Query(`bad`)",
            "Query(`se`)",
            "QueryRegexp(`a`, `2`)",
            "Query(`n`, gt, 7.5)",
            "Query(`n`, ne, 7.5)",
            "Query(`b`, ne, 1)",
            "Query(`missing`, ne, 1)",
        ],
    );
    check(&Http::get("/"), &[], &["Query(`a`)"]);
}

#[test]
fn header_fields() {
    check(
        &Http::get("/").with("X-Env", "blue").with("x-env", "green").with("X-Size", " 12 "),
        &[
            "Header(`x-env`)",
            "Header(`X-ENV`, `blue`)",
            "Header(`X-Env`, `green`)",
            "HeaderRegexp(`X-Env`, `^gr..n$`)",
            "HeaderRegexp(`X-Env`)",
            "Header(`X-Size`, ge, 12)",
            "Header(`X-Size`, lt, 12.5)",
        ],
        &[
            "Header(`X-Other`)",
            "Header(`X-Env`, `Blue`)",
            "HeaderRegexp(`X-Env`, `red`)",
            "Header(`X-Size`, gt, 12)",
            "Header(`X-Env`, ne, 1)",
        ],
    );
}

#[test]
fn client_protocol_and_network() {
    check(
        &Http::get("/"),
        &[
            "ClientIP(`192.0.2.33`)",
            "ClientIP(`192.0.2.0/24`)",
            "ClientIP(`192.0.2.99/25`)",
            "ClientIP(`::ffff:192.0.2.33`)",
            "ClientIP(`::ffff:192.0.2.0/120`)",
            "ClientIP(`0.0.0.0/0`)",
            "Proto(`http`)",
            "Proto(`HTTP`)",
            "Network(`tcp`)",
            "Network(`t`)",
        ],
        &[
            "ClientIP(`192.0.2.34`)",
            "ClientIP(`192.0.3.0/24`)",
            "ClientIP(`::/0`)",
            "Proto(`tls`)",
            "Network(`udp`)",
        ],
    );
    let mut mapped = request("", None);
    mapped.client = "[::ffff:10.0.0.1]:1".parse().unwrap();
    assert!(holds("ClientIP(`10.0.0.0/8`) && Proto(`tls`)", &mapped));
    mapped.client = "[2001:db8::1]:1".parse().unwrap();
    assert!(holds("ClientIP(`2001:db8::/32`)", &mapped));
    assert!(!holds("ClientIP(`2001:db9::/32`)", &mapped));
}

#[test]
fn what_needs_http_is_false_without() {
    let tls = request("a", None);
    for call in
        ["Method(`GET`)", "Path(`/`)", "PathPrefix(`/`)", "PathRegexp(``)", "Query(`a`)", "Header(`a`)"]
    {
        let call = call.replace("``", "`.*`");
        assert!(!holds(&call, &tls), "{call}");
        assert!(holds(&format!("!{call}"), &tls), "!{call}");
    }
}

#[test]
fn operators_bind_as_in_go() {
    let request = request("a", None);
    let (t, f) = ("Host(`a`)", "Host(`b`)");
    for (rule, expected) in [
        ("T || F && F", true),
        ("(T || F) && F", false),
        ("F && F || T", true),
        ("!F && T", true),
        ("!(F && T)", true),
        ("!T || F", false),
        ("!!T", true),
        ("! ! !T", false),
        ("!(!(T))", true),
        ("((((T))))", true),
        ("T&&T&&F", false),
        ("F||F||T", true),
        ("\n T\t&&\r\n T ", true),
    ] {
        let text = rule.replace('T', t).replace('F', f);
        assert_eq!(holds(&text, &request), expected, "{rule}");
    }
}

#[test]
fn names_in_four_spellings() {
    for name in ["ClientIP", "clientip", "CLIENTIP", "Clientip"] {
        assert!(Rule::parse(&format!("{name}(`::1`)")).is_ok(), "{name}");
    }
    for name in ["clientIP", "CLIENTip", "ClientIp"] {
        assert!(Rule::parse(&format!("{name}(`::1`)")).is_err(), "{name}");
    }
}

#[test]
fn strings_in_double_quotes_have_escapes() {
    let http = Http::get("/").with("X", "a\"b\\c\tdA\u{e9}");
    check(&http, &[r#"Header(`X`, "a\"b\\c\td\x41\u00e9")"#, r"HeaderRegexp(`X`, `\\c\t`)"], &[]);
}

#[test]
fn errors_say_what_and_where() {
    for (rule, offset, words) in [
        ("", 0, "expected a function"),
        ("Host(`a`) &&", 12, "found the end"),
        ("Host(`a`) & Host(`b`)", 10, "expected `&&`"),
        ("Host(`a`) Host(`b`)", 10, "expected `&&`"),
        ("(Host(`a`)", 10, "expected `)`"),
        ("Host(`a`))", 9, "expected `&&`"),
        ("Host `a`", 5, "expected `(`"),
        ("Host(`a`, `b`)", 0, "takes one text, found 2"),
        ("Host()", 0, "takes one text, found 0"),
        ("Host(a)", 5, "back quotes"),
        ("Host(``)", 5, "empty"),
        ("Host(`a`,)", 9, "expected a text"),
        ("Host(`a)", 5, "never closed"),
        ("Host(\"a)", 5, "never closed"),
        (r#"Path("/\q")"#, 7, "unknown escape"),
        (r#"Path("/\xff")"#, 7, "unknown escape"),
        ("Host(`é`)", 5, "no host"),
        ("Host(`a:80`)", 5, "no host"),
        ("Path(`a`)", 5, "slash"),
        ("T && Hsot(`a`)", 0, "unknown function \"T\""),
        ("Hsot(`a`)", 0, "did you mean \"Host\"?"),
        ("HostRegexp(`(`)", 11, "unclosed group"),
        (r"PathRegexp(`(\w{1000}){1000}`)", 11, "not a regular expression"),
        ("ClientIP(`1.2.3`)", 9, "no IP or CIDR"),
        ("ClientIP(`1.2.3.4/33`)", 9, "no IP or CIDR"),
        ("ClientIP(`1.2.3.4/+3`)", 9, "no IP or CIDR"),
        ("ClientIP(`::ffff:1.2.3.4/95`)", 9, "no IP or CIDR"),
        ("Header(`a`, xx, 1)", 12, "expected gt"),
        ("Query(`a`, gt, one)", 15, "no number"),
        ("Query(`a`, gt, nan)", 15, "no number"),
        ("QueryRegexp(`a`, gt, 1)", 0, "1 to 2 arguments"),
        (
            "BodyRegexp(`a`)",
            0,
            "BodyRegexp is not supported: bodies are passed on as they come, and not held back to be looked at",
        ),
        (
            "bodyjson(`a`, `b`)",
            0,
            "BodyJSON is not supported: bodies are passed on as they come, and not held back to be looked at",
        ),
        ("Host(`a`) && Bypass(`a`)", 13, "Bypass is not supported: what it names is not supported yet"),
        ("Admission(`a`)", 0, "Admission is not supported: what it names is not supported yet"),
    ] {
        let error = Rule::parse(rule).expect_err(rule);
        assert!(error.to_string().contains(words), "{rule}: {error}");
        assert_eq!(error.offset(), offset, "{rule}: {error}");
    }
}

#[test]
fn depth_size_and_expressions_are_bounded() {
    let nested = |n| format!("{}Host(`a`){}", "(".repeat(n), ")".repeat(n));
    assert!(Rule::parse(&nested(parse::MAX_DEPTH)).is_ok());
    assert!(Rule::parse(&nested(parse::MAX_DEPTH + 1)).is_err());
    assert!(Rule::parse(&"!(".repeat(5000)).is_err());
    assert!(Rule::parse(&format!("{}Host(`a`)", "!".repeat(10_001))).is_ok());
    assert!(Rule::parse(&" ".repeat(parse::MAX_RULE_LEN + 1)).unwrap_err().to_string().contains("bytes"));
    assert!(
        Rule::parse(&["HostRegexp(`a`)"; 33].join("||")).unwrap_err().to_string().contains("more than 32")
    );
}

#[test]
fn rules_are_equal_by_text_and_show_it() {
    let rule = Rule::parse("Host(`a`)").unwrap();
    assert_eq!(rule, rule.clone());
    assert_ne!(rule, Rule::parse("Host(`a`) ").unwrap());
    assert_eq!(format!("{rule:?}"), "Rule(\"Host(`a`)\")");
    assert_eq!(rule.text(), "Host(`a`)");
}

#[test]
fn what_a_rule_is_bound_to() {
    for (rule, bounds) in [
        ("Host(`A`)", "a"),
        ("Host(`b`) || Host(`a`) || Host(`*.x.org`) || Host(`a`) || Host(`*.a`)", "a b x.org"),
        ("Path(`/x`) || PathPrefix(`/y`)", "/x /y"),
        ("Path(`/`) && (Host(`a`) || Host(`b`))", "a/ b/"),
        ("(Host(`a`) || Host(`b`)) && Host(`.x.org`)", "x.org"),
        ("(Host(`a`) || Host(`b`)) && Method(`GET`) && (Path(`/1`) || Path(`/2`))", "a/1 a/2 b/1 b/2"),
        ("Host(`a`) && Path(`/1`) || Host(`b`) && Path(`/2`)", "a/1 b/2"),
        ("(Host(`a`) || Host(`b`) && Path(`/2`)) && PathPrefix(`/`)", "a/ b/2"),
        ("Host(`a`) && PathPrefix(`/`) && PathPrefix(`/x`) && Host(`x.a`)", "x.a/x"),
        ("(Host(`a`) || Path(`/`)) && Method(`GET`)", "/ a"),
        ("!(!(Host(`a`)))", "a"),
        ("HostRegexp(`a`) && Path(`/`)", "/"),
        ("Host(`a`) || Method(`GET`)", ""),
        ("!Host(`a`)", ""),
        ("HostRegexp(`a`)", ""),
        ("PathRegexp(`^/a`)", ""),
        ("!(Path(`/`) && Host(`a`))", ""),
    ] {
        let rule = Rule::parse(rule).unwrap();
        let text = |bound: &Bound<'_>| format!("{}{}", bound.host, std::str::from_utf8(bound.path).unwrap());
        let found: Vec<_> = rule.bounds().iter().map(text).collect();
        assert_eq!(found.join(" "), bounds, "{rule:?}");
    }
}

#[test]
fn what_a_rule_is_bound_to_is_not_multiplied_without_end() {
    let any = |name: &str, count| {
        (0..count)
            .map(|n| format!("{name}(`/{n}`)"))
            .collect::<Vec<_>>()
            .join(" || ")
            .replace("Host(`/", "Host(`")
    };
    let bounds = |hosts, paths| {
        let rule = format!("({}) && ({})", any("Host", hosts), any("Path", paths));
        Rule::parse(&rule).unwrap().bounds().len()
    };
    assert_eq!(
        [bounds(8, 8), bounds(8, 9), bounds(100, 1), bounds(1, 100), bounds(90, 80)],
        [64, 8, 100, 100, 80]
    );
}

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "(\\.|\\*\\.)?[ab](\\.[ab]){0,2}".prop_map(|host| format!("Host(`{host}`)")),
        "Path(Prefix)?\\(`/[ab]?(/a)?`\\)",
        Just("Method(`GET`)".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(|terms| format!("({})", terms.join("&&"))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|terms| format!("({})", terms.join("||"))),
            inner.prop_map(|term| format!("!{term}")),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = Rule::parse(&text);
    }

    #[test]
    fn no_text_like_a_rule_panics(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "Host", "header", "QUERY", "PathRegexp", "ClientIP", "(", ")", "`", "\"", "\\", "x", "\\u00", "é", ",",
            "&&", "||", "!", "&", "gt", "1", "-", "/", "[", "*", ".", " ", "`a`", "(`/a`)", "`k`,gt,1",
        ]), 0..24)
    ) {
        let text = tokens.concat();
        match Rule::parse(&text) {
            Ok(rule) => { rule.matches(&request("a.b", Some(&Http::get("/?k=2")))); }
            Err(error) => prop_assert!(text.is_char_boundary(error.offset()), "{}", error),
        }
    }

    #[test]
    fn a_rule_matches_only_what_it_is_bound_to(
        text in expression(), host in "([ab](\\.[ab]){0,3})?", path in "/[ab]?(/[ab])?", http in any::<bool>(),
    ) {
        let rule = Rule::parse(&text).unwrap();
        let get = Http::get(&path);
        let request = request(&host, if http { Some(&get) } else { None });
        let meets = |bound: &Bound<'_>| {
            (bound.host.is_empty() || host == bound.host || host.ends_with(&format!(".{}", bound.host)))
                && (bound.path.is_empty() || http && path.as_bytes().starts_with(bound.path))
        };
        if rule.matches(&request) {
            prop_assert!(rule.bounds().iter().any(meets), "{:?}", rule.bounds());
        }
    }
}

/// What is not known is false, and its negation true.
#[test]
fn rules_that_can_never_match() {
    let nothing = Known { host: false, protocol: false, http: false };
    let host = Known { host: true, ..nothing };
    let all = Known { host: true, protocol: true, http: true };
    for (rule, known) in [
        ("Host(`a`)", [false, true, true]),
        ("Host(`a`) && Path(`/a`)", [false, false, true]),
        ("Host(`a`) || Path(`/a`)", [false, true, true]),
        ("Host(`a`) || ClientIP(`10.0.0.1`)", [true, true, true]),
        ("!Path(`/a`) && HostRegexp(`a`)", [true, true, true]),
        ("!(!Path(`/a`) && !Proto(`tls`))", [false, false, true]),
        ("!(Path(`/a`) && Network(`tcp`))", [true, true, true]),
    ] {
        let parsed = Rule::parse(rule).unwrap();
        assert_eq!([nothing, host, all].map(|known| parsed.can_match(known)), known, "{rule}");
    }
}
