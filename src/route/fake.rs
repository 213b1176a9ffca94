//! Requests for the tests of this folder.

use super::{HttpParts, Protocol, Request};
use crate::addr::Host;

/// An HTTP request without a connection.
#[derive(Debug, Clone)]
pub(super) struct Http {
    pub(super) method: &'static str,
    path: String,
    query: Option<String>,
    fields: Vec<(&'static str, &'static [u8])>,
}

impl Http {
    /// A GET for a path, with a query perhaps.
    pub(super) fn get(target: &str) -> Self {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q.to_owned())));
        Self { method: "GET", path: path.to_owned(), query, fields: Vec::new() }
    }

    pub(super) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.fields.push((name, value.as_bytes()));
        self
    }
}

impl HttpParts for Http {
    fn method(&self) -> &str {
        self.method
    }
    fn path(&self) -> &str {
        &self.path
    }
    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }
    fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v)
    }
    fn all_fields<'a>(&'a self, name: &'a str) -> Box<dyn Iterator<Item = &'a [u8]> + 'a> {
        Box::new(self.fields.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v))
    }
    fn names<'a>(&'a self) -> Box<dyn Iterator<Item = &'a str> + 'a> {
        Box::new(self.fields.iter().map(|(name, _)| *name))
    }
    fn shared(&self) -> std::sync::Arc<dyn HttpParts> {
        std::sync::Arc::new(self.clone())
    }
}

/// A request for `host`, HTTP/1 where there is one and TLS where not.
pub(super) fn request<'a>(host: &str, http: Option<&'a dyn HttpParts>) -> Request<'a> {
    Request {
        hostname: Host::parse(host).unwrap(),
        protocol: if http.is_some() { Protocol::Http1 } else { Protocol::Tls },
        client: "192.0.2.33:4000".parse().unwrap(),
        service: "service-0",
        http,
        extra: Default::default(),
    }
}
