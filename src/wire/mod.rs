//! Protocols as plain functions and state machines over bytes: no socket, no clock, no logging.
//!
//! A decoder says one of three things: `Ok(Some(value))`, `Ok(None)` when it needs more bytes, or [`Malformed`].

pub mod grpc;
pub mod http;
mod protobuf;
pub mod proxy;
pub mod quic;
pub mod relay;
pub mod resp;
pub mod smux;
pub mod tls;
pub mod unary;

/// Bytes that no peer that keeps to the protocol sends; the text says which rule they break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);
