//! Connections that a proxy in front has passed on: their visitor is whom the PROXY header names.

use super::prefixed::Prefixed;
use super::{BoxStream, Conn};
use crate::wire::proxy::{Found, decode};
use bytes::{Buf, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

/// For the header, as in GOST; a visitor that says nothing for so long is one without.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes the header off a connection that has been accepted, if there is one.
pub async fn proxied(mut conn: Conn) -> io::Result<Conn> {
    let mut buf = BytesMut::from(std::mem::take(&mut conn.prefix));
    let found = timeout(HEADER_TIMEOUT, read(&mut conn.stream, &mut buf)).await;
    if let Found::Header { source, len } = found.unwrap_or(Ok(Found::Nothing))? {
        buf.advance(len);
        if let Some(source) = source {
            conn.client = (source.ip().to_canonical(), source.port()).into();
        }
    }
    conn.prefix = buf.freeze();
    Ok(conn)
}

async fn read(stream: &mut BoxStream, buf: &mut BytesMut) -> io::Result<Found> {
    loop {
        if let Some(found) = decode(buf).map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))? {
            return Ok(found);
        }
        if stream.read_buf(buf).await? == 0 {
            return Ok(Found::Nothing);
        }
    }
}

impl Conn {
    /// Its bytes, those that were taken already in front.
    pub fn into_stream(self) -> BoxStream {
        if self.prefix.is_empty() { self.stream } else { Box::new(Prefixed::new(self.prefix, self.stream)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::pipe::testing::tcp_pair;
    use bytes::Bytes;
    use std::net::SocketAddr;
    use tokio::io::AsyncWriteExt;

    async fn taken(sent: &[u8]) -> io::Result<(SocketAddr, String)> {
        let (near, mut far) = tcp_pair().await;
        let client = SocketAddr::from(([192, 0, 2, 1], 1));
        let conn = Conn {
            stream: Box::new(near),
            prefix: Bytes::new(),
            client,
            local: client,
            secure: false,
            via: None,
        };
        far.write_all(sent).await.unwrap();
        far.shutdown().await.unwrap();
        let conn = proxied(conn).await?;
        let (client, mut text) = (conn.client, String::new());
        conn.into_stream().read_to_string(&mut text).await.unwrap();
        Ok((client, text))
    }

    #[tokio::test]
    async fn the_header_names_the_visitor_and_is_no_part_of_what_it_says() {
        let with = |header: &str| format!("{header}GET / HTTP/1.1\r\n").into_bytes();
        let text = "GET / HTTP/1.1\r\n".to_owned();
        let named = (SocketAddr::from(([198, 51, 100, 7], 99)), text.clone());
        assert_eq!(taken(&with("PROXY TCP4 198.51.100.7 192.0.2.9 99 80\r\n")).await.unwrap(), named);
        let own = (SocketAddr::from(([192, 0, 2, 1], 1)), text);
        assert_eq!(taken(&with("PROXY UNKNOWN\r\n")).await.unwrap(), own);
        assert_eq!(taken(&with("")).await.unwrap(), own);
        assert_eq!(taken(b"PRO").await.unwrap().1, "PRO");
        assert!(taken(&with("PROXY TCP4 x\r\n")).await.unwrap_err().to_string().contains("PROXY"));
    }
}
