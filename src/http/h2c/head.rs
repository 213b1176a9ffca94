//! The head of a request: what it says, what is checked of it, and the changes that a configuration asks for.

use super::super::failure::Failure;
use super::super::rewrite::{Changes, Edit};
use super::Settings;
use crate::addr::HostPort;
use crate::route::HttpParts;
use crate::wire::http::Rejected;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use std::sync::Arc;

impl HttpParts for Parts {
    fn method(&self) -> &str {
        self.method.as_str()
    }
    fn path(&self) -> &str {
        self.uri.path()
    }
    fn query(&self) -> Option<&str> {
        self.uri.query()
    }
    fn field(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name).map(HeaderValue::as_bytes)
    }
    fn all_fields<'a>(&'a self, name: &'a str) -> Box<dyn Iterator<Item = &'a [u8]> + 'a> {
        Box::new(self.headers.get_all(name).into_iter().map(HeaderValue::as_bytes))
    }
    fn names<'a>(&'a self) -> Box<dyn Iterator<Item = &'a str> + 'a> {
        Box::new(self.headers.keys().map(HeaderName::as_str))
    }
    fn shared(&self) -> Arc<dyn HttpParts> {
        Arc::new(self.clone())
    }
}

/// What `h2` does not know of: the bounds, and that all who read the host must find the same (RFC 9113, section 8.3.1).
pub(crate) fn check_fields(parts: &Parts, settings: &Settings) -> Result<(), Failure> {
    let refused = |status, reason| Err(Failure::Request(Rejected { status, reason }));
    // One field may have been split into any number of them (RFC 9113, section 8.2.3).
    let cookies = parts.headers.get_all("cookie").into_iter().count();
    if parts.headers.len() - cookies.saturating_sub(1) > settings.limits.max_fields {
        return refused(431, "too many fields in the head (http.maxHeadFields)");
    }
    if head_size(parts) > settings.limits.max_bytes {
        return refused(431, "head too large (http.maxHeadSize)");
    }
    let mut hosts = parts.headers.get_all("host").into_iter();
    match (hosts.next(), hosts.next(), parts.uri.authority()) {
        (_, Some(_), _) => refused(400, "more than one Host field"),
        (Some(host), None, Some(authority))
            if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            refused(400, "Host differs from the :authority")
        }
        _ => Ok(()),
    }
}

/// What a head counts for in HTTP/2, where it has no fixed length (RFC 9113, section 6.5.2).
fn head_size(parts: &Parts) -> usize {
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let authority = parts.uri.authority().map_or("", |authority| authority.as_str());
    let pseudo = [
        (":method", parts.method.as_str()),
        (":scheme", parts.uri.scheme_str().unwrap_or_default()),
        (":authority", authority),
        (":path", path),
    ];
    let pseudo = pseudo.iter().filter(|(_, value)| !value.is_empty());
    let pseudo = pseudo.map(|(name, value)| name.len() + value.len());
    let fields = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    pseudo.chain(fields).map(|size| size + 32).sum()
}

/// Host and port that a request is for; `None` where they cannot be read.
pub(crate) fn asked_authority(parts: &Parts) -> Option<HostPort> {
    authority(parts).map(|text| HostPort::parse(text, 80)).and_then(Result::ok)
}

/// The host that a request is for, as sent.
pub(super) fn authority(parts: &Parts) -> Option<&str> {
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    authority.or_else(|| parts.headers.get("host")?.to_str().ok())
}

/// The head as it is sent on.
pub(super) fn outgoing(parts: &Parts, changes: &Changes<'_>) -> Request<()> {
    let host = changes.host(parts);
    let mut request = Request::new(());
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = whole_uri(parts, host, changes.target(parts).as_deref());
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = parts.headers.clone();
    if host.is_some() {
        request.headers_mut().remove("host");
    }
    edit_headers(request.headers_mut(), changes.request());
    request
}

/// Sets fields in place of all of their name, or takes them out.
pub(super) fn edit_headers<'e>(headers: &mut HeaderMap, edits: impl Iterator<Item = Edit<'e>>) {
    for (name, value) in edits {
        // What cannot stand in a field was refused with the configuration.
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
        match value.map(|value| HeaderValue::from_str(&value)) {
            Some(Ok(value)) => drop(headers.insert(name, value)),
            Some(Err(_)) => {}
            None => drop(headers.remove(name)),
        }
    }
}

/// The target with scheme and authority, without which no request can be sent; a visitor may name its host by a field only.
fn whole_uri(parts: &Parts, host: Option<&str>, target: Option<&str>) -> Uri {
    if parts.uri.authority().is_some() && host.is_none() && target.is_none() {
        return parts.uri.clone();
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let scheme = parts.uri.scheme_str().unwrap_or("http");
    let whole = host.or_else(|| authority(parts)).and_then(|authority| {
        let uri = Uri::builder().scheme(scheme).authority(authority);
        uri.path_and_query(target.unwrap_or(path)).build().ok()
    });
    whole.unwrap_or_else(|| parts.uri.clone())
}
