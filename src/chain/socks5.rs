//! `connector: socks5`: CONNECT by RFC 1928, with a user name and password by RFC 1929.

use super::Auth;
use super::connect::Failed;
use crate::addr::HostPort;
use crate::net::BoxStream;
use std::net::SocketAddr;
use tokio_socks::tcp::Socks5Stream;
use tokio_socks::{Error, TargetAddr};

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let text = format!("SOCKS5: {error}");
        match error {
            Error::GeneralSocksServerFailure
            | Error::ConnectionNotAllowedByRuleset
            | Error::NetworkUnreachable
            | Error::HostUnreachable
            | Error::ConnectionRefused
            | Error::TtlExpired
            | Error::InvalidTargetAddress(_) => Self::Refused(text),
            Error::PasswordAuthFailure(_) | Error::NoAcceptableAuthMethods => {
                Self::Broken(format!("{text}: mend connector.auth"))
            }
            _ => Self::Broken(text),
        }
    }
}

pub(super) async fn connect(
    stream: BoxStream,
    auth: Option<&Auth>,
    target: &HostPort,
) -> Result<BoxStream, Failed> {
    // A name is resolved by the proxy.
    let target = match target.host.ip() {
        Some(ip) => TargetAddr::Ip(SocketAddr::new(ip, target.port)),
        None => TargetAddr::Domain(target.host.as_str().into(), target.port),
    };
    let connected = match auth {
        Some(Auth { username, password }) => {
            Socks5Stream::connect_with_password_and_socket(stream, target, username, password).await?
        }
        None => Socks5Stream::connect_with_socket(stream, target).await?,
    };
    Ok(connected.into_inner())
}
