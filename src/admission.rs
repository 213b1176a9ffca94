//! Who may connect at all, by address.

use crate::addr::{Network, Networks};
use crate::lines::{self, Stamp};
use arc_swap::ArcSwap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// `admissions[]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `name`.
    pub name: String,
    /// `whitelist`: only these may connect; else all but these.
    pub whitelist: bool,
    /// `matchers`.
    pub networks: Vec<Network>,
    /// `file`, one address or network a line, beside `matchers`.
    pub file: Option<lines::Settings>,
}

/// A file of addresses that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Read(String, io::Error),
    /// A line is wrong.
    #[error("{0}: {1}")]
    Line(String, String),
}

/// Decides about addresses.
#[derive(Debug)]
pub(crate) struct Admission {
    settings: Settings,
    networks: ArcSwap<Networks>,
    /// What the file was when it was read at first.
    stamp: Option<Stamp>,
}

impl Admission {
    /// Reads the file.
    pub(crate) fn new(settings: &Settings) -> Result<Self, AdmissionError> {
        let admission = Self {
            settings: settings.clone(),
            networks: ArcSwap::default(),
            stamp: settings.file.as_ref().map(|file| Stamp::of(&file.path)),
        };
        let mut text = String::new();
        let mut name = String::new();
        if let Some(file) = &settings.file {
            name = file.path.display().to_string();
            text = lines::read(&file.path).map_err(|error| AdmissionError::Read(name.clone(), error))?;
        }
        admission.apply(&text).map_err(|line| AdmissionError::Line(name, line))?;
        Ok(admission)
    }

    /// Reads the file anew whenever it changes, until `stop`.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        if let (Some(file), Some(stamp)) = (self.settings.file.clone(), self.stamp) {
            lines::follow(file, stamp, stop, |text| self.apply(text)).await;
        }
    }

    fn apply(&self, text: &str) -> Result<(), String> {
        let network = |(number, line): (usize, &str)| {
            line.parse::<Network>().map_err(|error| format!("line {number}: {line:?} is {error}"))
        };
        let listed = lines::lines(text).map(network).collect::<Result<Vec<_>, _>>()?;
        let all = self.settings.networks.iter().copied().chain(listed);
        self.networks.store(Arc::new(all.collect()));
        Ok(())
    }

    /// `name` of the settings.
    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    /// Whether that address may connect.
    pub(crate) fn admits(&self, ip: IpAddr) -> bool {
        self.networks.load().contains(ip) == self.settings.whitelist
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn lists_let_in_or_keep_out_and_follow_their_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("addresses");
        let write = |text: &str| {
            let new = dir.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, &path).unwrap();
        };
        let settings = |whitelist| Settings {
            name: "a".to_owned(),
            whitelist,
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            file: Some(lines::Settings { path: path.clone(), every: Duration::from_secs(1) }),
        };
        assert!(Admission::new(&settings(true)).unwrap_err().to_string().contains("addresses"));
        write("192.0.2.1\n10.0.0.0/40\n");
        let error = Admission::new(&settings(true)).unwrap_err().to_string();
        assert!(error.contains("line 2: \"10.0.0.0/40\" is no IP or CIDR"), "{error}");
        write("# ours\n192.0.2.0/24 # office\n");
        let (white, black) =
            (Admission::new(&settings(true)).unwrap(), Admission::new(&settings(false)).unwrap());
        let admitted = |admission: &Admission, ip: &str| admission.admits(ip.parse().unwrap());
        for (ip, listed) in [
            ("10.1.1.1", true),
            ("192.0.2.9", true),
            ("::ffff:192.0.2.9", true),
            ("203.0.113.1", false),
            ("::1", false),
        ] {
            assert_eq!([admitted(&white, ip), admitted(&black, ip)], [listed, !listed], "{ip}");
        }
        let (white, stop) = (Arc::new(white), CancellationToken::new());
        let following = tokio::spawn(Arc::clone(&white).follow(stop.clone()));
        write("::1\n");
        while !admitted(&white, "::1") {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(!admitted(&white, "192.0.2.9") && admitted(&white, "10.1.1.1"));
        stop.cancel();
        following.await.unwrap();
    }
}
