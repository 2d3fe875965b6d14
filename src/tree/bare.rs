//! A mirror's tree without its `.plainfold` (a copy, or a repository that leaves it out), and what
//! its names and files show.
//!
//! It writes nothing.

use rustix::fs::FileType;

use crate::document::Kept;
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::layout::{
    ATTACHMENTS, CONFLICTS, DOCUMENT, HISTORY, SECURITY, TOMBSTONE, is_neighbour,
};
use crate::tree::names::{Codec, Decoded, Spelling};

/// A tree of collections without a description of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bare {
    /// The codec of its names, as far as they show it.
    pub spelling: Spelling,
    /// The folders that are collections.
    pub collections: Vec<String>,
}

/// What the documents of a collection show about its options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub kept: Kept,
    pub attachments: bool,
}

impl Bare {
    /// Looks for collections in a folder; `None` without any.
    pub fn recognise(root: &Folder) -> Result<Option<Self>, MirrorError> {
        let mut names = root.names()?;
        // Only root may open a folder such as `lost+found`.
        names.retain(|name| !name.starts_with('.') && !is_neighbour(name));
        names.sort_unstable();
        let (mut collections, mut evidence) = (Vec::new(), Evidence::default());
        for name in names {
            let Some(folder) = root.open_folder(&name)? else { continue };
            if !is_collection(&folder)? {
                continue;
            }
            evidence.take(&name);
            for document in folder.each_name()? {
                if let Ok(document) = document? {
                    evidence.take(&document);
                }
            }
            collections.push(name);
        }
        let spelling = evidence.spelling(root.longest_name());
        // A folder whose name cannot be that of a collection belongs to somebody else.
        collections.retain(|name| spelling.decode(name) != Decoded::Foreign);
        Ok((!collections.is_empty()).then_some(Self { spelling, collections }))
    }
}

/// The codecs that the names so far allow.
#[derive(Debug, Default)]
struct Evidence {
    /// Names that only one codec makes.
    native: usize,
    portable: usize,
    /// The length of the longest name.
    longest: usize,
    /// Whether a name was shortened to the usual length.
    usual: bool,
    /// Names that may have been shortened to a smaller length.
    short: Vec<String>,
}

impl Evidence {
    fn take(&mut self, name: &str) {
        let fits = |codec: Codec| codec.decode(name) != Decoded::Foreign;
        match (fits(Codec::Native), fits(Codec::Portable)) {
            (true, false) => self.native += 1,
            (false, true) => self.portable += 1,
            (false, false) if name.contains('~') => self.short.push(name.to_owned()),
            _ => {}
        }
        self.longest = self.longest.max(name.len());
        self.usual |= Codec::Native.decode(name) == Decoded::Hashed
            || Codec::Portable.decode(name) == Decoded::Hashed;
    }

    /// The codec of the names. If no name shows how long names may be, the file system decides: its
    /// longest name has `most` bytes.
    fn spelling(&self, most: Option<u64>) -> Spelling {
        let codec = if self.portable > self.native { Codec::Portable } else { Codec::Native };
        if self.usual {
            return codec.into();
        }
        let shown = u16::try_from(self.longest).ok().filter(|_| !self.short.is_empty());
        let fits =
            |short: &Spelling| self.short.iter().any(|name| short.decode(name) == Decoded::Hashed);
        let shown = shown.and_then(|longest| Spelling::new(codec, Some(longest))).filter(fits);
        let allowed = || {
            let within = Spelling::within(codec, most?)?;
            (self.longest <= within.longest()).then_some(within)
        };
        shown.or_else(allowed).unwrap_or(codec.into())
    }
}

