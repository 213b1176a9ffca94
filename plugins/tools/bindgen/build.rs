//! Puts the Go package that the Go bindings stand on into the program. The crate `wit-bindgen-go` carries its source, and
//! cargo knows where that lies.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let source = crate_source("wit-bindgen-go").join("src/pkg");
    let mut list = String::from("&[\n");
    for folder in ["wit/types", "wit/runtime", "wit/async"] {
        let files = fs::read_dir(source.join(folder)).expect("the crate carries the package");
        for file in files.map(|file| file.expect("a readable folder")) {
            let name = format!("{folder}/{}", file.file_name().display());
            writeln!(list, "({name:?}, include_bytes!({:?})),", file.path()).expect("a string takes all");
        }
    }
    list.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("go_package.rs"), list).expect("a folder to write to");
    println!("cargo::rerun-if-changed=Cargo.lock");
}

fn crate_source(name: &str) -> PathBuf {
    let target = env::var("TARGET").expect("cargo sets it");
    let output = Command::new(env::var_os("CARGO").expect("cargo sets it"))
        .args(["metadata", "--locked", "--offline", "--format-version=1", "--filter-platform", &target])
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("there are packages");
    let package = packages.iter().find(|package| package["name"] == name).expect("it is in Cargo.toml");
    Path::new(package["manifest_path"].as_str().expect("a path")).with_file_name("")
}
