//! Removing a name with all that it holds.
//!
//! Names need not be text, folders may be nested to any depth, and mounted file systems are not
//! entered. If one file cannot be removed, all others still are.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{AtFlags, Dir};
use rustix::io::Errno;

use super::Folder;
use crate::tree::MirrorError;
use crate::trial;

/// Folders below this depth are moved up before they are removed: each level takes an open file.
const DEEP: usize = 64;

/// A removal in progress.
struct Removal<'a> {
    /// Folders that are nested too deep are moved here.
    top: &'a Folder,
    /// The number of folders that were moved.
    moved: u64,
}

impl Folder {
    /// Removes `name`: a file, a link (never its target), or a folder with all its contents. A name
    /// that does not exist is not an error. If a folder cannot be removed, as much of it as possible
    /// is.
    pub fn remove(&self, name: &str) -> Result<(), MirrorError> {
        let name = OsStr::new(name);
        let Some(folder) = self.unlink_or_enter(name)? else { return Ok(()) };
        if folder.is_mounted_in(self)? {
            return Err(self.mounted(name));
        }
        let mut removal = Removal { top: &folder, moved: 0 };
        loop {
            let before = removal.moved;
            folder.clear(&mut removal, 0)?;
            if removal.moved == before {
                break;
            }
        }
        self.unlink_folder(name)
    }

    fn clear(&self, removal: &mut Removal<'_>, depth: usize) -> Result<(), MirrorError> {
        let mut ended = Ok(());
        for name in self.raw_names()? {
            let removed = self.remove_within(&name, removal, depth);
            if removed.as_ref().is_err_and(MirrorError::is_disk) {
                return removed;
            }
            ended = ended.and(removed);
        }
        ended
    }

    fn remove_within(
        &self,
        name: &OsStr,
        removal: &mut Removal<'_>,
        depth: usize,
    ) -> Result<(), MirrorError> {
        let Some(folder) = self.unlink_or_enter(name)? else { return Ok(()) };
        if folder.is_mounted_in(self)? {
            return Err(self.mounted(name));
        }
        if depth >= DEEP {
            let to = format!("deep-{}", removal.moved);
            let moved = rustix::fs::renameat(&self.fd, name, &removal.top.fd, &to);
            moved.map_err(|error| self.raw_error("rename", name, error))?;
            removal.moved += 1;
            return Ok(());
        }
        folder.clear(removal, depth + 1)?;
        self.unlink_folder(name)
    }

    /// Removes a file or link; opens a folder.
    fn unlink_or_enter(&self, name: &OsStr) -> Result<Option<Self>, MirrorError> {
        let refused = match self.unlink(name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(None),
            // Linux says EISDIR, POSIX says EPERM.
            Err(error @ (Errno::ISDIR | Errno::PERM)) => error,
            Err(error) => return Err(self.raw_error("remove", name, error)),
        };
        match self.enter(name) {
            Ok(folder) => Ok(Some(folder)),
            Err(Errno::NOENT) => Ok(None),
            // It is not a folder, so the refusal stands.
            Err(Errno::NOTDIR | Errno::LOOP) => Err(self.raw_error("remove", name, refused)),
            // It may be empty.
            Err(Errno::ACCESS) => self.unlink_folder(name).map(|()| None),
            Err(error) => Err(self.raw_error("open", name, error)),
        }
    }

    fn unlink_folder(&self, name: &OsStr) -> Result<(), MirrorError> {
        match self.unlink(name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.raw_error("remove", name, error)),
        }
    }

    pub(crate) fn unlink(&self, name: &OsStr, flags: AtFlags) -> Result<(), Errno> {
        trial::attempt("io-remove", || rustix::fs::unlinkat(&self.fd, name, flags))
            .inspect(|()| trial::removed(&self.fd, &name.to_string_lossy()))
    }

    fn mounted(&self, name: &OsStr) -> MirrorError {
        // A mount point may hold anything, and belongs to somebody else.
        self.raw_error("remove what is mounted at", name, Errno::BUSY)
    }

    fn raw_error(&self, action: &'static str, name: &OsStr, error: Errno) -> MirrorError {
        MirrorError::io(action, self.path.join(name), error)
    }

    fn raw_names(&self) -> Result<Vec<OsString>, MirrorError> {
        let failed = |error| MirrorError::io("list", &self.path, error);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_owned()));
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::tree::beneath::tests::folder;

    #[test]
    fn removing_a_folder_removes_the_links_in_it_and_not_their_targets() {
        let (dir, folder) = folder();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("precious"), "x").unwrap();
        std::fs::create_dir_all(dir.path().join("doomed/deep")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("doomed/deep/link")).unwrap();
        folder.remove("doomed").unwrap();
        assert!(!dir.path().join("doomed").exists());
        assert!(outside.path().join("precious").exists());
    }

    #[test]
    fn names_that_are_not_text_are_removed_too() {
        let (dir, folder) = folder();
        std::fs::create_dir_all(dir.path().join("doomed")).unwrap();
        let odd = dir.path().join("doomed").join(OsStr::from_bytes(b"caf\xe9.txt"));
        std::fs::write(&odd, "").unwrap();
        std::fs::create_dir(odd.with_extension("d")).unwrap();
        folder.remove("doomed").unwrap();
        assert!(!dir.path().join("doomed").exists());
    }

    #[test]
    fn a_folder_that_is_nested_deeper_than_files_can_be_open_is_removed() {
        let (dir, folder) = folder();
        let depth = 3 * DEEP + 5;
        let mut above = Folder::open_path(dir.path()).unwrap();
        for level in 0..depth {
            above.create("doomed").unwrap();
            std::fs::write(above.path().join(format!("f{level}")), "").unwrap();
            above = above.open("doomed").unwrap().unwrap();
        }
        folder.remove("doomed").unwrap();
        assert_eq!(folder.names().unwrap(), ["f0"]);
    }

    #[test]
    fn what_cannot_be_removed_keeps_nothing_else() {
        let (dir, folder) = folder();
        let locked = dir.path().join("doomed/locked");
        std::fs::create_dir_all(&locked).unwrap();
        std::fs::write(locked.join("kept"), "").unwrap();
        for name in ["a", "b", "z"] {
            std::fs::write(dir.path().join("doomed").join(name), "").unwrap();
        }
        let modes = |mode| std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&locked, modes(0o500)).unwrap();
        let removed = folder.remove("doomed");
        if locked.exists() {
            let error = removed.unwrap_err();
            assert!(error.to_string().contains("doomed/locked/kept"), "{error}");
            std::fs::set_permissions(&locked, modes(0o700)).unwrap();
            let left = Folder::open_path(&dir.path().join("doomed")).unwrap().names().unwrap();
            assert_eq!(left, ["locked"]);
        }
        folder.remove("doomed").unwrap();
    }
}
