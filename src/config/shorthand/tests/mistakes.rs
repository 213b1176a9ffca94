//! What is said about arguments that are wrong, or have no effect.

use super::super::super::{Shorthand, load_all};
use super::super::url::{self, unescape};
use super::super::words::{NODE, SERVICE, halves};
use super::{printed, refused, shorthand};
use crate::config::problem::{Collector, Origin};
use proptest::prelude::*;
use std::borrow::Cow;

/// The whole message, as one sees it.
#[test]
fn mistakes_are_shown_in_the_argument() {
    let shown = "error: services[0].handler.metadata.bnid: unknown key \"bnid\"
 --> -L 'relay+wss://:8443...'
  |
  | relay+wss://u:secret@:8443?bnid=true&path=/x
  |                            ^
  = did you mean \"bind\"?
";
    assert_eq!(refused("-L relay+wss://u:secret@:8443?bnid=true&path=/x"), shown);
    for (line, texts) in [
        ("-L :8080", &["-L ':8080'\n", "no handler is named", "auto"][..]),
        ("-L 8080", &["-L '8080'\n", "no handler is named"]),
        ("-L wss://:8080", &["-L 'wss://:8080'\n", "no handler is named"]),
        ("-L whoami://8080", &["\"8080\" is no address", "for the port write \":8080\""]),
        ("-L tunnle://:80", &["\"tunnle\" is no word for either half", "did you mean \"tunnel\"?"]),
        ("-L relay+tsl://:80", &["\"tsl\" is no word for either half", "\n  |       ^\n"]),
        ("-L a+b+c://:80", &["has 3 parts"]),
        ("-L socks5+tls://:80", &["services[0].handler.type: \"socks5\" is not supported yet"]),
        ("-L tcp+ssh://:80/a:1", &["services[0].listener.type: \"ssh\" is not supported yet"]),
        ("-L rtcp://:0/a:1", &["listener rtcp without a chain"]),
        ("-L tcp://:80", &["handler without a forwarder"]),
        ("-L whoami://:80?x=1&X=2", &["stands here twice", "\n  |                  ^\n"]),
        ("-L whoami://:80?x=%zz", &["a malformed escape", "\n  |                ^\n"]),
        ("-L whoami://u:%ff@:80", &["a malformed escape"]),
        ("-L whoami://:80?a=1;b=2", &["a ; in the query"]),
        ("-L whoami://u:p#q@:80", &["write %23 for a #"]),
        ("-L whoami://:80?fingerprint=x", &["unknown key \"fingerprint\""]),
        ("-L whoami://:80 -F htpp://h:1", &["-F 'htpp://h:1'\n", "did you mean \"http\"?"]),
        ("-L tcp://:80/a:1 -F h:1?secure=true", &["tls on a dialer of type tcp", "-F 'h:1...'"]),
        ("-L tcp://:80/a:1 -F :1", &["node without a host"]),
        ("-F http://h:1", &["no services", "warning: no -L takes this way", "-F 'http://h:1'\n"]),
        ("-L tunnel://:80?tunnels=x", &["found \"x\"", "expected a list"]),
        ("-L tunnel://:80?tunnel.id=<id>", &["services[0].handler.metadata.tunnel.id: unknown key"]),
    ] {
        let text = refused(line);
        assert!(texts.iter().all(|part| text.contains(part)), "{line}:\n{text}");
    }
    let empty = Shorthand { services: vec![" ".to_owned()], nodes: Vec::new() };
    assert!(load_all(&[], &empty).unwrap_err().0[0].message.contains("empty argument"));
}

#[test]
fn what_has_no_effect_is_said_once() {
    let warnings = |line: &str| -> Vec<_> {
        let printed = printed(&[], line).unwrap_or_else(|problems| panic!("{line}\n{problems}"));
        printed.warnings.into_iter().map(|warning| (warning.path, warning.message)).collect()
    };
    for (line, path, message) in [
        (
            "-L tcp://:8000-8009/a:1?nodelay=true",
            "services[0].handler.metadata.nodelay",
            "not supported yet, left aside",
        ),
        ("-L tcp://:80/a:1 -F http://h:1/p/", "", "a path behind a node: left aside"),
        ("-L whoami://:80?http.keepalive=", "", "key \"http.keepalive\" without a value: left aside"),
        ("-L whoami://:80?strategy=fifo", "", "a choice between targets, and there are none: left aside"),
        (
            "-L whoami://:80?sniffing=true",
            "services[0].handler.metadata.sniffing",
            "no effect with handler whoami",
        ),
    ] {
        assert_eq!(warnings(line), [(path.to_owned(), message.to_owned())], "{line}");
    }
}

/// A log holds the names of arguments, and must not hold what they hide.
#[test]
fn names_of_arguments_hold_no_secret() {
    for (line, name) in [
        ("-L relay+wss://user:secret@:8443?auth=secret", "-L 'relay+wss://:8443...'"),
        ("-F user:secret@[::1]:1080", "-F '[::1]:1080'"),
        ("-F http://u:secret@h:1", "-F 'http://h:1'"),
        ("-L tcp://:80/secret", "-L 'tcp://:80...'"),
    ] {
        let shorthand = shorthand(line);
        let names: Vec<_> = shorthand.origins().map(|origin| origin.name.into_owned()).collect();
        assert_eq!(names, [name]);
    }
}

fn collector(text: &str) -> Collector<'_> {
    Collector::new(vec![Origin { name: Cow::Borrowed(""), text, argument: true }])
}

proptest! {
    /// What is escaped comes back, and what is not text is no panic.
    #[test]
    fn escapes(text in "\\PC{0,20}", raw in "[%0-9a-fA-Fg+]{0,12}") {
        let escaped: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        prop_assert_eq!(unescape(&escaped, true), Ok(text));
        if let Err(at) = unescape(&raw, false) {
            prop_assert!(raw[at..].starts_with('%'));
        }
    }

    /// Whatever is typed is read or explained, with a place in it.
    #[test]
    fn any_argument(text in "([a-z+]{0,8}://)?[ -~é]{0,40}") {
        let problems = collector(&text);
        if let Some(url) = url::parse(&text, 0, &problems) {
            for side in [&SERVICE, &NODE] {
                halves(&url.scheme, side, &problems);
            }
        } else {
            prop_assert!(problems.has_errors());
        }
        drop(problems.finish().into_iter().map(|problem| problem.to_string()).collect::<String>());
        let shorthand = Shorthand { services: vec![text.clone()], nodes: vec![text] };
        drop(load_all(&[], &shorthand));
    }
}
