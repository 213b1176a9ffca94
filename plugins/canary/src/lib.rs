//! Canary: a share of the visitors goes to the nodes that carry a label, the others to the rest, and everyone stays where
//! they are from one request to the next. For a hop or forwarder.
//!
//! A visitor is told apart by a cookie if one is configured, otherwise by address. Who is in the share depends on nothing but that
//! and the salt, so all instances and all proxies agree without talking to each other.

use std::cell::RefCell;

wit_bindgen::generate!({ path: "../../wit/1.0.0", world: "forwarder-plugin" });

use exports::pointsman::routing::forwarder::{self, Answer, Node, Verdict};
use exports::pointsman::routing::lifecycle;
use pointsman::routing::request_info;
use pointsman::routing::types::{Dependency, Request, Reuse};

/// How long the host may give an answer that depends on the address only. A node that goes away ends it earlier.
const REUSE_MS: u32 = 60_000;

struct Canary;

export!(Canary);

thread_local!(static CONFIG: RefCell<Config> = RefCell::default());

impl lifecycle::Guest for Canary {
    fn configure(config: String) -> Result<(), String> {
        CONFIG.set(Config::parse(&config)?);
        Ok(())
    }
}

impl forwarder::Guest for Canary {
    fn select(req: Request, nodes: Vec<Node>) -> Result<Answer, String> {
        CONFIG.with_borrow(|config| {
            // A cookie is nothing that the host can compare before it calls, so such an answer is for this request only.
            let cookie = config.cookie.as_deref().and_then(request_info::cookie);
            let by_address = config.cookie.is_none();
            let reuse = Reuse { ttl_ms: REUSE_MS, depends_on: Dependency::CLIENT };
            let visitor = cookie.unwrap_or(req.client);

            let canary = config.takes(&visitor);
            // Without a healthy node the next request is asked about anew: one may be back by then.
            Ok(match choose(config, &nodes, canary, &visitor) {
                Some(index) => Answer { verdict: Verdict::Node(index), reuse: by_address.then_some(reuse) },
                None => Answer { verdict: Verdict::Pass, reuse: None },
            })
        })
    }
}

/// A node of the wanted kind; if none of those is healthy, one of the other kind. `None` leaves it to the hop's strategy.
fn choose(config: &Config, nodes: &[Node], canary: bool, visitor: &str) -> Option<u32> {
    let healthy = (0u32..).zip(nodes).filter(|(_, node)| node.failures == 0);
    let (wanted, others): (Vec<_>, Vec<_>) =
        healthy.partition(|(index, _)| config.is_canary(*index) == canary);
    let group = if wanted.is_empty() { others } else { wanted };

    // By weight, and for the same visitor the same.
    let total: u64 = group.iter().map(|(_, node)| u64::from(node.weight)).sum();
    let mut ticket = hash(&["node", &config.salt, visitor]) % total.max(1);
    for (index, node) in group {
        let weight = u64::from(node.weight);
        if ticket < weight {
            return Some(index);
        }
        ticket -= weight;
    }
    None
}

#[derive(Default)]
struct Config {
    /// In hundredths of a percent.
    share: u64,
    /// Name and value of the label that makes a node a canary.
    label: (String, String),
    cookie: Option<String>,
    salt: String,
}

impl Config {
    /// Lines `key: value`, which is as much of YAML as is needed here.
    fn parse(text: &str) -> Result<Self, String> {
        let mut config = Self { label: ("version".into(), "canary".into()), ..Self::default() };
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split(" #").next().unwrap_or_default().trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once(':').ok_or(format!("line {number}: expected `key: value`"))?;
            let value = value.trim();
            match key.trim() {
                "percent" => {
                    config.share = share(value).ok_or(format!("line {number}: percent is 0 to 100"))?
                }
                "label" => {
                    let (name, value) =
                        value.split_once('=').ok_or(format!("line {number}: expected NAME=VALUE"))?;
                    config.label = (name.into(), value.into());
                }
                "cookie" => config.cookie = Some(value.into()),
                "salt" => config.salt = value.into(),
                other => {
                    return Err(format!(
                        "line {number}: no key {other:?}; there are percent, label, cookie, salt"
                    ));
                }
            }
        }
        Ok(config)
    }

    fn takes(&self, visitor: &str) -> bool {
        hash(&["share", &self.salt, visitor]) % 10_000 < self.share
    }

    /// Labels are not handed over with the nodes: they are asked for.
    fn is_canary(&self, index: u32) -> bool {
        request_info::node_label(index, &self.label.0).is_some_and(|value| value == self.label.1)
    }
}

fn share(percent: &str) -> Option<u64> {
    let percent: f64 = percent.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some((percent * 100.0).round() as u64)
}

/// FNV-1a, its bits mixed once more so that neighbouring addresses are far apart. Not the standard library's hasher: that may
/// change from one compiler to the next, and the visitors would change sides.
fn hash(parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in parts.join("\0").bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}
