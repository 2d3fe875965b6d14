//! Where every command writes: reports, products, and the error when they cannot be written.
//!
//! If a reader closes its pipe during a report, nothing is reported. If the output is the result of
//! the command, a closed pipe is an error. Streams take [`Lines`] only, in which everything is
//! escaped that a terminal would obey, because ids, names and error texts are foreign.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::NamedTempFile;

use super::variables::wants_colour;
use crate::document::plain;

/// A standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Output that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot be written to {place}: {source}")]
pub struct OutputError {
    what: &'static str,
    place: String,
    source: io::Error,
}

impl OutputError {
    /// Whether the reader has closed its end of the pipe.
    pub fn is_closed_pipe(&self) -> bool {
        self.source.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Text that is safe to print: lines in which nothing foreign is obeyed by a terminal.
///
/// `writeln!` appends a line. All of it is escaped, so that a line stays one line whatever it quotes.
#[derive(Debug, Default)]
pub struct Lines(String);

impl Lines {
    /// One line of text.
    pub fn of(text: &str) -> Self {
        let mut lines = Self::default();
        lines.push(text);
        lines
    }

    /// A value as JSON, laid out for people.
    pub fn pretty(value: &impl Serialize) -> serde_json::Result<Self> {
        Ok(Self(plain::json(&serde_json::to_string_pretty(value)?).into_owned() + "\n"))
    }

    /// A value as one line of JSON.
    pub fn json(value: &impl Serialize) -> serde_json::Result<Self> {
        Ok(Self::raw_json(&serde_json::to_string(value)?))
    }

    /// Valid JSON as one line.
    pub fn raw_json(text: &str) -> Self {
        Self(plain::json_line(text).into_owned() + "\n")
    }

    /// Text whose line breaks are the program's own, such as the help.
    pub fn laid_out(text: &str) -> Self {
        let mut lines = Self::default();
        text.lines().for_each(|line| lines.push(line));
        lines
    }

    /// Appends a line of fields with tabs between them.
    pub fn push_fields(&mut self, fields: &[&str]) {
        let fields: Vec<_> = fields.iter().map(|field| plain::text(field)).collect();
        self.0.push_str(&fields.join("\t"));
        self.0.push('\n');
    }

    /// Appends a line.
    pub fn push(&mut self, line: &str) {
        self.0.push_str(&plain::text(line));
        self.0.push('\n');
    }

    /// Appends a line: what `writeln!` calls.
    pub fn write_fmt(&mut self, line: fmt::Arguments<'_>) -> fmt::Result {
        let line = line.to_string();
        self.push(line.strip_suffix('\n').unwrap_or(&line));
        Ok(())
    }

    /// What is printed.
    #[cfg(test)]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Stream {
    /// Writes all of a text that people or programs read. A closed pipe counts as read.
    pub fn report(self, what: &'static str, lines: &Lines) -> Result<(), OutputError> {
        match self.write(what, lines) {
            Err(error) if error.is_closed_pipe() => Ok(()),
            written => written,
        }
    }

    /// Whether a terminal shows it.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Stdout => io::stdout().is_terminal(),
            Self::Stderr => io::stderr().is_terminal(),
        }
    }

    /// Whether it is closed or discarded, so that nobody reads it.
    pub fn is_nowhere(self) -> bool {
        // A closed stream is opened as this device when the process starts.
        let null = fs::metadata("/dev/null").map(|null| null.rdev());
        let own = self.open().and_then(|file| file.metadata());
        match (own, null) {
            (Ok(own), Ok(null)) => own.file_type().is_char_device() && own.rdev() == null,
            (Err(_), _) => true,
            (Ok(_), Err(_)) => false,
        }
    }

    /// Writes a question, and leaves the cursor behind it.
    pub fn ask(self, question: &str) -> Result<(), OutputError> {
        let question = plain::text(question);
        let written = self.open().and_then(|mut file| file.write_all(question.as_bytes()));
        written.map_err(|error| self.failed("the question", error))
    }

