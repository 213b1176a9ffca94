//! Tunnels: the registry of connectors, the server's port and the client's session.

pub mod client;
pub mod gate;
pub(crate) mod reach;
pub mod registry;
pub mod relay;
pub mod server;

pub use uuid::Uuid as TunnelId;
