//! What the system tells of single files that looking at them would not show: one is still being written, another was
//! moved here whole.

use super::stamp::ENDINGS;
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind};
use std::collections::HashSet;
use std::path::Path;

/// File names, of files that a plugin may have.
#[derive(Debug, Default, Clone)]
pub(super) struct News {
    moved: HashSet<String>,
    writing: HashSet<String>,
}

impl News {
    /// Takes in an event about files in `dir`.
    pub(super) fn hear(&mut self, event: &Event, dir: &Path) {
        for path in event.paths.iter().filter(|path| path.parent() == Some(dir)) {
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(name) = name.filter(|name| ENDINGS.iter().any(|ending| name.ends_with(ending))) else {
                continue;
            };
            match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) => {
                    self.moved.remove(name);
                    self.writing.insert(name.to_owned());
                }
                EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                    self.writing.remove(name);
                    self.moved.insert(name.to_owned());
                }
                EventKind::Access(AccessKind::Close(AccessMode::Write))
                | EventKind::Modify(ModifyKind::Name(RenameMode::From))
                | EventKind::Remove(_) => {
                    self.writing.remove(name);
                }
                _ => {}
            }
        }
    }

    /// What there is to know for one look. That a file was moved is true once, that it is being written until it is closed.
    pub(super) fn take(&mut self) -> Self {
        Self { moved: std::mem::take(&mut self.moved), writing: self.writing.clone() }
    }

    /// Nobody tells any more when a file is closed.
    pub(super) fn forget(&mut self) {
        self.writing.clear();
    }

    pub(super) fn was_moved(&self, name: &str, ending: &str) -> bool {
        contains(&self.moved, name, ending)
    }

    pub(super) fn is_written(&self, name: &str, ending: &str) -> bool {
        contains(&self.writing, name, ending)
    }
}

fn contains(names: &HashSet<String>, name: &str, ending: &str) -> bool {
    !names.is_empty() && names.contains(&format!("{name}{ending}"))
}
