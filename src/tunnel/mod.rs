//! Tunnels: the registry of connectors, the server's port and the client's session.

pub mod client;
pub mod registry;
pub mod server;

pub use uuid::Uuid as TunnelId;
