//! Real processes, backends and clients for the end-to-end tests. Everything is ready by observation, never by waiting.

pub(crate) mod admission;
pub(crate) mod auth;
pub(crate) mod backend;
pub(crate) mod chains;
pub(crate) mod command_line;
pub(crate) mod matrix;
pub(crate) mod netns;
pub(crate) mod redis;
pub(crate) mod relay;
pub(crate) mod source;
pub(crate) mod udp;
pub(crate) mod vectors;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// No observation takes longer than this on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "tests watch real processes in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Asks again and again until there is an answer.
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, look)
}

/// The same, for what takes longer or may not take as long.
#[expect(clippy::disallowed_methods, reason = "the pause between two looks at another process")]
pub(crate) fn eventually_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A port that was free a moment ago, and that nothing takes by chance: it lies below those that the system gives to outgoing
/// connections (32768 and up), of which the tests make thousands at the same time.
pub(crate) fn free_port() -> u16 {
    eventually("a free port", || {
        let port = fastrand::u16(10_000..32_000);
        let both = TcpListener::bind(("127.0.0.1", port)).ok().zip(UdpSocket::bind(("127.0.0.1", port)).ok());
        both.map(|_| port)
    })
}

/// A new file in place of the old one, as careful editors write.
pub(crate) fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

/// A running program; killed when dropped, its log shown when a test fails.
pub(crate) struct Proc {
    child: Child,
    log: Arc<Mutex<String>>,
    /// Those who fill the log.
    readers: Vec<JoinHandle<()>>,
    dir: tempfile::TempDir,
}

/// Who runs a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Ours,
    Gost,
}

impl Program {
    /// Runs a configuration.
    pub(crate) fn start(self, yaml: &str) -> Proc {
        self.start_with(yaml, &[], &[])
    }

    /// Runs a configuration with more arguments and environment variables.
    pub(crate) fn start_with(self, yaml: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Proc {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, yaml).unwrap();
        let mut command = match self {
            Self::Ours => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
                command.arg("-C");
                command
            }
            Self::Gost => {
                let peer = std::env::var_os("GOST_PEER").map(PathBuf::from);
                Command::new(peer.expect("GOST_PEER names the reference program: run `make test`"))
            }
        };
        command.arg(&file).args(arguments).envs(environment.iter().copied());
        Proc::spawn(command, dir)
    }
}

fn collect(from: impl Read + Send + 'static, log: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            *log.lock().unwrap() += &(line + "\n");
        }
    })
}

