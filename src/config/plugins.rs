//! `plugins`, the watched folder and its limits, and `plugin` on an ingress, hop, forwarder or tunnel handler.

use super::reader::{Bare, Field, Map};
use super::settings::{read_size, word};
use crate::plugin::{Allow, Folder, FolderSettings, Limits, OnError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The `plugins` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugins {
    /// `dir`; without one only plugins bound by `path` are there.
    pub folder: Option<FolderSettings>,
    /// `limits`.
    pub limits: Limits,
    /// `cache`: where compiled code is kept; absent: the user's cache folder.
    pub cache: Option<PathBuf>,
    /// `statusInterval`: how often what each plugin has done is written to the log.
    pub status_interval: Duration,
}

/// Often enough to see a trend, seldom enough for hundreds of plugins.
const STATUS_INTERVAL: Duration = Duration::from_secs(5 * 60);

impl Default for Plugins {
    fn default() -> Self {
        Self { folder: None, limits: Limits::default(), cache: None, status_interval: STATUS_INTERVAL }
    }
}

/// `plugin: { type: wasm, ... }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// Which file.
    pub file: PluginFile,
    /// `config`: in place of the file beside the plugin.
    pub config: Option<String>,
    /// `onError`.
    pub on_error: OnError,
    /// `allowAddresses`.
    pub allow: Allow,
}

/// Which file a binding means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginFile {
    /// `name`: this one of the folder.
    Named(String),
    /// `path`: a file elsewhere.
    At(PathBuf),
}

pub(crate) fn section(map: Map<'_>) -> Plugins {
    let folder = map.get(&["dir"]).and_then(|f| path(&f)).map(FolderSettings::new);
    let mut plugins = Plugins { folder, ..Plugins::default() };
    let poll = map.get(&["poll"]).and_then(|f| f.wait(Bare::Seconds));
    if let (Some(folder), Some(poll)) = (&mut plugins.folder, poll) {
        folder.poll = poll;
    }
    if let Some(interval) = map.get(&["statusInterval"]).and_then(|f| f.wait(Bare::Seconds)) {
        plugins.status_interval = interval;
    }
    plugins.cache = map.get(&["cache"]).and_then(|f| path(&f));
    if let Some(limits) = map.get(&["limits"]).and_then(|f| f.map()) {
        read_limits(limits, &mut plugins.limits);
    }
    map.finish(&[], &[]);
    plugins
}

fn read_limits(map: Map<'_>, limits: &mut Limits) {
    if let Some(memory) = map.get(&["memory"]).and_then(|f| bytes(&f, 1 << 20, 4 << 30)) {
        limits.memory = memory;
        limits.recycle_memory = memory / 4 * 3;
    }
    let wait = |names: &[&'static str], setting: &mut Duration| {
        if let Some(wait) = map.get(names).and_then(|f| f.wait(Bare::Nanoseconds)) {
            *setting = wait;
        }
    };
    wait(&["deadline"], &mut limits.deadline);
    wait(&["configureDeadline"], &mut limits.configure_deadline);
    read_size(&map, &["instances"], 1, &mut limits.instances);
    read_size(&map, &["queue"], 1, &mut limits.queue);
    if let Some(calls) = map.get(&["recycleCalls"]).and_then(|f| f.number(1..=i64::MAX)) {
        limits.recycle_calls = calls.unsigned_abs();
    }
    if let Some(memory) = map.get(&["recycleMemory"]).and_then(|f| bytes(&f, 1 << 16, 4 << 30)) {
        limits.recycle_memory = memory;
    }
    read_size(&map, &["storeKeys"], 1, &mut limits.store_keys);
    if let Some(size) = map.get(&["storeSize"]).and_then(|f| bytes(&f, 1, 4 << 30)) {
        limits.store_size = size;
    }
    read_size(&map, &["cachedDecisions"], 1, &mut limits.cached_decisions);
    map.finish(&[], &[]);
}

