//! A guard against slow growth: how many instructions the functions take that every connection or request goes through, against
//! the numbers in `baseline.txt`. `make instructions` compares, `BLESS=1 make instructions` writes them anew.
//!
//! Each case runs in a process of its own under valgrind's callgrind, which counts what happens inside of [`counted`]. On the
//! processor that valgrind imitates the count is the same on every machine, busy or not.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints its numbers and panics when it cannot go on"
)]

mod baseline;
mod callgrind;
mod cases;
mod verdict;

use baseline::Baseline;
use callgrind::Counts;
use cases::CASES;
use std::path::Path;
use std::process::ExitCode;

/// Calls before those that are counted: what is made at the first use is there, and buffers have the size they need.
const WARM_UP: usize = 20;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("count"), Some(name)) => count(&name),
        _ => compare(),
    }
}

/// One case, inside of valgrind.
fn count(name: &str) -> ExitCode {
    let case = CASES.iter().find(|case| case.name == name).unwrap();
    let mut call = (case.prepare)();
    (0..WARM_UP).for_each(|_| call());
    counted(case.calls, &mut call);
    println!("{}", callgrind::processor());
    ExitCode::SUCCESS
}

/// What valgrind counts; it knows the function by its name.
#[inline(never)]
fn counted(calls: usize, call: &mut dyn FnMut()) {
    for _ in 0..calls {
        call();
    }
}

/// All cases, against the numbers of before.
fn compare() -> ExitCode {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/baseline.txt");
    let now = Counts::take(CASES);
    if std::env::var_os("BLESS").is_some_and(|value| value != "0") {
        std::fs::write(&file, Baseline::of(&now).to_string()).unwrap();
        println!("{} written", file.display());
        return ExitCode::SUCCESS;
    }
    let before = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let before = before.parse().unwrap_or_else(|problem| panic!("{}: {problem}", file.display()));
    let verdict = verdict::Verdict::new(&before, &now);
    print!("{verdict}");
    if verdict.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
