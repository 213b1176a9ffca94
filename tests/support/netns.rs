//! Two machines and the line between them: network namespaces that are joined by a bridge in a third one. When the bridge is
//! down both sides see a link that is up and hear nothing more, as when a cable is cut behind the next switch.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Removed when dropped.
pub(crate) struct Line {
    /// Of the names in the system, which other tests share.
    id: String,
}

/// One end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Near,
    Far,
}

impl End {
    const BOTH: [Self; 2] = [Self::Near, Self::Far];

    /// Its address on the line.
    pub(crate) fn addr(self) -> &'static str {
        if self == Self::Near { "10.77.0.1" } else { "10.77.0.2" }
    }

    fn suffix(self) -> &'static str {
        if self == Self::Near { "n" } else { "f" }
    }
}

/// Runs `ip`, which has to work: without namespaces these tests say nothing, and that must not pass for success.
fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output();
    let output = output.expect("these tests need `ip`: run `make tools`, which installs iproute2");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "ip {arguments}: {said}\nthese tests make network namespaces: run them as root, or with CAP_SYS_ADMIN and CAP_NET_ADMIN"
    );
}

impl Line {
    /// Two ends that reach each other.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let line = Self { id: format!("pm{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)) };
        let id = &line.id;
        ip(&format!("netns add {id}"));
        ip(&format!("-n {id} link add bridge type bridge"));
        for end in End::BOTH {
            let (own, suffix) = (line.name(end), end.suffix());
            ip(&format!("netns add {own}"));
            ip(&format!("link add eth netns {own} type veth peer name {suffix} netns {id}"));
            ip(&format!("-n {id} link set dev {suffix} master bridge up"));
            ip(&format!("-n {own} addr add {}/24 dev eth", end.addr()));
            ip(&format!("-n {own} link set eth up"));
            ip(&format!("-n {own} link set lo up"));
        }
        line.set("up");
        line
    }

    /// Neither end is told.
    pub(crate) fn cut(&self) {
        self.set("down");
    }

    pub(crate) fn mend(&self) {
        self.set("up");
    }

    fn set(&self, state: &str) {
        ip(&format!("-n {} link set dev bridge {state}", self.id));
    }

    fn name(&self, end: End) -> String {
        format!("{}{}", self.id, end.suffix())
    }

    /// A command that runs there.
    pub(crate) fn command(&self, end: End, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(end), program]);
        command
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for name in End::BOTH.map(|end| self.name(end)).iter().chain([&self.id]) {
            // What was not made cannot be removed.
            drop(Command::new("ip").args(["netns", "del", name]).output());
        }
    }
}
