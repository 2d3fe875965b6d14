//! The `.plainfold` folder: created in an empty directory, recognised in a mirror, refused anywhere
//! else.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bare::Bare;
use crate::tree::beneath::Folder;
use crate::tree::layout::{FORMAT, OURS, RXDB_META};
use crate::tree::names::{Codec, Spelling};
use crate::tree::{Epoch, MirrorError, described};

/// The newest on-disk format that this Plainfold writes and reads.
pub const FORMAT_NUMBER: u64 = 2;

/// The format of mirrors whose names have their usual length.
const USUAL_NUMBER: u64 = 1;

/// The root of a file system may hold this folder and still count as empty.
const FILE_SYSTEMS_OWN: &str = "lost+found";

/// What `format.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// The number of the on-disk format.
    pub format: u64,
    /// Identifies this mirror for its whole life: 32 hex digits.
    pub lineage: String,
    /// The codec of names.
    pub names: Codec,
    /// The longest name in bytes, if the file system does not accept names of the usual length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_name: Option<u16>,
    /// The version of Plainfold that created the mirror.
    pub created_by: String,
    /// When, in RFC 3339.
    pub created_at: String,
}

impl Format {
    fn new(names: Spelling) -> Self {
        Self {
            // An older Plainfold that does not know this member would make other names.
            format: if names.shortened().is_some() { FORMAT_NUMBER } else { USUAL_NUMBER },
            lineage: lineage(),
            names: names.codec(),
            longest_name: names.shortened(),
            created_by: format!("plainfold {}", env!("CARGO_PKG_VERSION")),
            created_at: jiff::Timestamp::now().to_string(),
        }
    }
}

impl Format {
    /// The spelling of names: codec and length.
    pub fn spelling(&self) -> Spelling {
        Spelling::new(self.names, self.longest_name).unwrap_or(self.names.into())
    }
}

/// Refuses a directory that holds other files; says whether it is a mirror already.
pub fn recognise(root: &Folder) -> Result<bool, MirrorError> {
    if let Some(ours) = root.open(OURS)?
        && ours.kind(FORMAT)?.is_some()
    {
        return Ok(true);
    }
    // An interrupted start may have left `.plainfold` without its format.
    let foreign = |name: &String| name != OURS && name != FILE_SYSTEMS_OWN;
    match root.names()?.into_iter().find(foreign) {
        Some(_) if is_copy(root) => Err(MirrorError::NotAdopted { path: root.path().to_owned() }),
        Some(example) => Err(MirrorError::NotOurs { path: root.path().to_owned(), example }),
        None => Ok(false),
    }
}

/// Whether a directory without a format file holds a mirror's collections. A directory that cannot
/// be read counts as somebody else's.
fn is_copy(root: &Folder) -> bool {
    matches!(root.kind(RXDB_META), Ok(None)) && matches!(Bare::recognise(root), Ok(Some(_)))
}

/// Refuses a directory that lies inside another mirror, after links are resolved: the outer mirror
/// would mistake it for a document, or remove it with its staging. The directory need not exist yet.
pub fn refuse_inside_another(path: &Path) -> Result<(), MirrorError> {
    let place = resolve(path).map_err(|error| MirrorError::io("find", path, error))?;
    // An outer directory that cannot be read is no reason to refuse.
    let is_mirror = |above: &&Path| above.join(OURS).join(FORMAT).symlink_metadata().is_ok();
    let outer = place.ancestors().skip(1).find(is_mirror);
    match outer {
        Some(outer) => {
            Err(MirrorError::InsideAnother { path: path.to_owned(), outer: outer.to_owned() })
        }
        None => Ok(()),
    }
}

/// The path with all links resolved. The part that does not exist yet is appended as it is.
fn resolve(path: &Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let mut place = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => drop(place.pop()),
            part => place.push(part),
        }
        if let Ok(resolved) = place.canonicalize() {
            place = resolved;
        }
    }
    Ok(place)
}

