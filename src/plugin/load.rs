//! A file's bytes to something that can be instantiated: checked, wrapped if it is a core module, compiled, linked.
//!
//! Whatever is wrong with a file is found here, in words for its author, and before anything runs. Instances are `pool`'s.

use super::bind::{self, State, admission, forwarder, ingress, lifecycle};
use super::compile::CompiledCache;
use super::engine::Host;
use super::pool::Exports;
use super::{wasi, wrap};
use sha2::{Digest, Sha256};
use std::fmt;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime::{Engine, Store};

/// The largest file that is read; Python's have 18 MB.
pub(super) const MAX_FILE: usize = 64 << 20;

/// The package of the interface.
const PACKAGE: &str = "pointsman:routing/";

/// What a plugin may import of it: the interfaces and their functions.
const IMPORTS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("host", &["log", "now-ms", "random", "count"]),
    (
        "request-info",
        &["header", "cookie", "method", "path", "query", "alpn", "metadata", "node-address", "node-label"],
    ),
    ("store", &["get", "set", "compare-and-set", "delete"]),
];

/// Why a file is no plugin.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// Too large a file.
    #[error("{0} bytes; a plugin has at most {MAX_FILE}")]
    TooLarge(usize),
    /// Neither a component nor a core module.
    #[error("{0}")]
    NotWasm(String),
    /// It could not be compiled or linked.
    #[error("{0}")]
    Invalid(String),
    /// It exports nothing that is asked for.
    #[error(
        "it exports none of {PACKAGE}ingress@{v}, {PACKAGE}forwarder@{v} and {PACKAGE}admission@{v}{found}",
        v = bind::VERSION
    )]
    NoRole {
        /// What it exports instead.
        found: String,
    },
    /// One of its interfaces would never be called.
    #[error(
        "it exports {export:?}, which is never called: the plugin was built for another version than {}",
        bind::VERSION
    )]
    Export {
        /// The export's full name.
        export: String,
    },
    /// It needs something that is not offered.
    #[error("it imports {import:?}{built_for}; offered are {}", offered())]
    Import {
        /// The import's full name.
        import: String,
        /// The version that the plugin was built for, where that is what differs.
        built_for: String,
    },
}

fn offered() -> String {
    let own: Vec<_> = IMPORTS.iter().map(|(name, _)| format!("{PACKAGE}{name}@{}", bind::VERSION)).collect();
    format!("{}, and of wasi 0.2 clocks, random numbers and standard output", own.join(", "))
}

/// The hash of a file's bytes: the version of a plugin.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version([u8; 32]);

impl Version {
    /// The version that these bytes are.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Version {
    /// The first twelve hex digits, enough to tell files apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a plugin decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles {
    /// It exports `ingress`.
    pub ingress: bool,
    /// It exports `forwarder`.
    pub forwarder: bool,
    /// It exports `admission`.
    pub admission: bool,
    /// It exports `lifecycle`, so it takes a configuration.
    pub lifecycle: bool,
    /// It imports `request-info`, so it may look at the request.
    pub request_info: bool,
}

impl Roles {
    /// The names of the interfaces by which it decides.
    pub fn kinds(self) -> Vec<&'static str> {
        let all = [(self.ingress, "ingress"), (self.forwarder, "forwarder"), (self.admission, "admission")];
        all.into_iter().filter_map(|(is, kind)| is.then_some(kind)).collect()
    }
}

/// A plugin's code, linked.
#[derive(Clone)]
pub(super) struct Compiled {
    pub(super) version: Version,
    pub(super) roles: Roles,
    pre: InstancePre<State>,
    ingress: Option<ingress::GuestIndices>,
    forwarder: Option<forwarder::GuestIndices>,
    admission: Option<admission::GuestIndices>,
    lifecycle: Option<lifecycle::GuestIndices>,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled")
            .field("version", &self.version)
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

impl Compiled {
    /// Checks, compiles (or takes from `cache`) and links a file.
    pub(super) fn load(host: &Host, cache: &CompiledCache, bytes: &[u8]) -> Result<Self, LoadError> {
        let version = Version::of(bytes);
        let component = Self::component(host, cache, &version, bytes)?;
        Self::link(&host.engine, version, &component)
    }

