//! Services named on the command line of either program, `-L` and `-F`, and the traffic that they carry.

use super::matrix::TUNNEL;
use super::{Proc, backend, curl, eventually, free_port, wait_for_port};
use std::fs::{self, File};
use std::process::{Command, Output};

const OTHER: &str = "ac74d9dd-3125-442a-a7c1-f9e49e05faca";

/// How a command line becomes a running program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// As it stands.
    Direct,
    /// Printed in that format, and read from standard input.
    Printed(&'static str),
    /// By the reference.
    Gost,
}

/// Those of our program.
pub(crate) const OURS: [Way; 3] = [Way::Direct, Way::Printed("yaml"), Way::Printed("json")];

fn pointsman(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.args(arguments);
    command
}

fn gost(arguments: &[&str]) -> Command {
    let peer = std::env::var_os("GOST_PEER").expect("GOST_PEER names the reference program: run `make test`");
    let mut command = Command::new(peer);
    command.args(arguments);
    command
}

impl Way {
    /// What the program says to these arguments, of which it does not run anything.
    pub(crate) fn output(self, arguments: &[&str]) -> Output {
        let mut command = if self == Self::Gost { gost(arguments) } else { pointsman(arguments) };
        command.output().unwrap()
    }

    pub(crate) fn start(self, arguments: &[&str]) -> Proc {
        let dir = tempfile::tempdir().unwrap();
        let command = match self {
            Self::Direct => pointsman(arguments),
            Self::Gost => gost(arguments),
            Self::Printed(format) => {
                let printed = self.output(&[arguments, &["-O", format]].concat());
                assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
                let file = dir.path().join("printed");
                fs::write(&file, printed.stdout).unwrap();
                let mut command = pointsman(&["-C", "-"]);
                command.stdin(File::open(file).unwrap());
                command
            }
        };
        Proc::spawn(command, dir)
    }
}

/// Asks until the answer is there: a client may still be on its way to its server.
fn served(host: &str, port: u16, name: &str) {
    let answer = (200, format!("{name} {host}:{port} / GET"));
    eventually(&format!("{answer:?}"), || (curl(host, port, "/", &[]) == answer).then_some(()));
}

/// The tunnel lines of GOST's manual: a server with its rules, clients with a weight, and a visitor of a tunnel.
pub(crate) async fn tunnel(server: Way, client: Way, visitor: Way) {
    let (web, other) = (backend::http("web").await, backend::http("other").await);
    let (port, visit, own) = (free_port(), free_port(), free_port());
    let entrypoint = format!("entrypoint=127.0.0.1:{visit}");
    let rules = format!("tunnel=.example.com:{TUNNEL},example.org:{OTHER}");
    let _server = server.start(&["-L", &format!("tunnel://127.0.0.1:{port}?{entrypoint}&{rules}")]);
    wait_for_port(port);
    wait_for_port(visit);
    let client = |target: u16, id: &str| {
        let node = format!("tunnel://127.0.0.1:{port}?tunnel.id={id}&tunnel.weight=2");
        client.start(&["-L", &format!("rtcp://:0/127.0.0.1:{target}"), "-F", &node])
    };
    let _clients = [client(web, TUNNEL), client(other, OTHER)];
    served("a.example.com", visit, "web");
    served("example.org", visit, "other");
    let _visitor = visitor.start(&[
        "-L",
        &format!("tcp://127.0.0.1:{own}/srv-2.example.com"),
        "-F",
        &format!("tunnel://127.0.0.1:{port}?tunnel.id={TUNNEL}"),
    ]);
    wait_for_port(own);
    served("localhost", own, "web");
}

/// The relay lines: a server that opens ports for whoever knows the password, over WebSocket and TLS, and a client.
pub(crate) async fn relay(server: Way, client: Way) {
    let web = backend::http("web").await;
    let (port, visit) = (free_port(), free_port());
    let _server =
        server.start(&["-L", &format!("relay+wss://user:p%40ss@127.0.0.1:{port}?bind=true&path=/relay")]);
    wait_for_port(port);
    let line = |user: &str| format!("relay+wss://{user}@127.0.0.1:{port}?path=/relay");
    let service = format!("rtcp://127.0.0.1:{visit}/127.0.0.1:{web}");
    if client != Way::Gost {
        let stranger = client.start(&["-L", &service, "-F", &line("user:other")]);
        stranger.wait_for(&["wrong user name or password"]);
    }
    let _client = client.start(&["-L", &service, "-F", &line("user:p%40ss")]);
    wait_for_port(visit);
    served("localhost", visit, "web");
}

/// Two hops, of which the first has a node that is down, and two ports with a target each.
pub(crate) async fn hops(relay: Way, client: Way) {
    let targets = [backend::http("zero").await, backend::http("one").await];
    let (first, second, down) = (free_port(), free_port(), free_port());
    let relays = [format!("relay://u:p@127.0.0.1:{first}"), format!("relay+mtls://127.0.0.1:{second}")];
    let _relays = relay.start(&["-L", &relays[0], "-L", &relays[1]]);
    wait_for_port(first);
    wait_for_port(second);
    let port = free_pair();
    let targets = format!("127.0.0.1:{},127.0.0.1:{}", targets[0], targets[1]);
    let _client = client.start(&[
        "-L",
        &format!("tcp://127.0.0.1:{port}-{}/{targets}", port + 1),
        "-F",
        &format!("relay://u:p@127.0.0.1:{down},127.0.0.1:{first}?strategy=fifo&failTimeout=1m"),
        "-F",
        &format!("relay+mtls://127.0.0.1:{second}"),
    ]);
    wait_for_port(port + 1);
    served("localhost", port, "zero");
    served("localhost", port + 1, "one");
}

/// The first of two ports side by side.
fn free_pair() -> u16 {
    eventually("two free ports", || {
        let port = free_port();
        std::net::TcpListener::bind(("127.0.0.1", port + 1)).ok().map(|_| port)
    })
}
