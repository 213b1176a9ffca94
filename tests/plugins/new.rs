//! `pointsman plugin new`: the project of every language builds with its own Makefile, and holds to its own decision table.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// What the tools of `make plugins` are found by; they are not installed once more for each project.
fn environment() -> Vec<(String, String)> {
    let said = output(Command::new("make").args([
        "-C",
        "plugins",
        "--silent",
        "--no-print-directory",
        "environment",
    ]));
    let lines = said.unwrap();
    lines
        .lines()
        .map(|line| line.split_once('=').unwrap())
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

/// Standard output of a command that has to do well.
fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{command:?}:\n{}{}", text(&output.stdout), text(&output.stderr))),
    }
}

/// The programs that Makefiles expect in the `PATH`: this one, and `wat2wasm` as we have it.
fn programs(dir: &Path) {
    let pointsman = format!(
        // What was compiled is kept, and a debug build gets more than five milliseconds.
        "XDG_CACHE_HOME={}/new-cache exec {} \"$@\" --deadline 1s",
        env!("CARGO_TARGET_TMPDIR"),
        env!("CARGO_BIN_EXE_pointsman")
    );
    for (name, script) in [("pointsman", &*pointsman), ("wat2wasm", "exec bindgen wat \"$1\" \"$3\"")] {
        let file = dir.join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn builds(lang: &str, dir: &Path, environment: &[(String, String)]) -> Result<(), String> {
    let name = format!("my-{lang}");
    let new = ["plugin", "new", &name, "--lang", lang];
    output(Command::new(env!("CARGO_BIN_EXE_pointsman")).args(new).current_dir(dir))?;
    let mut make = Command::new("make");
    make.arg("test").current_dir(dir.join(&name)).envs(environment.iter().map(|(k, v)| (k, v)));
    let path = environment.iter().find(|(key, _)| key == "PATH").map_or("", |(_, path)| path);
    make.env("PATH", format!("{}:{path}", dir.display()));
    // In place of those that the set-up puts into the project.
    make.envs([("PYTHON", "python3"), ("COMPONENTIZE_PY", "componentize-py")]);
    make.env("TARGET_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/new-rust"));
    let said = output(&mut make)?;
    said.contains("4 of 4 cases hold").then_some(()).ok_or(said)
}

#[test]
fn the_project_of_every_language_builds_and_holds_to_its_table() {
    let _alone = super::alone();
    let (dir, environment) = (tempfile::tempdir().unwrap(), environment());
    programs(dir.path());
    let templates = fs::read_dir("plugins/templates").unwrap().map(|entry| entry.unwrap().file_name());
    let languages: Vec<_> =
        templates.filter(|name| !["common", "admission"].contains(&name.to_str().unwrap())).collect();
    assert_eq!(languages.len(), 8, "{languages:?}");
    let built = languages.iter().map(|lang| builds(lang.to_str().unwrap(), dir.path(), &environment));
    let failed: Vec<_> = built.filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
