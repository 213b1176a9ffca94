//! `bindgen`: what `wit-bindgen c`, `wit-bindgen go` and `wat2wasm` do, as one small program.
//!
//! Installing the three takes minutes, this a fraction of one: `make plugins` runs on machines that have none of them. The
//! libraries are theirs, so what it writes is the same.

use anyhow::{Context, Result, bail};
use std::path::Path;
use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_core::{Files, WorldGenerator};

const USAGE: &str =
    "usage: bindgen c WIT WORLD FOLDER | bindgen go WIT WORLD FOLDER | bindgen wat IN.wat OUT.wasm";

/// The package that the Go bindings import; it cannot be had as a Go module everywhere.
const GO_PACKAGE: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/go_package.rs"));

/// Its own names a newer Go than it needs.
const GO_PACKAGE_MOD: &[u8] = b"module go.bytecodealliance.org/pkg\n\ngo 1.25\n";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["c", wit, world, out] => bindings(wit_bindgen_c::Opts::default().build(), wit, world, out.as_ref()),
        ["go", wit, world, out] => {
            bindings(wit_bindgen_go::Opts::default().build(), wit, world, out.as_ref())?;
            go_package(&Path::new(out).join("pkg"))
        }
        ["wat", from, to] => write(to.as_ref(), &wat::parse_file(from)?),
        _ => bail!(USAGE),
    }
}

fn bindings(mut generator: Box<dyn WorldGenerator>, wit: &str, world: &str, out: &Path) -> Result<()> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit)?;
    let world = resolve.select_world(&[package], Some(world))?;
    let mut files = Files::default();
    generator.generate(&mut resolve, world, &mut files)?;
    for (name, contents) in files.iter() {
        let path = out.join(name);
        // A program's own go.mod says more than the generated one.
        if name == "go.mod" && path.exists() {
            continue;
        }
        write(&path, contents)?;
    }
    Ok(())
}

fn go_package(out: &Path) -> Result<()> {
    for (name, contents) in GO_PACKAGE {
        write(&out.join(name), contents)?;
    }
    write(&out.join("go.mod"), GO_PACKAGE_MOD)
}

fn write(path: &Path, contents: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    std::fs::write(path, contents).with_context(|| format!("writing {}", path.display()))
}