impl Proc {
    /// Any program; the folder is its own and goes with it.
    pub(crate) fn spawn(mut command: Command, dir: tempfile::TempDir) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let readers = vec![
            collect(child.stdout.take().unwrap(), Arc::clone(&log)),
            collect(child.stderr.take().unwrap(), Arc::clone(&log)),
        ];
        Self { child, log, readers, dir }
    }

    /// Its folder.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until a line of the log holds all these texts, and returns it.
    pub(crate) fn wait_for(&self, texts: &[&str]) -> String {
        self.wait_for_after(0, texts)
    }

    /// The same in what is said after the first `said` bytes of the log.
    pub(crate) fn wait_for_after(&self, said: usize, texts: &[&str]) -> String {
        eventually(&format!("log line with {texts:?}"), || {
            let log = self.log();
            log[said..].lines().find(|line| texts.iter().all(|text| line.contains(text))).map(str::to_owned)
        })
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
        if name == "STOP" {
            // Its threads stop one after the other, on a busy machine some time after the signal.
            eventually("the process stands still", || self.stands_still().then_some(()));
        }
    }

    fn stands_still(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let state = |stat: String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
        threads
            .map(|thread| thread.unwrap().path().join("stat"))
            .all(|stat| std::fs::read_to_string(stat).is_ok_and(state))
    }

    /// Waits for the end and returns the exit status.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let status = eventually("the process ends", || self.child.try_wait().unwrap());
        // What it has said last may not have been read yet.
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        status.code()
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        self.wait();
    }

    /// Sets how many descriptors it may have.
    pub(crate) fn limit_descriptors(&self, count: usize) {
        let pid = self.child.id().to_string();
        let status =
            Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={count}:{count}")]).status();
        assert!(status.unwrap().success());
    }

    /// Whether it is still running.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// How many of its TCP sockets have been ended by the peer and not by it.
    pub(crate) fn close_wait(&self) -> usize {
        const CLOSE_WAIT: &str = "08";
        self.sockets(&["tcp"], |state, _| state == CLOSE_WAIT)
    }

    /// How many of its TCP sockets are connected to an IPv4 address.
    pub(crate) fn connections_to(&self, peer: &str) -> usize {
        const ESTABLISHED: &str = "01";
        let peer = u32::from_ne_bytes(peer.parse::<std::net::Ipv4Addr>().unwrap().octets());
        let peer = format!("{peer:08X}:");
        self.sockets(&["tcp"], |state, remote| state == ESTABLISHED && remote.starts_with(&peer))
    }

    /// How many of its sockets have a peer.
    pub(crate) fn connections(&self) -> usize {
        // Of TCP, and of UDP.
        const LISTENING: [&str; 2] = ["0A", "07"];
        self.sockets(&["tcp", "tcp6", "udp", "udp6"], |state, _| !LISTENING.contains(&state))
    }

    /// Counts its sockets in these tables by their state and the other end's address, as the kernel writes them.
    fn sockets(&self, tables: &[&str], counts: impl Fn(&str, &str) -> bool) -> usize {
        let own: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .unwrap()
            .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
            .filter_map(|link| {
                Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned())
            })
            .collect();
        let table =
            |table: &&str| std::fs::read_to_string(format!("/proc/{}/net/{table}", self.child.id())).unwrap();
        let is_counted = |line: &str| {
            let row: Vec<_> = line.split_whitespace().collect();
            counts(row[3], row[2]) && own.iter().any(|inode| inode == row[9])
        };
        let count = |table: String| table.lines().skip(1).filter(|line| is_counted(line)).count();
        tables.iter().map(|name| count(table(name))).sum()
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- log of process {} ---\n{}", self.child.id(), self.log());
        }
    }
}

/// Waits until the port takes connections.
pub(crate) fn wait_for_port(port: u16) {
    eventually(&format!("port {port} is open"), || TcpStream::connect(("127.0.0.1", port)).ok());
}

/// Waits until somebody has the UDP port. To try it would be to take it away for a moment.
pub(crate) fn wait_for_udp_port(port: u16) {
    let end = format!(":{port:04X}");
    let is_ours = |line: &str| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&end));
    eventually(&format!("UDP port {port} is open"), || {
        let tables = ["udp", "udp6"].map(|table| std::fs::read_to_string(format!("/proc/net/{table}")));
        tables.into_iter().flatten().any(|table| table.lines().any(is_ours)).then_some(())
    });
}

/// Sends bytes on a new connection and reads until the other side ends it, or says nothing for a while.
pub(crate) fn exchange(port: u16, bytes: &[u8]) -> (String, bool) {
    let mut stream = connect(port);
    stream.write_all(bytes).unwrap();
    read_all(&mut stream)
}

pub(crate) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// What comes, and whether the other side ended the connection (rather than keeping it open).
pub(crate) fn read_all(stream: &mut TcpStream) -> (String, bool) {
    let mut got = Vec::new();
    let closed = stream.read_to_end(&mut got).is_ok();
    (String::from_utf8_lossy(&got).into_owned(), closed)
}

/// Runs the real curl against `host` at a local port; returns status and body.
pub(crate) fn curl(host: &str, port: u16, path: &str, more: &[&str]) -> (u16, String) {
    let output = Command::new("curl")
        .args(["-s", "--max-time", "20", "-w", "\n%{http_code}", "--resolve"])
        .arg(format!("{host}:{port}:127.0.0.1"))
        .args(more)
        .arg(if more.contains(&"--cacert") {
            format!("https://{host}:{port}{path}")
        } else {
            format!("http://{host}:{port}{path}")
        })
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}
