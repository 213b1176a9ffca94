//! Compiled code on disk, so that a start does not compile again what was compiled before (seconds for a Python plugin).
//!
//! Code from this cache runs unchecked, so a file is taken only out of a folder that is ours alone, and only if it holds
//! what was written: its name is made from the plugin's version and everything in the engine that matters, its content is
//! behind a checksum. Any other file is compiled anew and overwritten.

use super::load::Version;
use crate::file;
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Files that are kept. Without it a folder in which plugins are replaced all day would fill the disk.
const MAX_FILES: usize = 256;

/// Length of the checksum in front of the code.
const SUM: usize = 32;

/// The folder with compiled code; without one everything is compiled anew.
#[derive(Debug, Clone, Default)]
pub struct CompiledCache {
    dir: Option<PathBuf>,
}

impl CompiledCache {
    /// Opens the folder, making it if it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be made, belongs to another user, or others may write to it.
    pub fn open(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let found = fs::symlink_metadata(dir)?;
        let ours = rustix::process::geteuid().as_raw();
        if !found.is_dir() || found.uid() != ours || found.mode() & 0o077 != 0 {
            let advice = "it has to be a folder of the user that runs pointsman, with mode 0700";
            return Err(io::Error::other(format!("{}: {advice}", dir.display())));
        }
        Ok(Self { dir: Some(dir.to_owned()) })
    }

    /// The user's cache folder for this program, from XDG_CACHE_HOME or HOME.
    pub fn default_dir() -> Option<PathBuf> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
        Some(cache.join("pointsman").join("compiled"))
    }

    #[expect(unsafe_code, reason = "code that this user has compiled before, checked as the module says")]
    pub(super) fn get(&self, engine: &Engine, version: &Version) -> Option<Component> {
        let file = read(&self.path(engine, version)?)?;
        let (sum, code) = file.split_at_checked(SUM)?;
        if Sha256::digest(code)[..] != *sum {
            return None;
        }
        // SAFETY: the folder is ours alone and the bytes are those that `put` wrote; wasmtime itself checks that
        // they were compiled by this version with these settings.
        unsafe { Component::deserialize(engine, code) }.ok()
    }

    /// Keeps compiled code, in the place of the oldest if there is much of it. A cache that cannot be written costs time, nothing else.
    pub(super) fn put(&self, version: &Version, component: &Component) {
        let Some(path) = self.path(component.engine(), version) else { return };
        let code = component.serialize().map_err(io::Error::other);
        let kept = code.and_then(|code| file::replace(&path, &[&Sha256::digest(&code), &code]));
        if let Err(error) = kept {
            tracing::warn!(file = %path.display(), %error, "compiled plugin not kept");
        }
        self.drop_oldest();
    }

    fn drop_oldest(&self) {
        let Some(entries) = self.dir.as_ref().and_then(|dir| fs::read_dir(dir).ok()) else { return };
        let age = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
        };
        let mut files: Vec<_> = entries.filter_map(age).collect();
        files.sort_unstable();
        for (_, path) in files.iter().take(files.len().saturating_sub(MAX_FILES)) {
            // Another process may have been faster.
            drop(fs::remove_file(path));
        }
    }

    fn path(&self, engine: &Engine, version: &Version) -> Option<PathBuf> {
        let mut hash = DefaultHasher::new();
        // What this program makes of a core module before it is compiled may change with it.
        env!("CARGO_PKG_VERSION").hash(&mut hash);
        engine.precompile_compatibility_hash().hash(&mut hash);
        let mut name = String::new();
        version.as_bytes().iter().for_each(|byte| name += &format!("{byte:02x}"));
        Some(self.dir.as_ref()?.join(format!("{name}-{:016x}", hash.finish())))
    }
}

/// A file that nobody else may have written: whoever owns the folders above ours could exchange it.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut file = File::open(path).ok()?;
    let found = file.metadata().ok()?;
    if found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o022 != 0 {
        return None;
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