    /// Checks and compiles a file, whose hash is `version`, or takes what was compiled from `cache`.
    pub(super) fn component(
        host: &Host,
        cache: &CompiledCache,
        version: &Version,
        bytes: &[u8],
    ) -> Result<Component, LoadError> {
        if bytes.len() > MAX_FILE {
            return Err(LoadError::TooLarge(bytes.len()));
        }
        if let Some(component) = cache.get(&host.engine, version) {
            return Ok(component);
        }
        let component = wrap::to_component(bytes)?;
        let compiled = Component::new(&host.engine, &component).map_err(|e| invalid(&e))?;
        cache.put(version, &compiled);
        Ok(compiled)
    }

    /// Gives a component what it imports, if all of that is offered.
    pub(super) fn link(engine: &Engine, version: Version, component: &Component) -> Result<Self, LoadError> {
        let roles = roles(engine, component)?;
        let mut linker = Linker::new(engine);
        let linked = bind::add_to_linker(&mut linker)
            .and_then(|()| wasi::add_to_linker(&mut linker, component))
            .and_then(|()| linker.instantiate_pre(component));
        let pre = linked.map_err(|e| invalid(&e))?;
        Ok(Self {
            version,
            roles,
            ingress: indices(roles.ingress, || ingress::GuestIndices::new(&pre))?,
            forwarder: indices(roles.forwarder, || forwarder::GuestIndices::new(&pre))?,
            admission: indices(roles.admission, || admission::GuestIndices::new(&pre))?,
            lifecycle: indices(roles.lifecycle, || lifecycle::GuestIndices::new(&pre))?,
            pre,
        })
    }

    pub(super) fn instantiate(&self, mut store: &mut Store<State>) -> wasmtime::Result<Exports> {
        let instance = self.pre.instantiate(&mut store)?;
        Ok(Exports {
            ingress: self.ingress.as_ref().map(|i| i.load(&mut store, &instance)).transpose()?,
            forwarder: self.forwarder.as_ref().map(|i| i.load(&mut store, &instance)).transpose()?,
            admission: self.admission.as_ref().map(|i| i.load(&mut store, &instance)).transpose()?,
            lifecycle: self.lifecycle.as_ref().map(|i| i.load(&mut store, &instance)).transpose()?,
        })
    }
}

fn indices<T>(there: bool, find: impl FnOnce() -> wasmtime::Result<T>) -> Result<Option<T>, LoadError> {
    if !there {
        return Ok(None);
    }
    find().map(Some).map_err(|e| invalid(&e))
}

fn invalid(error: &wasmtime::Error) -> LoadError {
    let text = format!("{error:#}");
    // The allocator has no error type of its own for what is larger than its slots.
    let advice =
        if text.contains("memory has a minimum byte size") { " (plugins.limits.memory)" } else { "" };
    LoadError::Invalid(bind::one_line(&text, 2048) + advice)
}

/// What the component exports and imports, if all of it is known here.
fn roles(engine: &Engine, component: &Component) -> Result<Roles, LoadError> {
    let ty = component.component_type();
    let mut roles = Roles::default();
    for (name, item) in ty.imports(engine) {
        check_import(name)?;
        if let ComponentItem::ComponentInstance(instance) = item.ty {
            instance.exports(engine).try_for_each(|(function, item)| match item.ty {
                ComponentItem::ComponentFunc(_) => check_function(name, function),
                _ => Ok(()),
            })?;
        }
        roles.request_info |= own(name).is_some_and(|(interface, _)| interface == "request-info");
    }
    let (mut names, mut others) = (Vec::new(), Vec::new());
    for (name, item) in ty.exports(engine) {
        names.push(name);
        match own(name).filter(|(_, version)| compatible(version)) {
            Some(("ingress", _)) => roles.ingress = true,
            Some(("forwarder", _)) => roles.forwarder = true,
            Some(("admission", _)) => roles.admission = true,
            Some(("lifecycle", _)) => roles.lifecycle = true,
            _ if matches!(item.ty, ComponentItem::ComponentInstance(_) | ComponentItem::ComponentFunc(_)) => {
                others.push(format!("{name:?}"));
            }
            _ => {}
        }
    }
    if roles.kinds().is_empty() {
        return Err(no_role(&others));
    }
    check_exports(&names)?;
    Ok(roles)
}

/// A file that exports these and nothing that is asked for.
pub(super) fn no_role(exports: &[String]) -> LoadError {
    let found = if exports.is_empty() {
        "; it exports nothing".to_owned()
    } else {
        let other = exports.iter().find_map(|export| own(export.trim_matches('"')));
        let version = other.and_then(|(_, version)| version.split('#').next()).filter(|v| !compatible(v));
        let built_for =
            version.map(|v| format!(": the plugin was built for version {v}")).unwrap_or_default();
        bind::one_line(&format!(", but {}", exports.join(", ")), 1024) + &built_for
    };
    LoadError::NoRole { found }
}

/// Whether every interface of our package that is exported would be called. What is exported in several versions is for hosts that
/// know but one of them.
pub(super) fn check_exports(exports: &[&str]) -> Result<(), LoadError> {
    let ours = || exports.iter().filter_map(|name| Some((*name, own(name.split('#').next()?)?)));
    let called = |wanted: &str| ours().any(|(_, (interface, v))| interface == wanted && compatible(v));
    match ours().find(|(_, (interface, _))| !called(interface)) {
        Some((export, _)) => Err(LoadError::Export { export: export.to_owned() }),
        None => Ok(()),
    }
}

/// Whether an interface is offered.
pub(super) fn check_import(name: &str) -> Result<(), LoadError> {
    let refuse = |built_for: String| Err(LoadError::Import { import: name.to_owned(), built_for });
    match own(name) {
        Some((interface, version)) if functions(interface).is_some() => {
            if compatible(version) {
                Ok(())
            } else {
                refuse(format!(": the plugin was built for version {version}"))
            }
        }
        Some(_) => refuse(String::new()),
        None if name.starts_with("wasi:") && name.contains("@0.2.") => Ok(()),
        None => match name.strip_prefix("wasi:").and_then(|rest| rest.split_once('@')) {
            Some((_, version)) => refuse(format!(": the plugin was built for WASI {version}")),
            None => refuse(String::new()),
        },
    }
}

/// Whether an interface that is offered has the function.
pub(super) fn check_function(name: &str, function: &str) -> Result<(), LoadError> {
    let known = own(name).and_then(|(interface, _)| functions(interface));
    if known.is_none_or(|functions| functions.contains(&function)) {
        return Ok(());
    }
    let built_for = ", which that version has not: the plugin was built for another one".to_owned();
    Err(LoadError::Import { import: format!("{name}#{function}"), built_for })
}

/// The functions of an interface that is offered.
fn functions(interface: &str) -> Option<&'static [&'static str]> {
    IMPORTS.iter().find(|(name, _)| *name == interface).map(|(_, functions)| *functions)
}

