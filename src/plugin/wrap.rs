//! Core modules made into components, so that languages without component tools can be used.
//!
//! A module says with its export names what it is: `pointsman:routing/ingress@1.0.0#resolve`, or in languages that cannot
//! spell that `resolve`, `select`, `admit` and `configure`. A module for `wasip1` gets an adapter that keeps the outside away.

use super::load::{self, LoadError};
use super::{adapter, bind};
use wasm_encoder::reencode::{self, Reencode};
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The interface's text, to be put into modules that do not carry it.
pub(super) const WIT: &str = include_str!("../../wit/1.0.0/routing.wit");

/// Exports in plain words, and what they stand for.
const PLAIN: [(&str, &str); 4] =
    [("resolve", "ingress"), ("select", "forwarder"), ("admit", "admission"), ("configure", "lifecycle")];

/// Those among them that decide.
const DECISIONS: &[(&str, &str)] = PLAIN.split_at(3).0;

/// The component in `bytes`, made from the core module in them if need be.
pub(super) fn to_component(bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    match kind(bytes)? {
        Encoding::Component => Ok(bytes.to_vec()),
        Encoding::Module => {
            // wit-component panics on a module that is cut short.
            Validator::new_with_features(WasmFeatures::all())
                .validate_all(bytes)
                .map_err(|e| LoadError::NotWasm(format!("not a whole WebAssembly module: {e}")))?;
            check_imports(bytes)?;
            check_exports(bytes)?;
            encode(bytes).map_err(|e| LoadError::Invalid(bind::one_line(&format!("{e:#}"), 2048)))
        }
    }
}

/// Whether the bytes begin as a core module does, of which a component has to be made.
pub(super) fn is_module(bytes: &[u8]) -> bool {
    matches!(kind(bytes), Ok(Encoding::Module))
}

fn kind(bytes: &[u8]) -> Result<Encoding, LoadError> {
    match Parser::new(0).parse_all(bytes).next() {
        Some(Ok(Payload::Version { encoding, .. })) => Ok(encoding),
        _ if bytes.is_empty() => Err(LoadError::NotWasm("the file is empty".to_owned())),
        _ => Err(LoadError::NotWasm("not WebAssembly: neither a component nor a core module".to_owned())),
    }
}

fn encode(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    let module = if has_component_type(module) { module.to_vec() } else { typed(module)? };
    ComponentEncoder::default()
        .validate(true)
        .module(&module)?
        .adapter(adapter::NAME, &adapter::preview1(WIT)?)?
        .encode()
}

/// Whether all that the module imports is offered, by its adapter or by the host.
fn check_imports(module: &[u8]) -> Result<(), LoadError> {
    for payload in Parser::new(0).parse_all(module).flatten() {
        let Payload::ImportSection(section) = payload else { continue };
        for import in section.into_imports().flatten() {
            if import.module == adapter::NAME {
                continue;
            }
            if !import.module.contains(':') {
                let import = format!("{}.{}", import.module, import.name);
                return Err(LoadError::Import { import, built_for: String::new() });
            }
            load::check_import(import.module)?;
            load::check_function(import.module, import.name)?;
        }
    }
    Ok(())
}

/// Whether a module without a description of its component exports a decision.
fn check_exports(module: &[u8]) -> Result<(), LoadError> {
    let exports = exports(module);
    let decides = |export: &String| {
        DECISIONS
            .iter()
            .any(|(function, interface)| export == function || *export == full_name(function, interface))
    };
    if has_component_type(module) {
        return Ok(());
    }
    if exports.iter().any(decides) {
        return load::check_exports(&exports.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let of_the_abi = |name: &str| name == "memory" || name.starts_with("cabi_") || name.starts_with('_');
    let others: Vec<_> =
        exports.iter().filter(|name| !of_the_abi(name)).map(|name| format!("{name:?}")).collect();
    Err(load::no_role(&others))
}

/// Whether the module carries the description of its component.
fn has_component_type(module: &[u8]) -> bool {
    Parser::new(0).parse_all(module).any(|payload| match payload {
        Ok(Payload::CustomSection(section)) => section.name().starts_with("component-type"),
        _ => false,
    })
}

/// The module with full names, and with the description of the world that its exports make.
fn typed(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut renamed = wasm_encoder::Module::new();
    FullNames.parse_core_module(&mut renamed, Parser::new(0), module)?;
    let mut module = renamed.finish();
    let exports = exports(&module);
    let exported: Vec<_> = PLAIN
        .iter()
        .filter(|(function, interface)| exports.contains(&full_name(function, interface)))
        .map(|(_, interface)| format!("export pointsman:routing/{interface}@{};", bind::VERSION))
        .collect();
    let mut resolve = Resolve::default();
    resolve.push_str("routing.wit", WIT)?;
    let world = format!(
        "package pointsman:wrapped;\nworld wrapped {{
            import pointsman:routing/host@{v};
            import pointsman:routing/request-info@{v};
            import pointsman:routing/store@{v};
            {}\n}}",
        exported.join("\n"),
        v = bind::VERSION
    );
    let package = resolve.push_str("wrapped.wit", &world)?;
    let world = resolve.select_world(&[package], Some("wrapped"))?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(module)
}

fn exports(module: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for payload in Parser::new(0).parse_all(module).flatten() {
        if let Payload::ExportSection(section) = payload {
            names.extend(section.into_iter().flatten().map(|export| export.name.to_owned()));
        }
    }
    names
}

fn full_name(function: &str, interface: &str) -> String {
    format!("pointsman:routing/{interface}@{}#{function}", bind::VERSION)
}

/// Writes a module anew with the interface's names in place of the plain ones.
struct FullNames;

impl Reencode for FullNames {
    type Error = std::convert::Infallible;

    fn parse_export(
        &mut self,
        exports: &mut wasm_encoder::ExportSection,
        export: wasmparser::Export<'_>,
    ) -> Result<(), reencode::Error<Self::Error>> {
        let post = export.name.strip_prefix("cabi_post_");
        let plain = post.unwrap_or(export.name);
        let full = PLAIN.iter().find(|(function, _)| *function == plain).map(|(f, i)| full_name(f, i));
        let name = match (full, post) {
            (Some(full), Some(_)) => format!("cabi_post_{full}"),
            (Some(full), None) => full,
            (None, _) => export.name.to_owned(),
        };
        exports.export(
            &name,
            self.export_kind(export.kind)?,
            self.external_index(export.kind, export.index)?,
        );
        Ok(())
    }
}
