//! The built binary, driven from outside.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on panics, and shows logs"
)]

#[allow(dead_code, reason = "shared by two test programs that use different parts of it")]
#[path = "../support/mod.rs"]
mod support;

mod admission;
mod auth;
mod chains;
mod channels;
mod command_line;
mod entrypoints;
mod examples;
mod grpc;
mod half_open;
mod http;
mod http2;
mod logs;
mod plugin_cli;
mod plugins;
mod quic;
mod readme;
mod rewrite;
mod rules;
mod select;
mod settings;
mod share;
mod shutdown;
mod sources;
mod storm;
mod tls;
mod tunnel;
mod udp;
mod users;
mod vectors;
mod weak_points;
mod whoami;