/// Reads `format.json` in `ours`, or writes the first one. `names` is the codec that the user asked
/// for, if any; `shown` is the codec of the names that exist already.
pub fn read_or_create(
    mirror: &Path,
    epoch: &Epoch,
    ours: &Folder,
    names: Option<Codec>,
    shown: Option<Spelling>,
) -> Result<Format, MirrorError> {
    let Some(format) = read(mirror, ours)? else {
        let codec = names.unwrap_or(Codec::Native);
        let spelling = match (shown, ours.find_longest_name()) {
            (Some(shown), _) => shown,
            (None, None) => codec.into(),
            (None, Some(most)) => Spelling::within(codec, most)
                .ok_or_else(|| MirrorError::ShortNames { path: mirror.to_owned(), most })?,
        };
        let format = Format::new(spelling);
        epoch.write(ours, FORMAT, &format)?;
        return Ok(format);
    };
    if names.is_some_and(|names| names != format.names) {
        return Err(MirrorError::OtherNames {
            path: mirror.to_owned(),
            found: format.names.word(),
        });
    }
    if let Some(most) = ours.longest_name().filter(|most| !format.spelling().fits_within(*most)) {
        tracing::warn!(
            "{} is on a file system that allows names of at most {most} bytes, but the mirror was \
             created with longer names: documents whose names are too long cannot be mirrored here",
            mirror.display(),
        );
    }
    Ok(format)
}

/// Reads `format.json` in `ours`; `None` if it does not exist.
pub fn read(mirror: &Path, ours: &Folder) -> Result<Option<Format>, MirrorError> {
    let path = ours.path().join(FORMAT);
    match (ours.read_file(FORMAT)?, ours.kind(FORMAT)?) {
        (Some(text), _) => parse(mirror, &path, &text).map(Some),
        (None, None) => Ok(None),
        // If it counted as missing, a new one would give the mirror another codec.
        (None, Some(kind)) => {
            let reason = format!("it is not a file but {}", described(kind));
            Err(MirrorError::BadFormat { path, reason })
        }
    }
}

