//! The plugin session of the README as it stands there, with traffic through the quickstart all the while.

use crate::support::{Proc, exchange, free_port};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The commands, which a user pastes into a shell; ports aside.
fn session(visit: u16) -> String {
    let readme = fs::read_to_string("README.md").unwrap();
    let section = readme.split("\n## ").find(|section| section.starts_with("Route by plugin\n")).unwrap();
    let commands = section.lines().filter_map(|line| line.strip_prefix("    "));
    // Whoever runs the tests has the target, or may not be asked to download it.
    let commands = commands.filter(|command| !command.starts_with("rustup "));
    let text: String = commands.map(|command| format!("{command}\n")).collect();
    assert!(text.contains("plugin new") && text.contains(":8080"), "{text}");
    text.replace(":8080", &format!(":{visit}"))
}

/// The quickstart, in a folder that is laid out like the repository, with `pointsman` in a folder for the `PATH`.
fn quickstart(visit: u16) -> Proc {
    let dir = tempfile::tempdir().unwrap();
    let mut text = fs::read_to_string("config/quickstart.yaml").unwrap();
    for (from, to) in [("8443", free_port()), ("8080", visit), ("8081", free_port())] {
        text = text.replace(&format!("127.0.0.1:{from}"), &format!("127.0.0.1:{to}"));
    }
    fs::create_dir(dir.path().join("config")).unwrap();
    fs::write(dir.path().join("config/quickstart.yaml"), text).unwrap();
    fs::create_dir(dir.path().join("bin")).unwrap();
    let program = env!("CARGO_BIN_EXE_pointsman");
    std::os::unix::fs::symlink(program, dir.path().join("bin/pointsman")).unwrap();
    let mut command = Command::new(program);
    command.args(["-C", "config/quickstart.yaml"]).current_dir(dir.path());
    command.env("XDG_CACHE_HOME", dir.path().join("cache"));
    let all = Proc::spawn(command, dir);
    all.wait_for(&["connected", "connector="]);
    all
}

/// Runs them in a shell that ends at the first failure; the compiler may take its time.
fn run(commands: &str, dir: &Path) -> Output {
    let path = format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").unwrap());
    Command::new("timeout")
        .args(["300", "bash", "-euxc", commands])
        .current_dir(dir)
        .env("PATH", path)
        .env("XDG_CACHE_HOME", dir.join("cache"))
        // What the project depends on is built once, not in every run.
        .env("TARGET_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/new-rust"))
        .output()
        .unwrap()
}

#[test]
fn the_plugin_session_of_the_readme_drops_no_request() {
    let visit = free_port();
    let all = quickstart(visit);
    let (done, served) = (AtomicBool::new(false), AtomicU32::new(0));
    let load = || {
        while !done.load(Ordering::Relaxed) {
            let request = b"GET / HTTP/1.1\r\nHost: hello.example\r\nConnection: close\r\n\r\n";
            let (reply, _) = exchange(visit, request);
            assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
            served.fetch_add(1, Ordering::Relaxed);
        }
    };
    let output = std::thread::scope(|scope| {
        scope.spawn(load);
        let output = run(&session(visit), all.dir());
        done.store(true, Ordering::Relaxed);
        output
    });
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{out}{err}");
    for line in ["4 of 4 cases hold", "host: a.example\n", "host: www.a.example\n"] {
        assert!(out.contains(line), "{line}: {out}{err}");
    }
    assert!(served.load(Ordering::Relaxed) > 20);
}
