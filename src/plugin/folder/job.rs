//! One try of one plugin: its files are read and, if they say anything new, taken into use. It takes as long as compiling
//! and configuring do, so it is made on a thread of its own.

use super::stamp::{ENDINGS, Stamps, stamps};
use crate::plugin::load::MAX_FILE;
use crate::plugin::{InstallError, Plugin, Source};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest configuration and decision table, in bytes.
const MAX_TEXT: usize = 1 << 20;

/// A plugin, and the configuration that it is bound with if it is not that of its file.
pub(super) type Target = (Option<String>, Arc<Plugin>);

/// What to try.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) dir: PathBuf,
    pub(super) name: String,
    /// What the files were when they were found to be whole.
    pub(super) stamps: Stamps,
    /// The hash of what was tried last.
    pub(super) known: Option<[u8; 32]>,
    /// All plugins of that name.
    pub(super) all: Vec<Target>,
    /// Those that are to try what was tried last once more.
    pub(super) refused: Vec<Target>,
    /// Nobody has touched the files since they were tried last: the same failure is not told once more.
    pub(super) again: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The files changed while they were read.
    Unsettled,
    /// They say nothing new.
    Same,
    /// They were tried.
    Tried(Tried),
}

#[derive(Debug, Default)]
pub(super) struct Tried {
    /// The hash of what was tried, if it could be read.
    pub(super) content: Option<[u8; 32]>,
    /// Those that did not take it.
    pub(super) refused: Vec<Target>,
    /// The failure may pass without anybody doing anything about the files.
    pub(super) may_pass: bool,
}

impl Job {
    pub(super) fn run(self) -> Outcome {
        let source = match read(&self.dir, &self.name) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Outcome::Unsettled,
            Err(error) => {
                self.all.iter().for_each(|(_, plugin)| plugin.not_taken(&error, self.again));
                return Outcome::Tried(Tried { may_pass: true, ..Tried::default() });
            }
        };
        // What was read may be half of what somebody has begun to write meanwhile.
        if stamps(&self.dir, &self.name) != self.stamps {
            return Outcome::Unsettled;
        }
        let content = hash(&source);
        let targets = if self.known == Some(content) { self.refused } else { self.all };
        if targets.is_empty() {
            return Outcome::Same;
        }
        let mut tried = Tried { content: Some(content), ..Tried::default() };
        for (config, plugin) in targets {
            let own = config.clone().unwrap_or_else(|| source.config.clone());
            if let Err(error) = plugin.take(&Source { config: own, ..source.clone() }) {
                plugin.not_taken(&error, self.again);
                tried.may_pass |= matches!(error, InstallError::Start(_));
                tried.refused.push((config, plugin));
            }
        }
        Outcome::Tried(tried)
    }
}

fn read(dir: &Path, name: &str) -> io::Result<Source> {
    let [code, config, cases] = ENDINGS.map(|ending| dir.join(format!("{name}{ending}")));
    Ok(Source {
        code: read_bounded(&code, MAX_FILE)?,
        config: read_text(&config)?.unwrap_or_default(),
        cases: read_text(&cases)?,
    })
}

fn read_text(path: &Path) -> io::Result<Option<String>> {
    match read_bounded(path, MAX_TEXT) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|error| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            io::Error::other(format!("{name} is not UTF-8: {error}"))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_bounded(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    // A pipe that nobody writes to would be waited for.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(format!("{} is no file", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(io::Error::other(format!("{} has more than {max} bytes", path.display())));
    }
    Ok(bytes)
}

fn hash(source: &Source) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in
        [&source.code[..], source.config.as_bytes(), source.cases.as_deref().unwrap_or("\0").as_bytes()]
    {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
