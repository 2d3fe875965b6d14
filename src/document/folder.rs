//! The identity of a folder on its file system, which a copy does not share.
//!
//! Pure.

use serde::{Deserialize, Serialize};

/// The identity of a folder, which no copy shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderIdentity {
    /// The number of its inode.
    pub inode: u64,
    /// The time of its creation, in seconds and nanoseconds since 1970, if the file system provides
    /// it.
    pub born: Option<(i64, u32)>,
}

impl FolderIdentity {
    /// Whether both can be the same folder.
    pub fn is(&self, other: &Self) -> bool {
        let born = match (self.born, other.born) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.inode == other.inode && born
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_another_by_its_inode_or_its_birth() {
        let folder = |inode, born| FolderIdentity { inode, born };
        let one = folder(7, Some((1, 2)));
        assert!(one.is(&one) && one.is(&folder(7, None)) && folder(7, None).is(&one));
        for other in [folder(8, Some((1, 2))), folder(7, Some((1, 3))), folder(8, None)] {
            assert!(!one.is(&other) && !other.is(&one), "{other:?}");
        }
    }
}
