//! Files of our own that are there whole or not at all, and are read by nobody else.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Puts these bytes, one piece behind the other, in the place of whatever `path` held: in one step, so that nobody reads half
/// of it, and on the disk before that, so that a crash leaves the old or the new.
pub(crate) fn replace(path: &Path, pieces: &[&[u8]]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}", fastrand::u64(..)));
    let half = path.with_file_name(name);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
        pieces.iter().try_for_each(|piece| file.write_all(piece))?;
        file.sync_all()?;
        fs::rename(&half, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&half)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.example.key");
        for pieces in [&[&b"one"[..], b"two"][..], &[b"3"]] {
            replace(&path, pieces).unwrap();
            assert_eq!(fs::read(&path).unwrap(), pieces.concat());
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // A folder cannot be replaced by a file.
        fs::create_dir(dir.path().join("folder")).unwrap();
        replace(&dir.path().join("folder"), &[b"x"]).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
