//! Lists in Redis: a hash or a set, read as a whole by one connection each time.

use super::{Hidden, MAX_LIST};
use crate::addr::HostPort;
use crate::lines::Listed;
use crate::net::dial::dial;
use crate::wire::resp::{Reader, Reply, put_command};
use bytes::{Bytes, BytesMut};
use std::fmt;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest error of Redis that is shown.
const MAX_SHOWN: usize = 200;

/// `redis`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `addr`.
    pub addr: HostPort,
    /// `db`.
    pub db: u32,
    /// `username`, sent along with the password only.
    pub username: Option<String>,
    /// `password`.
    pub password: Option<Hidden>,
    /// `key`.
    pub key: String,
    /// `type`.
    pub kind: Kind,
    /// For the connection.
    pub connect_timeout: Duration,
}

/// `type`: what lies under the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Fields and values.
    Hash,
    /// Members, each of them a line.
    Set,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == Kind::Hash { "hash" } else { "set" };
        write!(f, "redis {} {kind} {:?}", self.addr, self.key)
    }
}

/// Everything under the key, in an order that is always the same; nothing where there is no such key.
pub(super) async fn load(settings: &Settings) -> Result<Listed, String> {
    let mut stream =
        dial(&settings.addr, settings.connect_timeout).await.map_err(|error| error.to_string())?;
    let (wire, steps) = commands(settings);
    stream.write_all(&wire).await.map_err(|error| error.to_string())?;
    let (mut buf, mut reader) = (BytesMut::new(), Reader::new(MAX_LIST));
    for step in steps {
        match (step, reply(&mut stream, &mut reader, &mut buf).await?) {
            (_, Reply::Error(error)) => return Err(format!("{step}: {}", explain(&error))),
            ("HGETALL", Reply::List(texts)) => return pairs(texts),
            ("SMEMBERS", Reply::List(texts)) => return members(texts),
            ("AUTH" | "SELECT", Reply::Status(_)) => {}
            _ => return Err(format!("{step}: another reply than expected")),
        }
    }
    Err("no reply".to_owned())
}

/// What is sent, and the names of the commands in it.
fn commands(settings: &Settings) -> (BytesMut, Vec<&'static str>) {
    let (mut wire, mut steps) = (BytesMut::new(), Vec::new());
    let mut put = |words: &[&[u8]], step| {
        put_command(&mut wire, words);
        steps.push(step);
    };
    match (&settings.username, &settings.password) {
        (Some(user), Some(password)) => put(&[b"AUTH", user.as_bytes(), password.0.as_bytes()], "AUTH"),
        (None, Some(password)) => put(&[b"AUTH", password.0.as_bytes()], "AUTH"),
        (_, None) => {}
    }
    if settings.db != 0 {
        put(&[b"SELECT", settings.db.to_string().as_bytes()], "SELECT");
    }
    match settings.kind {
        Kind::Hash => put(&[b"HGETALL", settings.key.as_bytes()], "HGETALL"),
        Kind::Set => put(&[b"SMEMBERS", settings.key.as_bytes()], "SMEMBERS"),
    }
    (wire, steps)
}

async fn reply(stream: &mut TcpStream, reader: &mut Reader, buf: &mut BytesMut) -> Result<Reply, String> {
    loop {
        if let Some(reply) = reader.reply(buf).map_err(|error| error.to_string())? {
            return Ok(reply);
        }
        match stream.read_buf(buf).await {
            Ok(0) => return Err("Redis ended the connection".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn explain(error: &[u8]) -> String {
    let shown: String = String::from_utf8_lossy(error).chars().take(MAX_SHOWN).collect();
    let shown = shown.escape_debug();
    let advice = match error.split(|b| *b == b' ').next() {
        Some(b"WRONGTYPE") => "; is redis.type, hash or set, that of the key?",
        Some(b"NOAUTH") => "; give redis.password",
        Some(b"WRONGPASS") => "; mend redis.username and redis.password",
        _ => "",
    };
    format!("{shown}{advice}")
}

fn pairs(texts: Vec<Bytes>) -> Result<Listed, String> {
    let mut texts = texts.into_iter();
    let mut pairs = Vec::with_capacity(texts.len() / 2);
    while let Some(field) = texts.next() {
        let value = texts.next().ok_or("a hash with a field without a value")?;
        pairs.push((text(&field)?, text(&value)?));
    }
    pairs.sort_unstable();
    Ok(Listed::Pairs(pairs))
}

fn members(texts: Vec<Bytes>) -> Result<Listed, String> {
    let mut lines = texts.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    lines.sort_unstable();
    Ok(Listed::Text(lines.join("\n")))
}

fn text(bytes: &Bytes) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "an entry that is not UTF-8")?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(password: Option<&str>, username: Option<&str>, db: u32, kind: Kind) -> Settings {
        Settings {
            addr: HostPort::parse("127.0.0.1:6379", 0).unwrap(),
            db,
            username: username.map(str::to_owned),
            password: password.map(|text| Hidden(text.to_owned())),
            key: "gost".to_owned(),
            kind,
            connect_timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn commands_go_out_together() {
        let steps = |settings| commands(&settings).1;
        assert_eq!(steps(settings(None, Some("u"), 0, Kind::Hash)), ["HGETALL"]);
        assert_eq!(steps(settings(Some("p"), None, 3, Kind::Set)), ["AUTH", "SELECT", "SMEMBERS"]);
        let (wire, _) = commands(&settings(Some("p"), Some("u"), 0, Kind::Hash));
        assert!(wire.starts_with(b"*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$1\r\np\r\n*2\r\n"));
        let shown = format!("{:?}", settings(Some("p4ss"), None, 0, Kind::Hash));
        assert!(!shown.contains("p4ss"), "{shown}");
    }

    #[test]
    fn entries_have_one_order() {
        let texts =
            |list: &[&'static str]| list.iter().map(|text| Bytes::from_static(text.as_bytes())).collect();
        assert_eq!(members(texts(&["b 2", "a 1"])), Ok(Listed::Text("a 1\nb 2".to_owned())));
        let expected = [("a", "1"), ("b", "2")].map(|(field, value)| (field.to_owned(), value.to_owned()));
        assert_eq!(pairs(texts(&["b", "2", "a", "1"])), Ok(Listed::Pairs(expected.to_vec())));
        assert!(pairs(texts(&["a"])).is_err());
        assert!(members(vec![Bytes::from_static(b"\xff")]).is_err());
    }
}