    /// Writes bytes for programs as they are, and to a terminal so that it obeys nothing in them. A closed
    /// pipe counts as read.
    pub fn report_bytes(self, what: &'static str, bytes: &[u8]) -> Result<(), OutputError> {
        let file = self.open().map_err(|error| self.failed(what, error))?;
        let written = match file.is_terminal() {
            true => {
                let lines = Lines::laid_out(&String::from_utf8_lossy(bytes));
                (&file).write_all(lines.0.as_bytes())
            }
            false => (&file).write_all(bytes),
        };
        match written.map_err(|error| self.failed(what, error)) {
            Err(error) if error.is_closed_pipe() => Ok(()),
            written => written,
        }
    }

    /// Writes at once. A closed pipe is an error.
    pub fn write(self, what: &'static str, lines: &Lines) -> Result<(), OutputError> {
        let written = self.open().and_then(|mut file| file.write_all(lines.0.as_bytes()));
        written.map_err(|error| self.failed(what, error))
    }

    /// The stream as a file: the standard library's own hides errors of a stream that was opened for
    /// reading, and keeps the last line back until the process ends.
    fn open(self) -> io::Result<File> {
        let owned = match self {
            Self::Stdout => io::stdout().as_fd().try_clone_to_owned(),
            Self::Stderr => io::stderr().as_fd().try_clone_to_owned(),
        };
        owned.map(File::from)
    }

    fn failed(self, what: &'static str, source: io::Error) -> OutputError {
        let place = match self {
            Self::Stdout => "standard output",
            Self::Stderr => "standard error",
        };
        OutputError { what, place: place.to_owned(), source }
    }
}

