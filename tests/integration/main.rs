//! Tests that link the library: recorded bytes, configurations, the order of the modules.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod config;
mod corpus;
mod http_framing;
mod layers;
<<<<<<< HEAD
#[path = "../support/vectors.rs"]
mod recorded;
mod sessions;
=======
mod plugin;
>>>>>>> 7c4acc6 (Host plugins: compile, pool, ask, bind, watch a folder)
mod vectors;