/// Interface and version of a name in our package.
fn own(name: &str) -> Option<(&str, &str)> {
    let name = name.strip_prefix(PACKAGE)?;
    Some(name.split_once('@').unwrap_or((name, "")))
}

/// Whether a plugin built for `version` works with ours: same major version, and no newer than ours.
fn compatible(version: &str) -> bool {
    let parts = |text: &str| {
        let mut numbers = text.split('.').map(|part| part.parse::<u64>().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    match (parts(version), parts(bind::VERSION)) {
        (Some(theirs), Some(ours)) => theirs.0 == ours.0 && theirs.1 <= ours.1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        for (version, expected) in
            [("1.0.0", true), ("1.0.7", true), ("1.1.0", false), ("0.1.0", false), ("", false)]
        {
            assert_eq!(compatible(version), expected, "{version}");
        }
        let error = check_import("pointsman:routing/host@2.3.0").unwrap_err().to_string();
        assert!(error.contains("\"pointsman:routing/host@2.3.0\""), "{error}");
        assert!(error.contains("built for version 2.3.0") && error.contains("host@1.0.0"), "{error}");
        assert!(check_import("wasi:cli/environment@0.2.3").is_ok());
        let error = check_import("wasi:http/types@0.3.0").unwrap_err().to_string();
        assert!(error.contains("WASI 0.3.0"), "{error}");
        assert!(check_import("other:thing/x").is_err());
    }

    #[test]
    fn the_functions_offered_are_those_of_the_interface() {
        let mut resolve = wit_parser::Resolve::default();
        let package = resolve.push_str("routing.wit", wrap::WIT).unwrap();
        for (name, functions) in IMPORTS {
            let interface = &resolve.interfaces[resolve.packages[package].interfaces[*name]];
            assert!(interface.functions.keys().eq(functions.iter()), "{name}");
        }
    }
}