/// `plugin` of an ingress, hop or forwarder, of type `wasm`. `types` are those that there are in this place: GOST's own, a process
/// behind HTTP or gRPC, are read by `source`, and at hops and forwarders they are not supported yet.
pub(crate) fn binding(field: &Field<'_>, folder: bool, types: &[&'static str]) -> Option<Plugin> {
    let map = field.map()?;
    let kind = map.get(&["type"]);
    let wasm = kind.as_ref().and_then(|f| word(f, types));
    if kind.is_none() {
        map.error("plugin without a type".to_owned(), "expected plugin: { type: wasm, name: NAME }");
    }
    let (name, at) = (map.filled(&["name"]), map.filled(&["path", "addr"]));
    let config = map.get(&["config"]).and_then(|f| f.text()).map(str::to_owned);
    let on_error = match map.get(&["onError"]).and_then(|f| word(&f, &["refuse", "next", "last-good"])) {
        Some("next") => OnError::Next,
        Some("last-good") => OnError::LastGood,
        _ => OnError::Refuse,
    };
    let allow = map.get(&["allowAddresses"]).map(|f| allow(&f)).unwrap_or_default();
    let file = match (&name, &at) {
        (Some(name), None) if folder => PluginFile::Named(plugin_name(name)?),
        (Some(_), None) => {
            let help = "expected a section plugins: { dir: plugins.d }, or path: FILE.wasm here";
            map.error("a plugin's name without a plugin folder".to_owned(), help);
            return None;
        }
        (None, Some(at)) => PluginFile::At(path(at)?),
        (Some(_), Some(_)) => {
            map.error("name and path".to_owned(), "keep one of the two");
            return None;
        }
        (None, None) => {
            let help = "expected name: NAME for NAME.wasm in the plugin folder, or path: FILE.wasm";
            map.error("plugin without a name".to_owned(), help);
            return None;
        }
    };
    map.finish(&[], &["token", "timeout", "tls"]);
    wasm?;
    if let (PluginFile::At(path), Some(at)) = (&file, &at) {
        look_at(path, at);
    }
    Some(Plugin { file, config, on_error, allow })
}

/// `plugin` of a tunnel handler: who may open a tunnel.
pub(crate) fn admission(field: &Field<'_>, folder: bool) -> Option<Plugin> {
    let plugin = binding(field, folder, &["wasm"])?;
    if !plugin.allow.is_empty() {
        field.warn("allowAddresses without effect: no node is chosen here".to_owned(), "remove it");
    }
    Some(plugin)
}

/// What the folder takes.
const NAME: &str = "expected a name of letters, digits, dot, dash and underscore, and no dot in front";

/// A name, to which the folder adds the ending.
fn plugin_name(field: &Field<'_>) -> Option<String> {
    let text = field.text()?.trim();
    let file = text.rsplit('/').next().unwrap_or(text);
    let bare = file.strip_suffix(".wasm").unwrap_or(file);
    if text == bare && Folder::takes(text) {
        return Some(text.to_owned());
    }
    let help = match Folder::takes(bare) {
        true if text == file => format!("write {bare}"),
        true => {
            format!("write {bare} for {bare}.wasm in the plugin folder, or path: FILE.wasm for one elsewhere")
        }
        false => NAME.to_owned(),
    };
    field.error(format!("{text:?} is no plugin's name"), help);
    None
}

/// What can be said now about a file elsewhere. One that is not there may come later.
fn look_at(path: &Path, field: &Field<'_>) {
    let shown = path.display();
    let name = path.extension().filter(|ending| *ending == "wasm").and_then(|_| path.file_stem());
    if name.is_none() {
        field.error(format!("{shown} is no plugin"), "expected the path of a file NAME.wasm");
    } else if !name.and_then(|name| name.to_str()).is_some_and(Folder::takes) {
        field.error(format!("{shown} is not taken for a plugin"), NAME);
    } else if !path.exists() {
        let help = "it is taken into use when it comes; until then it fails as `onError` says";
        field.warn(format!("there is no file {shown}"), help);
    }
}

fn allow(field: &Field<'_>) -> Allow {
    let entries: Vec<_> = field.list().iter().filter_map(Field::text).collect();
    Allow::parse(entries.iter().copied()).unwrap_or_else(|entry| {
        let help = "expected a network such as 10.0.0.0/8, or a host such as *.svc.example";
        field.error(format!("{entry:?} is neither a network nor a host"), help);
        Allow::default()
    })
}

/// A path; a relative one counts from the folder of the file that it stands in.
fn path(field: &Field<'_>) -> Option<PathBuf> {
    let text = field.text().filter(|text| !text.is_empty())?;
    let base = field.file().map(Path::new).and_then(Path::parent).filter(|_| !Path::new(text).is_absolute());
    Some(base.map_or_else(|| PathBuf::from(text), |base| base.join(text)))
}

/// A number of bytes: `64MiB`, `1GB`, `65536`.
fn bytes(field: &Field<'_>, least: usize, most: usize) -> Option<usize> {
    let text = field.text()?.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" => Some(1_000),
        "kib" => Some(1 << 10),
        "m" | "mb" => Some(1_000_000),
        "mib" => Some(1 << 20),
        "g" | "gb" => Some(1_000_000_000),
        "gib" => Some(1 << 30),
        _ => None,
    };
    let size = text[..end].parse().ok().zip(unit).and_then(|(n, unit): (usize, usize)| n.checked_mul(unit));
    let size = size.filter(|size| (least..=most).contains(size));
    if size.is_none() {
        field.error(
            format!("found {text:?}"),
            format!("expected a size such as 64MiB, from {least} to {most} bytes"),
        );
    }
    size
}
