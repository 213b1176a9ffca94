//! The same command lines, run by either program, and the documents that both make of them.

use super::support::command_line::{self, Way};
use super::support::matrix::TUNNEL;
use serde_json::Value;

use Way::{Direct, Gost};

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_of_either_make() {
    for (server, client, visitor) in
        [(Direct, Gost, Gost), (Gost, Direct, Direct), (Direct, Direct, Gost), (Gost, Gost, Direct)]
    {
        eprintln!("visitor {visitor:?} of client {client:?} at {server:?}");
        command_line::tunnel(server, client, visitor).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_of_either_make() {
    for (server, client) in [(Direct, Gost), (Gost, Direct)] {
        eprintln!("client {client:?} at {server:?}");
        command_line::relay(server, client).await;
        command_line::hops(server, client).await;
    }
}

/// All that is in our document is in the reference's, which has each key of a query in every object.
#[test]
fn documents_agree() {
    for line in [
        "-L tunnel://:8443?entrypoint=:80&tunnel=.example.com:ID,example.org:ID",
        "-L rtcp://:0/192.168.1.1:80 -F tunnel://server:8443?tunnel.id=ID&tunnel.weight=2",
        "-L tcp://:8000/srv-2.local -F tunnel+wss://server:8443?tunnel.id=ID&path=/p&dialer.host=h",
        "-L relay+wss://user:p%40s:s@:8443?bind=true",
        "-L rtcp://0.0.0.0:443/192.168.1.1:443 -F relay+wss://a@b:pass@server:8443?secure=true&servername=x",
        "-L tcp://[::1]:8000-8002/[fe80::1]:80?strategy=hash&max_fails=3 -L tcp://:1-2/a:1,b:2 -L tcp://:3/a:4-6,b:7",
        "-L :80/a:1 -L tls://:81/a:1?retries=2&proxyProtocol=1 -L relay+tls://:82/b:1?maxConnections=5",
        "-L relay://:80?auth=dTpwOnE%3D -L relay://u:p@:81?mux.version=1&service.maxConnections=5&admission=~10.0.0.0/8,::1",
        "-L tcp://:80/a:1 -F socks5://u:p@[::1]:1080 -F https://h:1?failTimeout=5 -F relay+grpc://a:1,b:2?weight=3&node.backup=true",
    ] {
        let words: Vec<_> = line.split(' ').map(|word| word.replace("ID", TUNNEL)).collect();
        let arguments: Vec<_> = words.iter().map(String::as_str).chain(["-O", "json"]).collect();
        let document = |way: Way| -> Value {
            let printed = way.output(&arguments);
            assert!(printed.status.success(), "{line}: {}", String::from_utf8_lossy(&printed.stderr));
            serde_json::from_slice(&printed.stdout).unwrap()
        };
        contained(&document(Direct), &document(Gost), line);
    }
}

fn contained(ours: &Value, theirs: &Value, at: &str) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in ours {
                contained(value, theirs.get(key).unwrap_or(&Value::Null), &format!("{at} {key}"));
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            assert_eq!(ours.len(), theirs.len(), "{at}");
            ours.iter().zip(theirs).for_each(|(ours, theirs)| contained(ours, theirs, at));
        }
        _ => assert_eq!(text(ours), text(theirs), "{at}"),
    }
}

/// A value as a configuration reads it: quoted or not, and with the reference's other words for the same.
fn text(value: &Value) -> String {
    match value {
        // Durations.
        Value::Number(number) if number.as_u64().is_some_and(|n| n >= 1_000_000_000) => {
            format!("{}s", number.as_u64().unwrap() / 1_000_000_000)
        }
        Value::String(text) if text == "forward" => "tcp".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
