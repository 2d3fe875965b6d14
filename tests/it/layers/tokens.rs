//! Rust as a tree of tokens, without comments and without the content of literals: enough to find
//! names in it.

/// One token, or the tokens between two brackets.
#[derive(Debug, PartialEq, Eq)]
pub enum Tree {
    Word(String),
    Sign(char),
    /// A string, a character or a number, or a lifetime.
    Literal,
    /// The bracket that opens it, and what it holds.
    Group(char, Vec<Tree>),
}

impl Tree {
    pub fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }

    pub fn is(&self, sign: char) -> bool {
        *self == Self::Sign(sign)
    }
}

/// Reads source that the compiler accepts.
pub fn read(text: &str) -> Vec<Tree> {
    let mut open = vec![(' ', Vec::new())];
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let mut length = first.len_utf8();
        let tree = match first {
            _ if first.is_whitespace() => None,
            '/' if rest.starts_with("//") => {
                length = rest.find('\n').unwrap_or(rest.len());
                None
            }
            '/' if rest.starts_with("/*") => {
                length = rest.find("*/").unwrap() + 2;
                None
            }
            '"' => {
                length = quoted(rest, '"');
                Some(Tree::Literal)
            }
            '\'' => {
                let mut next = rest[1..].chars();
                let (second, third) = (next.next(), next.next());
                // A lifetime has no quotation mark at its end.
                let is_character = second == Some('\\') || third == Some('\'');
                length = if is_character { quoted(rest, '\'') } else { 1 + word(&rest[1..]) };
                Some(Tree::Literal)
            }
            '(' | '[' | '{' => {
                open.push((first, Vec::new()));
                None
            }
            ')' | ']' | '}' => {
                let (bracket, trees) = open.pop().unwrap();
                Some(Tree::Group(bracket, trees))
            }
            _ if first.is_ascii_digit() => {
                length = word(rest);
                Some(Tree::Literal)
            }
            _ if first.is_alphabetic() || first == '_' => {
                length = word(rest);
                let prefix = &rest[..length];
                let hashes = rest[length..].len() - rest[length..].trim_start_matches('#').len();
                let is_string = rest[length + hashes..].starts_with('"');
                match prefix {
                    "r" | "br" | "cr" if is_string => {
                        let start = length + hashes + 1;
                        let end = format!("\"{}", "#".repeat(hashes));
                        length = start + rest[start..].find(&end).unwrap() + end.len();
                        Some(Tree::Literal)
                    }
                    // The literal follows.
                    "b" | "c" if rest[length..].starts_with(['"', '\'']) => None,
                    word => Some(Tree::Word(word.to_owned())),
                }
            }
            sign => Some(Tree::Sign(sign)),
        };
        open.last_mut().unwrap().1.extend(tree);
        rest = &rest[length..];
    }
    assert_eq!(open.len(), 1, "brackets do not match");
    open.pop().unwrap().1
}

/// The length of a literal with its quotation marks.
fn quoted(text: &str, mark: char) -> usize {
    let mut is_escaped = true;
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == mark => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the word at the beginning.
fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

#[test]
fn comments_and_literals_hide_brackets_and_names() {
    let text = r##"fn a<'b>() { // }
        /* { */ let c = ['}', '\'', b'{', "\"{", b"}", r#"""}"#, 1u8, 'é']; d::e! }"##;
    let trees = read(text);
    let Some(Tree::Group('{', body)) = trees.last() else { panic!("{trees:?}") };
    let words: Vec<&str> = body.iter().filter_map(Tree::word).collect();
    assert_eq!(words, ["let", "c", "d", "e"], "{trees:?}");
}
