//! pointsman: a routing proxy and tunnel that speaks GOST v3.
//!
//! Modules stand in rows; each may use only the rows above it (`tests/integration/layers.rs` checks the `use` lines).
//!
//! | row | modules |
//! |---|---|
//! | 0 | `addr`, `wire` |
//! | 1 | `route`, `net`, `shutdown`, `telemetry` |
//! | 2 | `mux`, `sniff` |
//! | 3 | `http`, `h2c`, `tunnel` |
//! | 4 | `entrypoint`, `forward`, `whoami` |
//! | 5 | `config` |
//! | 6 | `app` |
//! | 7 | `cli` |

pub mod addr;
pub mod app;
pub mod cli;
pub mod config;
pub mod entrypoint;
pub mod forward;
pub mod h2c;
pub mod http;
pub mod mux;
pub mod net;
pub mod route;
pub mod shutdown;
pub mod sniff;
pub mod telemetry;
pub mod tunnel;
pub mod whoami;
pub mod wire;
