//! `connector: http`: CONNECT to a proxy (RFC 9110, section 9.3.6).

use super::Auth;
use super::connect::Failed;
use crate::addr::HostPort;
use crate::net::BoxStream;
use crate::net::prefixed::Prefixed;
use crate::wire::http::{HeadReader, Limits, Rejected, ReplyHead, RequestHead};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use std::fmt::Write;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Most that a proxy says before it lets through.
const LIMITS: Limits = Limits { max_bytes: 16 * 1024, max_fields: 100 };

pub(super) async fn connect(
    mut stream: BoxStream,
    fields: &[(String, String)],
    auth: Option<&Auth>,
    target: &HostPort,
) -> Result<BoxStream, Failed> {
    let unwritable = |rejected| Failed::Broken(format!("the request cannot be written: {rejected}"));
    let request = request(fields, auth, target).map_err(unwritable)?;
    stream.write_all(request.raw()).await?;
    stream.flush().await?;
    let (mut buf, mut reader) = (BytesMut::new(), HeadReader::default());
    let reply = loop {
        let reply = reader.reply(&mut buf, &LIMITS, &request);
        match reply.map_err(|rejected| Failed::Broken(format!("no answer of an HTTP proxy: {rejected}")))? {
            Some(reply) if reply.is_interim() => {}
            Some(reply) => break reply,
            None if stream.read_buf(&mut buf).await? == 0 => {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            None => {}
        }
    };
    answer(&reply)?;
    Ok(if buf.is_empty() { stream } else { Box::new(Prefixed::new(buf.freeze(), stream)) })
}

fn request(
    fields: &[(String, String)],
    auth: Option<&Auth>,
    target: &HostPort,
) -> Result<RequestHead, Rejected> {
    let mut text = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(Auth { username, password }) = auth {
        let credentials = STANDARD.encode(format!("{username}:{password}"));
        // Writing to a string does not fail.
        let _ = write!(text, "Proxy-Authorization: Basic {credentials}\r\n");
    }
    for (name, value) in fields {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    text.push_str("\r\n");
    let mut buf = BytesMut::from(text.as_bytes());
    let head = HeadReader::default().request(&mut buf, &LIMITS)?;
    head.ok_or(Rejected { status: 400, reason: "incomplete request" })
}

fn answer(reply: &ReplyHead) -> Result<(), Failed> {
    match reply.status() {
        _ if reply.switches() => Ok(()),
        407 => Err(Failed::Broken(
            "the proxy wants another user name or password (407): mend connector.auth".to_owned(),
        )),
        status => Err(Failed::Refused(format!("the proxy answers {status}"))),
    }
}
