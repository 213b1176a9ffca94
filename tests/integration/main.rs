//! Tests that link the library: recorded bytes, configurations, the order of the modules.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod config;
mod config_properties;
mod corpus;
mod golden;
mod http_framing;
#[path = "../../benches/side-by-side/judge.rs"]
mod judge;
mod layers;
mod plugin;
#[path = "../support/vectors.rs"]
mod recorded;
mod sessions;
mod settings;
mod vectors;
