//! pointsman: a routing proxy and tunnel that speaks GOST v3.
//!
//! Modules stand in rows; each may use only the rows above it (`tests/integration/layers.rs` checks the `use` lines).
//!
//! | row | modules |
//! |---|---|
//! | 0 | `addr`, `file` |
//! | 1 | `wire` |
//! | 2 | `lines`, `net`, `route`, `shutdown`, `telemetry` |
//! | 3 | `admission`, `auth`, `handshake`, `mux`, `plugin`, `record`, `sniff` |
//! | 4 | `channel`, `http` |
//! | 5 | `acme`, `chain`, `source` |
//! | 6 | `terminate` |
//! | 7 | `forward`, `whoami` |
//! | 8 | `tunnel` |
//! | 9 | `entrypoint` |
//! | 10 | `config` |
//! | 11 | `app` |
//! | 12 | `cli` |

pub mod acme;
pub mod addr;
pub mod admission;
pub mod app;
pub mod auth;
pub mod chain;
pub mod channel;
pub mod cli;
pub mod config;
pub mod entrypoint;
mod file;
pub mod forward;
mod handshake;
pub mod http;
pub mod lines;
pub mod mux;
pub mod net;
pub mod plugin;
mod record;
pub mod route;
pub mod shutdown;
pub mod sniff;
pub mod source;
pub mod telemetry;
pub mod terminate;
pub mod tunnel;
pub mod whoami;
pub mod wire;
