//! What failures of QUIC mean, in the words of the other channels.

use crate::channel::tls;
pub(super) use crate::channel::tls::Side;
use quinn::{ConnectionError, ReadError, VarInt, WriteError};
use std::io::{self, ErrorKind};

/// Codes from here on are alerts of TLS (RFC 9001, section 4.8).
const CRYPTO: u64 = 0x100;

/// Why a handshake failed, and what can be done about it.
pub(super) fn handshake(error: ConnectionError, side: Side) -> io::Error {
    let advice = match (&error, alert(&error)) {
        (ConnectionError::VersionMismatch, _) => "QUIC version 1 is spoken here",
        (ConnectionError::TransportError(_), Some(code)) => own(code, side),
        (ConnectionError::ConnectionClosed(_), Some(code)) => peers(code, side),
        _ => "",
    };
    said("handshake", &error, advice)
}

fn said(what: &str, error: &ConnectionError, advice: &str) -> io::Error {
    let behind = if advice.is_empty() { "" } else { "; " };
    // The library passes on the words of a library below it.
    let reason = error.to_string().replace("Other(OtherError(CaUsedAsEndEntity))", "it is a CA's");
    io::Error::new(kind(error), format!("QUIC {what}: {reason}{behind}{advice}"))
}

fn alert(error: &ConnectionError) -> Option<u64> {
    let code = match error {
        ConnectionError::TransportError(error) => u64::from(error.code),
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        _ => return None,
    };
    code.checked_sub(CRYPTO)
}

const BAD_CERTIFICATE: u64 = 42;
const CERTIFICATE_UNKNOWN: u64 = 46;
const UNKNOWN_CA: u64 = 48;
const ACCESS_DENIED: u64 = 49;
const UNRECOGNISED_NAME: u64 = 112;
const CERTIFICATE_REQUIRED: u64 = 116;
const NO_APPLICATION_PROTOCOL: u64 = 120;

/// The side that found something wrong.
fn own(code: u64, side: Side) -> &'static str {
    match (side, code) {
        (Side::Client, UNKNOWN_CA) => {
            "give the server's CA as tls.caFile, or its fingerprint as tls.fingerprint"
        }
        (Side::Client, CERTIFICATE_UNKNOWN) => tls::GIVE_THE_CERTIFICATE,
        (Side::Client, BAD_CERTIFICATE) => "give the name in the certificate as tls.serverName",
        (Side::Client, ACCESS_DENIED) => "the certificate is not the one of tls.fingerprint",
        (Side::Server, ACCESS_DENIED) => {
            "the client asks for no name that is served here (rejectUnknownSNI, serverNames)"
        }
        (Side::Server, CERTIFICATE_REQUIRED) => tls::SHOWS_NO_CERTIFICATE,
        (Side::Server, UNKNOWN_CA | CERTIFICATE_UNKNOWN) => tls::SHOWS_A_STRANGE_CERTIFICATE,
        (_, NO_APPLICATION_PROTOCOL) => tls::OTHER_ALPN,
        _ => "",
    }
}

/// The side that was told so.
fn peers(code: u64, side: Side) -> &'static str {
    match (side, code) {
        (Side::Server, UNKNOWN_CA | BAD_CERTIFICATE | CERTIFICATE_UNKNOWN | ACCESS_DENIED) => tls::DISTRUSTED,
        (Side::Client, UNRECOGNISED_NAME | ACCESS_DENIED) => {
            "it may know no such name: give one that it has as tls.serverName"
        }
        (Side::Client, CERTIFICATE_REQUIRED) => tls::WANTS_CERTIFICATE,
        (Side::Client, UNKNOWN_CA | BAD_CERTIFICATE | CERTIFICATE_UNKNOWN) => tls::TAKES_NO_SUCH_CERTIFICATE,
        (_, NO_APPLICATION_PROTOCOL) => tls::OTHER_ALPN,
        _ => "",
    }
}

fn kind(error: &ConnectionError) -> ErrorKind {
    match error {
        ConnectionError::TimedOut => ErrorKind::TimedOut,
        ConnectionError::Reset | ConnectionError::ConnectionClosed(_) => ErrorKind::ConnectionReset,
        _ => ErrorKind::ConnectionAborted,
    }
}

/// A connection that had begun. `None`: whoever ended it meant to.
pub(super) fn ended(error: ConnectionError) -> Option<io::Error> {
    match &error {
        ConnectionError::LocallyClosed | ConnectionError::ApplicationClosed(_) => None,
        ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == 0 => None,
        _ => Some(lost(error)),
    }
}

fn lost(error: ConnectionError) -> io::Error {
    let advice = match &error {
        ConnectionError::TimedOut => "nothing came from the peer (maxIdleTimeout)",
        // What a server thinks of a client's certificate, the client learns when it has begun already.
        ConnectionError::ConnectionClosed(_) => match alert(&error) {
            Some(code @ (CERTIFICATE_REQUIRED | UNKNOWN_CA)) => peers(code, Side::Client),
            _ => "",
        },
        _ => "",
    };
    said("connection", &error, advice)
}

pub(super) fn unread(error: ReadError) -> io::Error {
    match error {
        ReadError::Reset(code) => reset(code),
        ReadError::ConnectionLost(error) => lost(error),
        error => io::Error::other(error),
    }
}

pub(super) fn unwritten(error: WriteError) -> io::Error {
    match error {
        WriteError::Stopped(_) | WriteError::ClosedStream => ErrorKind::BrokenPipe.into(),
        WriteError::ConnectionLost(error) => lost(error),
        error => io::Error::other(error),
    }
}

fn reset(code: VarInt) -> io::Error {
    io::Error::new(ErrorKind::ConnectionReset, format!("QUIC: the peer reset the stream (code {code})"))
}