/// A count with its noun, in the singular or the plural.
pub fn many<T: std::fmt::Display + PartialEq + From<u8>>(count: T, what: &str) -> String {
    if count == T::from(1) { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Prints what the parser of arguments says: help and the version, or what is wrong with them.
pub fn print_usage(error: &clap::Error) -> Result<(), OutputError> {
    let stream = if error.use_stderr() { Stream::Stderr } else { Stream::Stdout };
    let text = error.render().to_string();
    // In colour, if the terminal has any, unless the text contains characters that control it.
    if stream.is_terminal()
        && wants_colour()
        && !text.contains(|c| c != '\n' && plain::is_obeyed(c))
    {
        return error.print().map_err(|error| stream.failed("the help", error));
    }
    stream.report("the help", &Lines::laid_out(&text))
}

/// Creates a folder, and those above it, if it does not exist.
pub fn create_folder(what: &'static str, path: &Path) -> Result<(), OutputError> {
    let failed = |source| OutputError { what, place: path.display().to_string(), source };
    fs::create_dir_all(path).map_err(failed)
}

/// Writes a file that only its owner may read. It appears when it is complete and durable, and a file
/// that exists is not replaced.
pub fn write_new(what: &'static str, path: &Path, bytes: &[u8]) -> Result<(), OutputError> {
    let write = || {
        let mut part = tempfile::Builder::new().prefix(".").tempfile_in(folder_of(path))?;
        part.write_all(bytes)?;
        part.as_file().sync_all()?;
        part.persist_noclobber(path).map_err(|error| error.error)?;
        File::open(folder_of(path))?.sync_all()
    };
    write().map_err(|source| OutputError { what, place: path.display().to_string(), source })
}

/// An output file that appears under its name only when it is complete and durable.
#[derive(Debug)]
pub struct Product {
    what: &'static str,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Stdout,
    /// What is not a regular file, such as a pipe, is written as it stands.
    Device(PathBuf, File),
    /// The file that it is to be, and the one beside it that is written.
    File(PathBuf, NamedTempFile),
}

impl Product {
    /// Begins the file `path`; `-` is standard output.
    pub fn create(what: &'static str, path: &Path) -> Result<Self, OutputError> {
        if path == Path::new("-") {
            return Ok(Self { what, place: Place::Stdout });
        }
        let failed = |source| OutputError { what, place: path.display().to_string(), source };
        Ok(Self { what, place: Place::begin(path).map_err(failed)? })
    }

    /// Writes all of it, and makes it appear.
    pub fn finish(
        self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), OutputError> {
        let Self { what, place } = self;
        let name = match &place {
            Place::Stdout => "standard output".to_owned(),
            Place::Device(path, _) | Place::File(path, _) => path.display().to_string(),
        };
        place.finish(write).map_err(|source| OutputError { what, place: name, source })
    }
}

impl Place {
    fn begin(path: &Path) -> io::Result<Self> {
        // The file that a link points to is replaced, and not the link.
        let path = match fs::metadata(path) {
            Ok(found) if !found.is_file() => {
                let file = File::options().write(true).open(path)?;
                return Ok(Self::Device(path.to_owned(), file));
            }
            Ok(_) => fs::canonicalize(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(error),
        };
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        // The dot keeps it out of the collections of a mirror in which it is written.
        let mut prefix = OsString::from(".");
        prefix.push(name);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).permissions(fs::Permissions::from_mode(0o666));
        let part = builder.tempfile_in(folder_of(&path))?;
        Ok(Self::File(path, part))
    }

    fn finish(self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        if matches!(self, Self::Stdout) && io::stdout().is_terminal() {
            let mut text = Vec::new();
            write(&mut text)?;
            let lines = Lines::laid_out(&String::from_utf8_lossy(&text));
            return Stream::Stdout.open()?.write_all(lines.0.as_bytes());
        }
        let whole = |file: &File| {
            let mut out = BufWriter::new(file);
            write(&mut out)?;
            out.flush()
        };
        match self {
            Self::Stdout => whole(&Stream::Stdout.open()?),
            Self::Device(_, file) => whole(&file),
            Self::File(path, part) => {
                whole(part.as_file())?;
                part.as_file().sync_all()?;
                part.persist(&path).map_err(|error| error.error)?;
                File::open(folder_of(&path))?.sync_all()
            }
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"all of it\n";

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_line_stays_a_line_whatever_it_quotes() {
        let mut lines = Lines::default();
        let foreign = "\u{1b}[2J\n\u{9b}x\n";
        writeln!(lines, "id {foreign}").unwrap();
        writeln!(lines).unwrap();
        lines.push(foreign);
        assert_eq!(lines.as_str(), "id \\u{1b}[2J\\n\\u{9b}x\\n\n\n\\u{1b}[2J\\n\\u{9b}x\\n\n");
        assert_eq!(Lines::json(&foreign).unwrap().as_str(), "\"\\u001b[2J\\n\\u009bx\\n\"\n");
        assert_eq!(Lines::raw_json("[1,\n\"\u{9b}\"]").as_str(), "[1, \"\\u009b\"]\n");
        assert_eq!(Lines::laid_out("a\n\n  b\u{7f}\n").as_str(), "a\n\n  b\\u{7f}\n");
    }

    #[test]
    fn a_file_appears_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sums");
        let product = Product::create("the manifest", &path).unwrap();
        product.finish(|out| out.write_all(TEXT)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), TEXT);
        assert_eq!(names(dir.path()), ["sums"]);
    }

    #[test]
    fn what_fails_half_way_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sums");
        fs::write(&path, "old").unwrap();
        let product = Product::create("the manifest", &path).unwrap();
        let error = product.finish(|out| {
            out.write_all(TEXT)?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(error.unwrap_err().to_string().contains(&path.display().to_string()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(dir.path()), ["sums"]);
    }

    #[test]
    fn a_link_stays_and_a_device_is_written_as_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("sums"), dir.path().join("link"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink("sums", &link).unwrap();
        let product = Product::create("the manifest", &link).unwrap();
        product.finish(|out| out.write_all(TEXT)).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), TEXT);

        let device = dir.path().join("device");
        std::os::unix::fs::symlink("/dev/full", &device).unwrap();
        let product = Product::create("the manifest", &device).unwrap();
        let error = product.finish(|out| out.write_all(TEXT)).unwrap_err();
        assert!(error.to_string().contains("No space left"), "{error}");
        assert!(fs::symlink_metadata("/dev/full").unwrap().file_type().is_char_device());
    }
}
