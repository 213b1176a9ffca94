//! The binary against the real GOST, on either side, and in front of a real nginx. Run by `make test`, which builds and installs
//! them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on panics, and shows logs"
)]

#[allow(dead_code, reason = "shared by two test programs that use different parts of it")]
#[path = "../support/mod.rs"]
mod support;

mod acme;
mod admission;
mod auth;
mod cannot;
mod chains;
mod channels;
mod command_line;
mod nginx;
mod peers;
mod rewriting;
mod udp;