/// Whether a folder holds a security object, or a folder with a body in it.
fn is_collection(folder: &Folder) -> Result<bool, MirrorError> {
    if is_file(folder, SECURITY)? {
        return Ok(true);
    }
    for name in folder.each_name()? {
        let Ok(name) = name? else { continue };
        if let Some(document) = folder.open_folder(&name)?
            && (is_file(&document, DOCUMENT)? || is_file(&document, TOMBSTONE)?)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_file(folder: &Folder, name: &str) -> Result<bool, MirrorError> {
    Ok(folder.kind(name)?.is_some_and(FileType::is_file))
}

impl Holdings {
    /// Inspects documents until everything has been seen, or no document is left.
    pub fn of(collection: &Folder) -> Result<Self, MirrorError> {
        let mut found = Self::default();
        for name in collection.each_name()? {
            let Ok(name) = name? else { continue };
            let Some(document) = collection.open_folder(&name)? else { continue };
            for (name, _) in document.entries()? {
                match &*name {
                    TOMBSTONE => found.kept.deleted = true,
                    HISTORY | CONFLICTS => found.kept.revisions = true,
                    ATTACHMENTS => found.attachments = true,
                    _ => {}
                }
            }
            if found == (Self { kept: Kept::ALL, attachments: true }) {
                break;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tree(paths: &[&str]) -> (tempfile::TempDir, Option<Bare>) {
        let dir = tempfile::tempdir().unwrap();
        for path in paths {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "{}\n").unwrap();
        }
        let found = Bare::recognise(&Folder::open_path(dir.path()).unwrap()).unwrap();
        (dir, found)
    }

    #[test]
    fn a_tree_is_known_by_its_documents_and_others_are_left_alone() {
        let (_dir, found) = tree(&[
            "books/a/document.json",
            "loans/_security.json",
            "gone/a/deleted.json",
            "notes/todo.txt",
            ".git/objects/a/document.json",
            "README.md",
        ]);
        let found = found.unwrap();
        assert_eq!(found.collections, ["books", "gone", "loans"]);
        assert_eq!(found.spelling, Codec::Native.into());
        for other in [&["thesis.tex"][..], &["a/b/c/document.json"], &["document.json"], &[]] {
            assert_eq!(tree(other).1, None, "{other:?}");
        }
    }

    #[test]
    fn names_that_only_one_codec_makes_show_which_it_is() {
        let portable = Codec::Portable.encode("Äpfel").as_str().to_owned();
        let native = Codec::Native.encode("Äpfel").as_str().to_owned();
        assert_ne!(portable, native);
        let path = |name: &str| format!("books/{name}/document.json");
        assert_eq!(tree(&[&path(&portable)]).1.unwrap().spelling, Codec::Portable.into());
        assert_eq!(tree(&[&path(&native)]).1.unwrap().spelling, Codec::Native.into());
        assert_eq!(tree(&["books/plain/document.json"]).1.unwrap().spelling, Codec::Native.into());
    }

    #[test]
    fn names_that_were_shortened_to_less_than_usual_show_how_long_they_may_be() {
        for (codec, most) in [(Codec::Native, 143), (Codec::Portable, 175)] {
            let short = Spelling::within(codec, most).unwrap();
            let longest = short.encode(&"a".repeat(300)).as_str().to_owned();
            let other = short.encode(&"b".repeat(short.longest())).as_str().to_owned();
            let mut paths = vec![format!("books/{longest}/document.json")];
            paths.push(format!("books/{other}/document.json"));
            paths.push(format!("books/{}/document.json", short.encode("Ä")));
            let paths: Vec<_> = paths.iter().map(String::as_str).collect();
            assert_eq!(tree(&paths).1.unwrap().spelling, short);
        }
    }

    #[test]
    fn what_was_kept_shows_in_what_lies_there() {
        let cases = [
            ("books/a/document.json", Holdings::default()),
            ("books/a/attachments/x", Holdings { attachments: true, ..Holdings::default() }),
            (
                "books/a/history.json",
                Holdings { kept: Kept { revisions: true, deleted: false }, attachments: false },
            ),
            (
                "books/a/conflicts/1-x/document.json",
                Holdings { kept: Kept { revisions: true, deleted: false }, attachments: false },
            ),
            (
                "books/a/deleted.json",
                Holdings { kept: Kept { revisions: false, deleted: true }, attachments: false },
            ),
        ];
        for (path, expected) in cases {
            let (dir, _) = tree(&[path]);
            let folder = Folder::open_path(&dir.path().join("books")).unwrap();
            assert_eq!(Holdings::of(&folder).unwrap(), expected, "{path}");
        }
    }
}
