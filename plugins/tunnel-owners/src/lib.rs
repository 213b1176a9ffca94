//! Tunnel owners: which users may open which tunnels, and for which names. For a tunnel server.
//!
//! The table is this plugin's configuration, so tunnels are given away and taken back by exchanging one file of the plugin folder,
//! without a word in the proxy's own.

use std::cell::RefCell;
use std::collections::HashMap;

use serde::Deserialize;

wit_bindgen::generate!({ path: "../../wit/1.0.0", world: "admission-plugin" });

use exports::pointsman::routing::admission::{self, Answer, Opening, Verdict};
use exports::pointsman::routing::lifecycle;
use pointsman::routing::types::{Dependency, Reuse};

/// Nothing but the question counts, and that always does: the host may give an answer again for as long as it keeps any.
const FOR_GOOD: Reuse = Reuse { ttl_ms: u32::MAX, depends_on: Dependency::empty() };

/// Names that the host takes in one answer.
const MAX_HOSTNAMES: usize = 64;

struct TunnelOwners;

export!(TunnelOwners);

thread_local!(static TABLE: RefCell<Table> = RefCell::default());

impl lifecycle::Guest for TunnelOwners {
    fn configure(config: String) -> Result<(), String> {
        TABLE.set(Table::parse(&config)?);
        Ok(())
    }
}

impl admission::Guest for TunnelOwners {
    fn admit(asked: Opening) -> Result<Answer, String> {
        let verdict = TABLE.with_borrow(|table| table.verdict(&asked));
        Ok(Answer { verdict, reuse: Some(FOR_GOOD) })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    tunnels: Vec<Tunnel>,
    #[serde(default)]
    others: Others,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tunnel {
    id: String,
    /// Empty: every user, and clients that need not say who they are.
    #[serde(default)]
    users: Vec<String>,
    /// Empty: as the proxy's configuration says.
    #[serde(default)]
    hostnames: Vec<String>,
}

/// What becomes of a tunnel that is not in the table.
#[derive(Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Others {
    /// Nobody may open it.
    #[default]
    Deny,
    /// The next plugin or the proxy's configuration decides.
    Pass,
}

#[derive(Default)]
struct Table {
    /// By ID in lower case, as the host writes it.
    tunnels: HashMap<String, Tunnel>,
    others: Others,
}

impl Table {
    fn parse(text: &str) -> Result<Self, String> {
        // Without the lines around the place: the message becomes one line of a log.
        let options = serde_saphyr::options! { with_snippet: false };
        let config: Option<Config> =
            serde_saphyr::from_str_with_options(text, options).map_err(|e| e.to_string())?;
        let Some(config) = config else { return Ok(Self::default()) };
        let mut table = Self { others: config.others, ..Self::default() };
        for mut tunnel in config.tunnels {
            let id = tunnel.id.trim().to_ascii_lowercase();
            if !is_uuid(&id) {
                return Err(format!("tunnel {:?}: expected a UUID as id", tunnel.id));
            }
            if tunnel.hostnames.len() > MAX_HOSTNAMES {
                return Err(format!("tunnel {id}: more than {MAX_HOSTNAMES} hostnames"));
            }
            if let Some(name) = tunnel.hostnames.iter().find(|name| !is_hostname(name)) {
                return Err(format!("tunnel {id}: {name:?} is no host such as a.example or '*.a.example'"));
            }
            tunnel.users.sort();
            if table.tunnels.insert(id.clone(), tunnel).is_some() {
                return Err(format!("tunnel {id} stands twice"));
            }
        }
        Ok(table)
    }

    fn verdict(&self, asked: &Opening) -> Verdict {
        let Some(tunnel) = self.tunnels.get(&asked.tunnel) else {
            return match self.others {
                Others::Deny => Verdict::Deny("the tunnel is not in the table".into()),
                Others::Pass => Verdict::Pass,
            };
        };
        if tunnel.users.is_empty() || tunnel.users.binary_search(&asked.user).is_ok() {
            return Verdict::Allow(tunnel.hostnames.clone());
        }
        match asked.user.as_str() {
            "" => Verdict::Deny("the tunnel has owners, and the client is no user".into()),
            _ => Verdict::Deny("the tunnel belongs to others".into()),
        }
    }
}

/// Eight, four, four, four and twelve hexadecimal digits with `-` between them.
fn is_uuid(text: &str) -> bool {
    let groups = text.split('-').map(|group| (group.len(), group.bytes().all(|b| b.is_ascii_hexdigit())));
    groups.eq([8, 4, 4, 4, 12].map(|len| (len, true)))
}

/// As much of the host's own check as catches a slip here, and not with the first client.
fn is_hostname(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    name.len() <= 253
        && name.split('.').all(|label| (1..=63).contains(&label.len()) && label.bytes().all(fits))
}
