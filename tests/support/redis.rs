//! A real Redis.

use super::{Proc, eventually, free_port};
use std::process::Command;

/// A server of its own; killed when dropped.
pub(crate) struct Redis {
    pub(crate) port: u16,
    arguments: Vec<String>,
    process: Option<Proc>,
    /// What its client needs to be let in.
    auth: Vec<String>,
}

impl Redis {
    /// Starts one with more arguments for the server, and for its client.
    pub(crate) fn start(arguments: &[&str], auth: &[&str]) -> Self {
        let text = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let mut redis =
            Self { port: free_port(), arguments: text(arguments), process: None, auth: text(auth) };
        redis.run();
        redis
    }

    /// Runs it, with nothing in it.
    pub(crate) fn run(&mut self) {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--port", &self.port.to_string(), "--dir"]).arg(dir.path()).args(&self.arguments);
        self.process = Some(Proc::spawn(command, dir));
        eventually("Redis answers", || (self.output(&["PING"]) == "PONG").then_some(()));
    }

    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    fn output(&self, words: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string(), "--no-auth-warning"]).args(&self.auth).args(words);
        String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_owned()
    }

    /// One command, by the real client.
    pub(crate) fn command(&self, words: &[&str]) {
        let output = self.output(words);
        assert!(output == "OK" || output.parse::<u32>().is_ok(), "{words:?}: {output}");
    }
}
