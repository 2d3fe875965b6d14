//! The commands that a page in Markdown prints: its `sh` blocks, and the commands in each of them.

/// A block of a page.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// The heading that it stands under.
    pub heading: String,
    /// Its commands, each with the lines that continue it. Comments are left out.
    pub commands: Vec<String>,
}

impl Block {
    /// Whether one of its commands holds this text.
    pub fn prints(&self, text: &str) -> bool {
        self.commands.iter().any(|command| command.contains(text))
    }
}

/// The blocks of a page that are fenced as `sh`, in a list item too.
pub fn blocks(page: &str) -> Vec<Block> {
    let (mut heading, mut blocks) = (String::new(), Vec::new());
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        let closed = |line: &&str| line.trim() != "```";
        match line.trim_start() {
            "```sh" => {
                let inner = lines.by_ref().take_while(closed).map(|line| {
                    let cut = line.len() - line.trim_start().len();
                    &line[cut.min(indent)..]
                });
                blocks.push(Block { heading: heading.clone(), commands: commands(inner) });
            }
            fence if fence.starts_with("```") => lines.by_ref().take_while(closed).for_each(drop),
            title if title.starts_with('#') => {
                title.trim_start_matches('#').trim().clone_into(&mut heading);
            }
            _ => {}
        }
    }
    blocks
}

/// A command continues after a `|`, `\`, `&&`, `do` or `{` at the end of its line, up to the end of its
/// loop, and through a text that `<<` announces.
fn commands<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut open = false;
    let mut until: Option<String> = None;
    for line in lines {
        if !open && (line.trim().is_empty() || line.starts_with('#')) {
            continue;
        }
        match commands.last_mut() {
            Some(last) if open => {
                last.push('\n');
                last.push_str(line);
            }
            _ => commands.push(line.to_owned()),
        }
        if let Some(end) = &until {
            open = line != end;
            if !open {
                until = None;
            }
            continue;
        }
        until = announced(line);
        let command = commands.last().map_or("", String::as_str);
        open = until.is_some()
            || ["|", "\\", "&&", "do", "{"].iter().any(|end| line.trim_end().ends_with(end))
            || count(command, "do") > count(command, "done");
    }
    commands
}

/// The line that ends the text which a command's line announces.
fn announced(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("<<")?;
    let word = rest.split_whitespace().next()?;
    Some(word.trim_matches(['\'', '"', '-']).to_owned())
}

/// How often a word of the shell stands in a command, with white space or `;` around it.
fn count(command: &str, word: &str) -> usize {
    command.split(|c: char| c.is_whitespace() || c == ';').filter(|part| *part == word).count()
}

#[test]
fn a_command_has_all_of_its_lines_and_no_comment() {
    let page = "\
# Page
```sh
# What it does
one | \\
  two
cat > file <<'END'   # a text
# not a comment

END
three
```
```text
# none
not a command
```
## Next
- item:

  ```sh
  find . | while read -r file; do
    four
  done
  five &&
    six
  ```
";
    let block = |heading: &str, commands: &[&str]| Block {
        heading: heading.to_owned(),
        commands: commands.iter().map(|command| (*command).to_owned()).collect(),
    };
    let expected = [
        block(
            "Page",
            &["one | \\\n  two", "cat > file <<'END'   # a text\n# not a comment\n\nEND", "three"],
        ),
        block("Next", &["find . | while read -r file; do\n  four\ndone", "five &&\n  six"]),
    ];
    assert_eq!(blocks(page), expected);
}
