//! Where a folder is: its file system, and what that allows.

use rustix::fs::{Access, AtFlags, RenameFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::Folder;
use crate::tree::MirrorError;
use crate::trial;

/// The file system that a folder is on, and the mount by which it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderPlace {
    device: u64,
    /// The mount that the kernel names.
    mount: Option<u64>,
    is_mount: Option<bool>,
}

/// The free space of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub bytes: u64,
    /// Free inodes, where their number is limited.
    pub files: Option<u64>,
}

impl FolderPlace {
    /// Whether something can be renamed from one to the other.
    pub fn reaches(&self, other: &Self) -> bool {
        self.device == other.device && self.mount == other.mount
    }
}

impl Folder {
    /// Where this folder is.
    pub fn place(&self) -> Result<FolderPlace, MirrorError> {
        if let Ok(stat) = rustix::fs::statx(&self.fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
            let is_told = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
            let mounts = StatxAttributes::MOUNT_ROOT;
            return Ok(FolderPlace {
                device: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
                mount: is_told.then_some(stat.stx_mnt_id),
                is_mount: stat
                    .stx_attributes_mask
                    .contains(mounts)
                    .then(|| stat.stx_attributes.contains(mounts)),
            });
        }
        // A kernel or a sandbox without that call.
        let stat = rustix::fs::fstat(&self.fd)
            .map_err(|error| MirrorError::io("look at", &self.path, error))?;
        Ok(FolderPlace { device: stat.st_dev, mount: None, is_mount: None })
    }

    /// Whether another file system is mounted over this folder, which lies in `above`.
    pub fn is_mounted_in(&self, above: &Folder) -> Result<bool, MirrorError> {
        let place = self.place()?;
        match place.is_mount {
            Some(is_mount) => Ok(is_mount),
            None => Ok(place.device != above.place()?.device),
        }
    }

    /// The free space of the file system that holds this folder.
    pub fn room(&self) -> Result<Room, MirrorError> {
        let stat = rustix::fs::fstatvfs(&self.fd)
            .map_err(|error| MirrorError::io("look at the file system of", &self.path, error))?;
        let bytes = match stat.f_blocks {
            // As in a ramfs, which has no bounds.
            0 => u64::MAX,
            _ => stat.f_bavail.saturating_mul(stat.f_frsize),
        };
        Ok(Room { bytes, files: (stat.f_files > 0).then_some(stat.f_favail) })
    }

    /// Whether it is on a file system of the network, where a process may lose its lock and live on.
    /// Those of user space count too: what is behind them is unknown.
    pub fn is_on_network(&self) -> bool {
        const NETWORKS: [u64; 12] = [
            0x6969,      // NFS
            0x517b,      // SMB
            0xff53_4d42, // CIFS
            0xfe53_4d42, // SMB 2
            0x00c3_6400, // Ceph
            0x6573_5546, // FUSE
            0x0102_1997, // 9P
            0x5346_414f, // AFS
            0x0bd0_0bd0, // Lustre
            0x4750_4653, // GPFS
            0x0116_1970, // GFS2
            0x7461_636f, // OCFS2
        ];
        rustix::fs::fstatfs(&self.fd)
            .is_ok_and(|stat| NETWORKS.contains(&(stat.f_type as u64 & 0xffff_ffff)))
    }

    /// Renames the folder `name` within this one; says whether it did. It does not if the new name
    /// exists, if `name` is not a folder, or if this file system does not move it.
    pub fn rename_folder(&self, name: &str, new_name: &str) -> Result<bool, MirrorError> {
        // The slash refuses anything but a folder.
        let slashed = format!("{name}/");
        let rename =
            |flags| rustix::fs::renameat_with(&self.fd, &*slashed, &self.fd, new_name, flags);
        let renamed = match trial::attempt("io-rename-folder", || rename(RenameFlags::NOREPLACE)) {
            // A plain rename of a folder replaces at most an empty folder.
            Err(Errno::INVAL | Errno::NOSYS) => rename(RenameFlags::empty()),
            renamed => renamed,
        };
        match renamed {
            Ok(()) => {
                trial::renamed(&self.fd, name, &self.fd, new_name);
                Ok(true)
            }
            Err(
                Errno::EXIST
                | Errno::NOTEMPTY
                | Errno::NOTDIR
                | Errno::NOENT
                | Errno::XDEV
                | Errno::ACCESS
                | Errno::PERM
                | Errno::BUSY,
            ) => Ok(false),
            Err(error) => Err(self.error("rename", name, error)),
        }
    }

    /// Whether this folder has that name in `above`.
    pub fn is_at(&self, above: &Folder, name: &str) -> bool {
        let there = rustix::fs::statat(&above.fd, name, AtFlags::SYMLINK_NOFOLLOW);
        let here = rustix::fs::fstat(&self.fd);
        there.is_ok_and(|there| {
            here.is_ok_and(|here| (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino))
        })
    }

    /// Why nothing can be created or renamed in this folder, if so.
    pub fn refusal(&self) -> Option<Errno> {
        let access = Access::WRITE_OK | Access::EXEC_OK;
        rustix::fs::accessat(&self.fd, ".", access, AtFlags::EACCESS).err()
    }

    /// The longest name in this folder, in bytes, found by creating names: encfs claims more than it
    /// accepts. `None` if that is unknown.
    pub fn find_longest_name(&self) -> Option<u64> {
        const USUAL: u64 = 255;
        let told = self.longest_name().unwrap_or(USUAL).min(USUAL);
        if self.takes_name(told)? {
            return Some(told);
        }
        let (mut taken, mut refused) = (0, told);
        while refused - taken > 1 {
            let middle = taken + (refused - taken) / 2;
            match self.takes_name(middle)? {
                true => taken = middle,
                false => refused = middle,
            }
        }
        Some(taken)
    }

    /// Whether a name of this many bytes is possible; `None` if another error prevents the test.
    fn takes_name(&self, length: u64) -> Option<bool> {
        let name = "n".repeat(usize::try_from(length).ok()?);
        match self.create_file(&name) {
            Ok(_) => self.remove(&name).ok().map(|()| true),
            Err(error) if error.errno() == Some(Errno::NAMETOOLONG) => Some(false),
            Err(_) => None,
        }
    }

    /// The longest name that this file system claims to accept, in bytes; `None` if it does not say.
    pub fn longest_name(&self) -> Option<u64> {
        let told = rustix::fs::fstatvfs(&self.fd).ok().map(|stat| stat.f_namemax);
        trial::longest_name().or(told).filter(|most| *most > 0)
    }
}
