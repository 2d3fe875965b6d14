//! The checksum of each file of a mirror, in an extended attribute of the file.

use std::fs::File;

use rustix::io::Errno;

/// The extended attribute for the BLAKE3 of the bytes that we wrote: 32 bytes, raw, so that it fits
/// into an ext4 inode.
pub(crate) const CHECKSUM_ATTRIBUTE: &str = "user.plainfold.b3";

/// A BLAKE3.
pub type Checksum = [u8; 32];

/// The reason why a file has no checksum beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unnoted {
    /// The file system keeps extended attributes, so the file has lost its checksum.
    Lost,
    /// The file system keeps no extended attributes.
    Unsupported,
}

/// The note beside a file.
pub type Noted = Result<Checksum, Unnoted>;

/// The checksum that was noted beside a file when it was written.
pub fn checksum(file: &File) -> Noted {
    let mut noted = [0_u8; 33];
    match rustix::fs::fgetxattr(file, CHECKSUM_ATTRIBUTE, &mut noted) {
        Ok(length) => {
            noted.get(..length).and_then(|noted| noted.try_into().ok()).ok_or(Unnoted::Lost)
        }
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(Unnoted::Unsupported),
        Err(_) => Err(Unnoted::Lost),
    }
}
