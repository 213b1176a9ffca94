//! `plugin new`: a project that builds as it is, made from `plugins/templates`.

use super::{Failure, Form, Report};
use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::{Path, PathBuf};

/// What the templates call the plugin.
const TEMPLATE_NAME: &str = "example-plugin";

/// Longest name: it becomes that of a file, a package and a metric.
const MAX_NAME: usize = 64;

/// The interface, put into every project.
const WIT: &str = include_str!("../../../wit/1.0.0/routing.wit");

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The plugin's name, which is the folder's too: letters, digits and `-`, a letter first
    #[arg(value_parser = name)]
    name: String,
    /// The language
    #[arg(long, value_enum)]
    lang: Language,
    /// What it decides: which tunnel, or who may open one (in Rust only)
    #[arg(long, value_enum, default_value = "ingress")]
    decides: Decision,
    #[command(flatten)]
    pub(super) form: Form,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Decision {
    Ingress,
    Admission,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Language {
    Rust,
    Go,
    Js,
    Ts,
    Python,
    C,
    #[value(name = "assemblyscript")]
    AssemblyScript,
    Wat,
}

/// A file of a project: its name and text.
type File = (&'static str, &'static str);

macro_rules! template {
    ($folder:literal, $($file:literal),+) => {
        &[$(($file, include_str!(concat!("../../../plugins/templates/", $folder, "/", $file)))),+]
    };
}

const COMMON: &[File] = template!("common", "README.md", "example-plugin.yaml", "example-plugin.cases.yaml");

/// In place of [`COMMON`] for a plugin that decides admission.
const COMMON_ADMISSION: &[File] =
    template!("admission", "README.md", "example-plugin.yaml", "example-plugin.cases.yaml");

/// In Rust; what makes a plugin of it is the same.
const ADMISSION: &[File] = &[
    ("src/lib.rs", include_str!("../../../plugins/templates/admission/lib.rs")),
    ("Cargo.toml", include_str!("../../../plugins/templates/rust/Cargo.toml")),
    ("Makefile", include_str!("../../../plugins/templates/rust/Makefile")),
];

/// The files of a project, those of its language apart.
fn project(decides: Decision, lang: Language) -> anyhow::Result<(&'static [File], &'static [File])> {
    match (decides, lang) {
        (Decision::Ingress, lang) => Ok((COMMON, lang.files())),
        (Decision::Admission, Language::Rust) => Ok((COMMON_ADMISSION, ADMISSION)),
        (Decision::Admission, _) => {
            let help =
                "use --lang rust, or take the world admission-plugin of the wit/ that is in every project";
            Err(anyhow!("there is no such project that decides admission: {help}"))
        }
    }
}

impl Language {
    fn files(self) -> &'static [File] {
        match self {
            Self::Rust => template!("rust", "Cargo.toml", "Makefile", "src/lib.rs"),
            Self::Go => template!("go", "go.mod", "Makefile", "main.go"),
            Self::Js => template!("js", "package.json", "Makefile", "example-plugin.js"),
            Self::Ts => template!("ts", "package.json", "Makefile", "example-plugin.ts"),
            Self::Python => template!("python", "requirements.txt", "Makefile", "plugin.py"),
            Self::C => template!("c", "requirements.txt", "Makefile", "example-plugin.c"),
            Self::AssemblyScript => {
                template!("assemblyscript", "package.json", "Makefile", "example-plugin.ts")
            }
            Self::Wat => template!("wat", "Makefile", "example-plugin.wat"),
        }
    }

    /// The command that installs what the build needs, once.
    fn set_up(self) -> &'static str {
        match self {
            Self::Rust => "rustup target add wasm32-unknown-unknown",
            // What it says is the version; `go.mod` names the oldest that will do.
            Self::Go => "go version",
            Self::Js | Self::Ts | Self::AssemblyScript => "npm install",
            // Into a folder of the project: many systems let pip change no other.
            Self::Python | Self::C => "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt",
            Self::Wat => "apt-get install wabt",
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    let fits = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && text.len() <= MAX_NAME;
    let expected = format!("expected at most {MAX_NAME} small letters, digits and `-`, a letter first");
    fits.then(|| text.to_owned()).ok_or(expected)
}

pub(super) fn run(arguments: &Arguments) -> Result<Report, Failure> {
    let Arguments { name, lang, decides, .. } = arguments;
    let (common, own) = project(*decides, *lang)?;
    let folder = PathBuf::from(name);
    std::fs::create_dir(&folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            anyhow!("{name} is there already: choose another name, or remove it first")
        }
        _ => anyhow!(error).context(format!("cannot make the folder {name}")),
    })?;
    let mut written = vec![write(&folder, "wit/routing.wit", WIT)?];
    for (file, text) in common.iter().chain(own) {
        let text = text.replace("SET-UP", &format!("{:<10}  # once", lang.set_up()));
        written.push(write(&folder, &named(file, name), &named(&text, name))?);
    }
    written.sort_unstable();
    let text =
        format!("{}\n\nNext:\n  cd {name}\n  {}\n  make\n  make test\n", written.join("\n"), lang.set_up());
    Ok(Report { ok: true, text, json: json!({ "ok": true, "folder": name, "files": written }) })
}

/// A template's text with the plugin's name; in Rust's file names `-` is `_`.
fn named(text: &str, name: &str) -> String {
    text.replace(TEMPLATE_NAME, name).replace(&TEMPLATE_NAME.replace('-', "_"), &name.replace('-', "_"))
}

fn write(folder: &Path, file: &str, text: &str) -> Result<String, Failure> {
    let path = folder.join(file);
    let write = || {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(&path, text)
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.display().to_string())
}
