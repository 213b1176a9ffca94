//! A question on the command line: a file, flags, or flags that stand above a file.

use super::{Failure, text, unasked};
use crate::plugin::Case;
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Question {
    /// The question as YAML: the keys of `request` in a decision table, and `nodes` and `store`
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// The host asked for
    #[arg(long)]
    host: Option<String>,
    /// http1, http2, tls, ssh, tcp (not looked into) or unknown [default: http1 with a method, path or header, otherwise tls]
    #[arg(long)]
    protocol: Option<String>,
    /// The visitor's address [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    client: Option<String>,
    /// The service or entrypoint
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// The HTTP method [default: GET]
    #[arg(long)]
    method: Option<String>,
    /// The HTTP path, with the query behind `?`
    #[arg(long)]
    path: Option<String>,
    /// A header field, `NAME: VALUE`; may be given several times
    #[arg(long = "header", value_name = "FIELD", value_parser = pair::<':'>)]
    headers: Vec<(String, String)>,
    /// An application protocol that a TLS visitor offers; may be given several times
    #[arg(long, value_name = "PROTOCOL")]
    alpn: Vec<String>,
    /// Metadata, `KEY=VALUE`; may be given several times
    #[arg(long, value_name = "PAIR", value_parser = pair::<'='>)]
    metadata: Vec<(String, String)>,
    /// The time it is, such as 2026-01-31T12:00:00Z [default: the clock's]
    #[arg(long, value_name = "TIME")]
    now: Option<String>,
    /// A candidate, `NAME` or `NAME=HOST:PORT`; may be given several times. With any, `forwarder.select` is asked
    #[arg(long = "node", value_name = "NODE")]
    nodes: Vec<String>,
    /// The tunnel that a client wants to open. With one, `admission.admit` is asked
    #[arg(long, value_name = "UUID")]
    tunnel: Option<String>,
    /// The user that the client is
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The client serves UDP
    #[arg(long)]
    udp: bool,
    /// Put into the plugin's store before, `KEY=VALUE`; may be given several times
    #[arg(long, value_name = "PAIR", value_parser = pair::<'='>)]
    store: Vec<(String, String)>,
}

/// A name and a value with `SEPARATOR` between them.
fn pair<const SEPARATOR: char>(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(SEPARATOR).ok_or_else(|| format!("expected NAME{SEPARATOR}VALUE"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl Question {
    /// Whether nothing was asked.
    pub(super) fn is_empty(&self) -> bool {
        self.request.is_none() && self.keys().is_empty()
    }

    pub(super) fn case(&self) -> Result<Case, Failure> {
        let yaml = self.request.as_deref().map(text).transpose()?;
        Case::question(yaml.as_deref(), self.keys()).map_err(unasked)
    }

    /// The flags in the words of a decision table.
    fn keys(&self) -> Map<String, Value> {
        let mut keys = Map::new();
        let path = self.path.as_deref().map(|path| path.split_once('?').unwrap_or((path, "")));
        for (key, value) in [
            ("hostname", self.host.as_deref()),
            ("protocol", self.protocol.as_deref()),
            ("client", self.client.as_deref()),
            ("service", self.service.as_deref()),
            ("method", self.method.as_deref()),
            ("path", path.map(|(path, _)| path)),
            ("query", path.map(|(_, query)| query).filter(|query| !query.is_empty())),
            ("now", self.now.as_deref()),
            ("tunnel", self.tunnel.as_deref()),
            ("user", self.user.as_deref()),
        ] {
            keys.extend(value.map(|value| (key.to_owned(), json!(value))));
        }
        for (key, pairs) in [("headers", &self.headers), ("metadata", &self.metadata), ("store", &self.store)]
        {
            let pairs: Map<_, _> = pairs.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            keys.extend((!pairs.is_empty()).then(|| (key.to_owned(), pairs.into())));
        }
        if self.udp {
            keys.insert("udp".to_owned(), json!(true));
        }
        if !self.alpn.is_empty() {
            keys.insert("alpn".to_owned(), json!(self.alpn));
        }
        if !self.nodes.is_empty() {
            keys.insert("nodes".to_owned(), self.nodes.iter().map(|text| node(text)).collect());
        }
        keys
    }
}

fn node(text: &str) -> Value {
    match text.split_once('=') {
        Some((name, address)) => json!({ "name": name, "address": address }),
        None => json!({ "name": text }),
    }
}
