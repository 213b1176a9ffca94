//! Runs cases under callgrind and reads what it counted.

use crate::cases::Case;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Instructions per call of each case, and with what they were counted.
pub(crate) struct Counts {
    pub(crate) counted_with: String,
    pub(crate) cases: Vec<(&'static str, u64)>,
}

impl Counts {
    pub(crate) fn take(cases: &[Case]) -> Self {
        let mut processor = String::new();
        let mut count = |case: &Case| {
            let total = run(case.name, &mut processor);
            (case.name, total / case.calls as u64)
        };
        let cases = cases.iter().map(&mut count).collect();
        let tools = [["rustc", "--version"], ["valgrind", "--version"], ["getconf", "GNU_LIBC_VERSION"]];
        let counted_with = tools.iter().fold(processor, |all, [tool, ask]| {
            let said = output(Command::new(tool).arg(ask));
            // Of rustc's answer the commit and the date are left out.
            format!("{all}, {}", said.split(" (").next().unwrap_or_default().trim())
        });
        Self { counted_with, cases }
    }
}

/// Where the profiles of the last run lie, for `callgrind_annotate`.
pub(crate) fn profile(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("instructions-{name}.callgrind"))
}

/// What code that asks the processor for its abilities may choose by.
pub(crate) fn processor() -> String {
    let abilities = abilities();
    format!("{}{abilities}", std::env::consts::ARCH)
}

#[cfg(target_arch = "x86_64")]
fn abilities() -> &'static str {
    let v3 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("lzcnt");
    if v3 { "-v3" } else { "" }
}

#[cfg(not(target_arch = "x86_64"))]
fn abilities() -> &'static str {
    ""
}

/// The instructions of one case in all.
fn run(name: &str, processor: &mut String) -> u64 {
    let mut command = Command::new("valgrind");
    let mut profile_to = std::ffi::OsString::from("--callgrind-out-file=");
    profile_to.push(profile(name));
    command
        .args(["--tool=callgrind", "--toggle-collect=instructions::counted"])
        .arg(profile_to)
        .arg(std::env::current_exe().unwrap())
        .args(["count", name])
        // Variables lie on the stack and are read by libraries: the same for everybody.
        .env_clear()
        .envs(std::env::var_os("PLUGINS").map(|folder| ("PLUGINS", folder)))
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    let result = command.output().unwrap_or_else(|error| panic!("cannot run valgrind: {error}"));
    let said = String::from_utf8_lossy(&result.stderr);
    let total = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    match total {
        Some(total) if total > 0 && result.status.success() => {
            *processor = String::from_utf8_lossy(&result.stdout).trim().to_owned();
            total
        }
        _ => panic!("{name}: nothing was counted ({}):\n{said}", result.status),
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
