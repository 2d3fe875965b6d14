//! Names in staging: after a crash they show the next run whose each entry is and what to do with
//! it.
//!
//! Pure. A name consists of a number, a mark for entries that were removed from the tree, and the
//! encoded collection.

/// Separates the number from the collection. Only long encoded names contain this character, and the
/// first one counts.
const SEPARATOR: char = '~';

/// The purpose of an entry in staging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It is to be published, or was replaced.
    Passing,
    /// It was removed from the tree. It stays until its event is emitted: nothing else remembers it.
    Removed,
    /// It was removed from the tree, and belongs in the trash.
    Discarded,
}

/// A parsed name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Temporary<'a> {
    /// A number that no other entry has.
    pub number: u64,
    /// Its purpose.
    pub purpose: Purpose,
    /// The encoded name of the collection.
    pub collection: &'a str,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Passing, Self::Removed, Self::Discarded];

    fn mark(self) -> &'static str {
        match self {
            Self::Passing => "",
            Self::Removed => "-removed",
            Self::Discarded => "-",
        }
    }
}

impl<'a> Temporary<'a> {
    /// The name.
    pub fn name(self) -> String {
        let Self { number, purpose, collection } = self;
        format!("{number:x}{}{SEPARATOR}{collection}", purpose.mark())
    }

    /// Parses a path in staging; `None` if Plainfold did not name it.
    pub fn of(path: &'a str) -> Option<Self> {
        let (head, collection) = path.split_once(SEPARATOR)?;
        let head = head.rsplit('/').next()?;
        let (number, mark) = head.split_at(head.find('-').unwrap_or(head.len()));
        let purpose = Purpose::ALL.into_iter().find(|purpose| purpose.mark() == mark)?;
        Some(Self { number: u64::from_str_radix(number, 16).ok()?, purpose, collection })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_what_it_was_made_of_also_in_a_lane() {
        for purpose in Purpose::ALL {
            let one = Temporary { number: 0x1a, purpose, collection: "a-b~c" };
            assert_eq!(Temporary::of(&one.name()), Some(one));
            assert_eq!(Temporary::of(&format!("3/{}", one.name())), Some(one));
        }
    }

    #[test]
    fn what_nobody_here_has_named_tells_nothing() {
        for path in ["", "a", "0/a", "x~books", "1-kept~books", "~books", "1~2/x~books/y"] {
            let told = Temporary::of(path);
            assert_eq!(told.map(|one| one.collection), path.strip_prefix("1~"), "{path}");
        }
    }
}