/// Reads the text of the `format.json` at `path`, which is that of `mirror`.
pub(crate) fn parse(mirror: &Path, path: &Path, text: &[u8]) -> Result<Format, MirrorError> {
    #[derive(Deserialize)]
    struct Number {
        format: u64,
    }
    let bad = |error: serde_json::Error| MirrorError::BadFormat {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    // The number first: a newer format may differ in everything else.
    let number: Number = serde_json::from_slice(text).map_err(bad)?;
    if number.format > FORMAT_NUMBER {
        return Err(MirrorError::NewerFormat {
            path: mirror.to_owned(),
            found: number.format,
            known: FORMAT_NUMBER,
        });
    }
    let format: Format = serde_json::from_slice(text).map_err(bad)?;
    let is_short = format.longest_name.is_some();
    match Spelling::new(format.names, format.longest_name) {
        Some(_) if is_short == (format.format > USUAL_NUMBER) => Ok(format),
        _ => Err(MirrorError::BadFormat {
            path: path.to_owned(),
            reason: format!(
                "its `format` is {}, which contradicts its `longest_name`",
                format.format
            ),
        }),
    }
}

/// A new lineage. Its bits come from the hasher keys that the standard library draws from the
/// system's randomness.
pub(crate) fn lineage() -> String {
    use std::hash::{BuildHasher, RandomState};
    let draw = || RandomState::new().hash_one(jiff::Timestamp::now().as_nanosecond());
    format!("{:016x}{:016x}", draw(), draw())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::beneath::tests::folder;

    /// An epoch of another folder.
    fn epoch() -> (tempfile::TempDir, Epoch) {
        let (dir, ours) = folder();
        let epoch = Epoch::begin(&ours, &crate::tree::Holder::default(), false, || Ok(())).unwrap();
        (dir, epoch)
    }

    #[test]
    fn a_format_is_created_once_and_then_kept() {
        let ((dir, ours), (_kept, epoch)) = (folder(), epoch());
        let first = read_or_create(dir.path(), &epoch, &ours, None, None).unwrap();
        assert_eq!(read_or_create(dir.path(), &epoch, &ours, None, None).unwrap(), first);
        assert_eq!((first.format, first.longest_name), (USUAL_NUMBER, None));
        assert_eq!(first.lineage.len(), 32);
    }

    #[test]
    fn a_newer_format_is_refused_whatever_else_it_says() {
        let ((dir, ours), (_kept, epoch)) = (folder(), epoch());
        std::fs::write(dir.path().join(FORMAT), r#"{"format":3,"shape":"other"}"#).unwrap();
        let error = read_or_create(dir.path(), &epoch, &ours, None, None).unwrap_err();
        assert!(matches!(error, MirrorError::NewerFormat { found: 3, .. }), "{error}");
    }

    #[test]
    fn a_directory_inside_another_mirror_is_refused_however_it_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let outer = dir.path().join("outer");
        std::fs::create_dir_all(outer.join(OURS).join("staging")).unwrap();
        std::fs::create_dir_all(outer.join("books")).unwrap();
        std::fs::write(outer.join(OURS).join(FORMAT), "{}").unwrap();
        std::os::unix::fs::symlink(outer.join("books"), dir.path().join("link")).unwrap();
        let inside = [
            "outer/books",
            "outer/books/new/deep",
            "outer/.plainfold",
            "link",
            "link/new",
            "outer/.plainfold/staging/0",
            "outer/new",
            "other/../outer/books",
        ];
        for path in inside {
            let error = refuse_inside_another(&dir.path().join(path)).unwrap_err();
            assert!(matches!(error, MirrorError::InsideAnother { .. }), "{path}: {error}");
            assert!(error.to_string().contains("outer"), "{path}: {error}");
        }
        for path in ["outer", "other", "other/new", "."] {
            refuse_inside_another(&dir.path().join(path)).unwrap();
        }
        assert!(!dir.path().join("other").exists(), "a look creates nothing");
    }

    #[test]
    fn short_names_are_recorded_with_a_number_that_older_versions_refuse() {
        let ((dir, ours), (_kept, epoch)) = (folder(), epoch());
        let short = Spelling::within(Codec::Portable, 143);
        let first =
            read_or_create(dir.path(), &epoch, &ours, Some(Codec::Portable), short).unwrap();
        assert_eq!((first.format, first.longest_name), (2, Some(111)));
        let again = read_or_create(dir.path(), &epoch, &ours, None, None).unwrap();
        assert_eq!(Some(again.spelling()), short);
        let text = std::fs::read_to_string(dir.path().join(FORMAT)).unwrap();
        let text = text.replace("111", "11");
        std::fs::write(dir.path().join(FORMAT), text).unwrap();
        let error = read_or_create(dir.path(), &epoch, &ours, None, None).unwrap_err().to_string();
        assert!(error.contains("longest_name"), "{error}");
    }

    #[test]
    fn a_damaged_format_is_named() {
        let ((dir, ours), (_kept, epoch)) = (folder(), epoch());
        std::fs::write(dir.path().join(FORMAT), "{").unwrap();
        let error = read_or_create(dir.path(), &epoch, &ours, None, None).unwrap_err().to_string();
        assert!(error.contains("format.json is damaged"), "{error}");
    }

    #[test]
    fn a_link_in_the_place_of_the_format_is_damage_and_stays() {
        let ((dir, ours), (_kept, epoch)) = (folder(), epoch());
        std::os::unix::fs::symlink("elsewhere", dir.path().join(FORMAT)).unwrap();
        let error = read_or_create(dir.path(), &epoch, &ours, None, None).unwrap_err().to_string();
        assert!(error.contains("damaged: it is not a file but a symbolic link"), "{error}");
        assert_eq!(ours.names().unwrap(), [FORMAT]);
    }

    #[test]
    fn a_directory_with_other_peoples_files_is_refused_and_an_empty_one_taken() {
        let (dir, root) = folder();
        assert!(!recognise(&root).unwrap());
        std::fs::create_dir(dir.path().join(FILE_SYSTEMS_OWN)).unwrap();
        std::fs::create_dir(dir.path().join(OURS)).unwrap();
        assert!(!recognise(&root).unwrap());
        std::fs::write(dir.path().join("thesis.doc"), "").unwrap();
        let error = recognise(&root).unwrap_err().to_string();
        assert!(error.contains("thesis.doc"), "{error}");
    }
}
