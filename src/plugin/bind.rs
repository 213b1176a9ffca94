//! The interface of `wit/1.0.0` on the host's side: generated bindings, and the functions that guests call.
//!
//! Conversion to and from the types of `route` is in `ask`; what WASI is to a guest is in `wasi`.

use super::engine::{Budget, Meter};
use super::store::{self, Store};
use crate::route::{Extra, HttpParts, Node};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use wasmtime::Result;
use wasmtime::component::{HasSelf, Linker};

mod generated {
    #![allow(
        missing_debug_implementations,
        unreachable_pub,
        elided_lifetimes_in_paths,
        unused_qualifications,
        clippy::use_self,
        clippy::or_fun_call,
        clippy::unwrap_used,
        reason = "made by a macro"
    )]
    wasmtime::component::bindgen!({
        path: "wit/1.0.0",
        world: "plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

pub(super) use generated::exports::pointsman::routing::{admission, forwarder, ingress, lifecycle};
pub(super) use generated::pointsman::routing::types;

use generated::pointsman::routing::{host, request_info, store as wit_store};

/// The version of the interface that is offered.
pub(super) const VERSION: &str = "1.0.0";

/// Lines that one call may write to the log; a guest that logs in a loop would fill the disk.
const LINES_PER_CALL: u32 = 16;
/// Lines a second that all calls of one plugin may write.
const LINES_PER_SECOND: u64 = 100;
/// Bytes of a line that are kept.
const MAX_LINE: usize = 1024;

/// What all instances of a plugin, of whatever version, have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: Arc<str>,
    pub(super) store: Store,
    lines: Lines,
    /// Functions that were denied and logged.
    denied: Mutex<BTreeSet<String>>,
}

impl Shared {
    pub(super) fn new(name: &str, store: Store) -> Self {
        Self { name: name.into(), store, lines: Lines::default(), denied: Mutex::default() }
    }

    /// One line for each function, so that the author learns why it fails and the log does not fill.
    pub(super) fn log_denied(&self, call: &str) {
        if self.denied.lock().unwrap_or_else(PoisonError::into_inner).insert(call.to_owned()) {
            tracing::warn!(
                plugin = &*self.name,
                call,
                "plugins have no files, sockets or waits: the call fails"
            );
        }
    }
}

/// How many lines were written in the current second; the two values are packed so that one step changes both.
#[derive(Debug, Default)]
struct Lines(AtomicU64);

impl Lines {
    /// Whether one more may be written, at `now` milliseconds.
    fn take(&self, now: u64) -> bool {
        const COUNT_BITS: u32 = 16;
        let second = now / 1000;
        let next = |old: u64| match old >> COUNT_BITS == second {
            true if old & ((1 << COUNT_BITS) - 1) >= LINES_PER_SECOND => None,
            true => Some(old + 1),
            false => Some((second << COUNT_BITS) + 1),
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

/// What a guest may ask about the request being decided.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) http: Option<Arc<dyn HttpParts>>,
    pub(super) extra: Extra,
    pub(super) nodes: Vec<Arc<Node>>,
    /// The time it is for decision tables; `None`: the clock's.
    pub(super) now: Option<u64>,
}

/// The state of one instance.
#[derive(Debug)]
pub(super) struct State {
    pub(super) meter: Meter,
    pub(super) budget: Budget,
    pub(super) shared: Arc<Shared>,
    pub(super) asked: Asked,
    lines_left: u32,
    lines_dropped: u32,
    /// What a guest has written to its standard output without ending the line.
    pub(super) unfinished_line: Vec<u8>,
    /// Lines for whoever asks for them instead of the log: decision tables and the author's tools.
    pub(super) captured: Option<Vec<(String, String)>>,
}

impl State {
    pub(super) fn new(memory: usize, shared: Arc<Shared>) -> Self {
        Self {
            meter: Meter::new(memory),
            budget: Budget::default(),
            shared,
            asked: Asked::default(),
            lines_left: LINES_PER_CALL,
            lines_dropped: 0,
            unfinished_line: Vec::new(),
            captured: None,
        }
    }

    /// Before a call.
    pub(super) fn begin(&mut self, asked: Asked) {
        self.asked = asked;
        self.lines_left = LINES_PER_CALL;
    }

    /// After it: the request is forgotten, and lines that were too many are counted in one.
    pub(super) fn end(&mut self) {
        self.asked = Asked::default();
        // The count waits for the next call where this one's second has no line left.
        if self.lines_dropped > 0 && self.shared.lines.take(clock()) {
            let dropped = std::mem::take(&mut self.lines_dropped);
            tracing::warn!(plugin = &*self.shared.name, dropped, "plugin logs too much: lines were dropped");
        }
    }

    pub(super) fn log(&mut self, level: host::Level, message: &str) {
        if let Some(captured) = &mut self.captured {
            if captured.len() < LINES_PER_CALL as usize {
                captured.push((level_name(level).to_owned(), one_line(message, MAX_LINE)));
            } else {
                self.lines_dropped += 1;
            }
            return;
        }
        if self.lines_left == 0 || !self.shared.lines.take(clock()) {
            self.lines_dropped += 1;
            return;
        }
        self.lines_left -= 1;
        let (plugin, message) = (&*self.shared.name, one_line(message, MAX_LINE));
        match level {
            host::Level::Trace => tracing::trace!(plugin, message, "plugin says"),
            host::Level::Debug => tracing::debug!(plugin, message, "plugin says"),
            host::Level::Info => tracing::info!(plugin, message, "plugin says"),
            host::Level::Warn => tracing::warn!(plugin, message, "plugin says"),
            host::Level::Error => tracing::error!(plugin, message, "plugin says"),
        }
    }

    /// Ends the capture; that lines were too many is one more of them.
    pub(super) fn take_captured(&mut self) -> Vec<(String, String)> {
        let mut captured = self.captured.take().unwrap_or_default();
        let dropped = std::mem::take(&mut self.lines_dropped);
        if dropped > 0 {
            captured.push(("warn".to_owned(), format!("too many lines: {dropped} more were dropped")));
        }
        captured
    }

    /// A line of a guest's standard output.
    pub(super) fn print(&mut self, line: &str) {
        self.log(host::Level::Info, line);
    }

    fn now(&self) -> u64 {
        self.asked.now.unwrap_or_else(clock)
    }
}

/// Milliseconds since 1970.
pub(super) fn clock() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// At most `max` bytes of a text from outside, without what could draw on a terminal or fake another line.
pub(super) fn one_line(text: &str, max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max));
    for c in text.chars() {
        if line.len() + c.len_utf8() > max {
            line.push('…');
            break;
        }
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// Offers the functions of the interface.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> Result<()> {
    host::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    request_info::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    wit_store::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    types::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

impl types::Host for State {}

impl host::Host for State {
    fn log(&mut self, level: host::Level, message: String) {
        Self::log(self, level, &message);
    }

    fn now_ms(&mut self) -> u64 {
        self.now()
    }

    fn random(&mut self) -> u64 {
        fastrand::u64(..)
    }

    fn count(&mut self, key: String, add: i64) -> i64 {
        self.shared.store.count(&key, add)
    }
}

impl request_info::Host for State {
    fn header(&mut self, name: String) -> Option<String> {
        self.http()?.field(&name).map(text)
    }

    fn cookie(&mut self, name: String) -> Option<String> {
        let found = self.http()?.all_fields("cookie").find_map(|field| cookie(field, name.as_bytes()));
        found.map(text)
    }

    fn method(&mut self) -> String {
        self.http().map(|http| http.method().to_owned()).unwrap_or_default()
    }

    fn path(&mut self) -> String {
        self.http().map(|http| http.path().to_owned()).unwrap_or_default()
    }

    fn query(&mut self) -> Option<String> {
        self.http()?.query().map(str::to_owned)
    }

    fn alpn(&mut self) -> Vec<String> {
        self.asked.extra.alpn.iter().flat_map(|offers| offers.iter()).map(ToString::to_string).collect()
    }

    fn metadata(&mut self, key: String) -> Option<String> {
        self.asked.extra.metadata(&key).map(str::to_owned)
    }

    fn node_address(&mut self, index: u32) -> Option<String> {
        self.node(index)?.addr.as_ref().map(ToString::to_string)
    }

    fn node_label(&mut self, index: u32, key: String) -> Option<String> {
        let labels = &self.node(index)?.labels;
        labels.iter().find(|(name, _)| name.eq_ignore_ascii_case(&key)).map(|(_, value)| value.to_string())
    }
}

impl State {
    fn http(&self) -> Option<&dyn HttpParts> {
        self.asked.http.as_deref()
    }

    fn node(&self, index: u32) -> Option<&Node> {
        self.asked.nodes.get(usize::try_from(index).ok()?).map(|node| &**node)
    }
}

impl wit_store::Host for State {
    fn get(&mut self, key: String) -> Option<Vec<u8>> {
        self.shared.store.get(&key, self.now())
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: Option<u32>) -> Result<(), wit_store::Failure> {
        self.shared.store.set(&key, &value, ttl_ms, self.now()).map_err(Into::into)
    }

    fn compare_and_set(
        &mut self,
        key: String,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
        ttl_ms: Option<u32>,
    ) -> Result<(), wit_store::Failure> {
        let (store, now) = (&self.shared.store, self.now());
        store.compare_and_set(&key, expected.as_deref(), &value, ttl_ms, now).map_err(Into::into)
    }

    fn delete(&mut self, key: String) -> bool {
        self.shared.store.delete(&key, self.now())
    }
}

impl From<store::Failure> for wit_store::Failure {
    fn from(failure: store::Failure) -> Self {
        match failure {
            store::Failure::TooLarge => Self::TooLarge,
            store::Failure::Full => Self::Full,
            store::Failure::Changed => Self::Changed,
        }
    }
}

fn level_name(level: host::Level) -> &'static str {
    match level {
        host::Level::Trace => "trace",
        host::Level::Debug => "debug",
        host::Level::Info => "info",
        host::Level::Warn => "warn",
        host::Level::Error => "error",
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The value of a cookie in one Cookie field (RFC 6265, section 4.2.1), its quotes taken off.
fn cookie<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    field.split(|b| *b == b';').find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"=")?;
        Some(value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let field = b"a=1; bb=two; b=\"3\"; c=";
        for (name, value) in
            [("a", Some("1")), ("b", Some("3")), ("bb", Some("two")), ("c", Some("")), ("d", None)]
        {
            assert_eq!(cookie(field, name.as_bytes()), value.map(str::as_bytes), "{name}");
        }
    }

    #[test]
    fn lines_are_bounded_in_length_and_number() {
        assert_eq!(one_line("a\nb\x1b[1m", 100), "a\\nb\\u{1b}[1m");
        assert_eq!(one_line("ääää", 5), "ää…");
        let lines = Lines::default();
        assert_eq!((0..1000).filter(|_| lines.take(5_000)).count() as u64, LINES_PER_SECOND);
        assert!(lines.take(6_000));
    }
}
