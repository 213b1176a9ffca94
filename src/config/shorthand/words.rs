//! The words of a scheme: which of them name a handler, listener, connector or dialer.

use super::url::{AUTO, Piece};
use crate::config::nodes::Place;
use crate::config::problem::{Collector, Severity};
use crate::config::reader::nearest;

/// What is named on one side of a `+`.
#[derive(Debug)]
struct Half {
    words: &'static [&'static str],
    /// What stands in where a word names something else only.
    fallback: &'static str,
}

/// Which two halves a scheme has.
#[derive(Debug)]
pub(super) struct Side {
    /// What they are, for messages.
    form: &'static str,
    /// Who speaks: handler or connector.
    speaker: Half,
    /// What carries it: listener or dialer.
    carrier: Half,
}

/// `-L`. The words are those that the reference registers, and `whoami`.
pub(super) const SERVICE: Side = Side {
    form: "HANDLER+LISTENER",
    speaker: Half {
        words: &[
            "auto", "dns", "file", "forward", "http", "http2", "http3", "masque", "metrics", "red", "redir",
            "redirect", "redu", "relay", "router", "rtcp", "rudp", "serial", "sni", "socks", "socks4",
            "socks4a", "socks5", "ss", "sshd", "ssu", "tap", "tcp", "tun", "tungo", "tunnel", "udp", "unix",
            "whoami",
        ],
        fallback: AUTO,
    },
    carrier: Half {
        words: &[
            "dns", "dtls", "ftcp", "grpc", "h2", "h2c", "h3", "http2", "http3", "icmp", "icmp6", "kcp",
            "mtcp", "mtls", "mws", "mwss", "obfs", "ohttp", "otls", "pht", "phts", "quic", "red", "redir",
            "redirect", "redu", "rtcp", "rudp", "runix", "serial", "ssh", "sshd", "stdio", "tap", "tcp",
            "tls", "tun", "tungo", "udp", "unix", "utls", "ws", "wss", "wt",
        ],
        fallback: "tcp",
    },
};

/// `-F`.
pub(super) const NODE: Side = Side {
    form: "CONNECTOR+DIALER",
    speaker: Half {
        words: &[
            "direct", "forward", "http", "http2", "masque", "relay", "router", "serial", "sni", "socks",
            "socks4", "socks4a", "socks5", "ss", "sshd", "ssu", "tcp", "tunnel", "udp", "unix", "virtual",
        ],
        fallback: "http",
    },
    carrier: Half {
        words: &[
            "direct", "dtls", "ftcp", "grpc", "h2", "h2c", "h3", "http2", "http3", "icmp", "icmp6", "kcp",
            "mtcp", "mtls", "mws", "mwss", "obfs", "ohttp", "ohttps", "otls", "pht", "phts", "quic",
            "serial", "ssh", "sshd", "tcp", "tls", "udp", "unix", "utls", "virtual", "wg", "ws", "wss", "wt",
        ],
        fallback: "tcp",
    },
};

/// The two words of a scheme. A single one names both halves, and the half that it does not name is the usual one, as in the
/// reference; a word that names nothing at all is an error here, as a misspelt `tls` would be clear text.
pub(super) fn halves(scheme: &Piece, side: &Side, problems: &Collector<'_>) -> Option<(Piece, Piece)> {
    let scheme_text = if scheme.text == "https" { "http+tls" } else { &scheme.text };
    let parts: Vec<_> = scheme_text.split('+').collect();
    let (speaker, carrier) = match *parts {
        [both] => (both, both),
        [speaker, carrier] => (speaker, carrier),
        _ => {
            let message = format!("{scheme_text:?} has {} parts", parts.len());
            let help = format!("expected {}, or one word for both", side.form);
            problems.report(Severity::Error, scheme.at, "", message, help);
            return None;
        }
    };
    let behind = if parts.len() == 1 { 0 } else { speaker.len() + 1 };
    let second = scheme.at.behind(behind);
    let known =
        [(speaker, scheme.at), (carrier, second)].map(|(word, at)| is_known(word, at, side, problems));
    known.iter().all(|known| *known).then(|| {
        let half = |half: &Half, word, at| {
            Piece::new(at, if half.words.contains(&word) { word } else { half.fallback })
        };
        (half(&side.speaker, speaker, scheme.at), half(&side.carrier, carrier, second))
    })
}

fn is_known(word: &str, at: Place, side: &Side, problems: &Collector<'_>) -> bool {
    let all = || side.speaker.words.iter().chain(side.carrier.words).copied();
    let known = word == AUTO || all().any(|known| known == word);
    if !known {
        let (form, hint) = (side.form, nearest(word, all()));
        let help = format!("expected {form}; {}", hint.replace("known here", "known are"));
        problems.report(Severity::Error, at, "", format!("{word:?} is no word for either half"), help);
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{chain, channels, handler};

    /// What a file may name, the command line may, too.
    #[test]
    fn all_that_is_supported_is_known() {
        let (_, handlers) = handler::HANDLERS.split_once("type: ").unwrap();
        let handlers = handlers.trim_end_matches(" }").split(" | ");
        handlers.for_each(|word| assert!(SERVICE.speaker.words.contains(&word), "{word}"));
        chain::CONNECTORS.iter().for_each(|word| assert!(NODE.speaker.words.contains(word), "{word}"));
        ["rtcp", "rudp", "udp"]
            .iter()
            .for_each(|word| assert!(SERVICE.carrier.words.contains(word), "{word}"));
        for word in channels::names() {
            assert!(SERVICE.carrier.words.contains(&word) && NODE.carrier.words.contains(&word), "{word}");
        }
    }
}
