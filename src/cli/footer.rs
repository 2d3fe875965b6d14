//! Lines at the bottom of a terminal that are drawn again and again, below everything that is logged.
//!
//! The cursor rests below the lines, so that what the terminal itself echoes, such as ^C, tears
//! none of them.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use console::measure_text_width;

/// The lines, for those who draw them and those who write above them.
#[derive(Clone)]
pub struct Footer(Arc<Mutex<Drawn>>);

struct Drawn {
    out: Box<dyn Write + Send>,
    lines: Vec<String>,
    /// The width of the terminal when the lines were drawn.
    width: usize,
}

/// The footer of the process's terminal, for what ends the process whatever hangs.
static LAST: OnceLock<Footer> = OnceLock::new();

/// Clears the footer of the process's terminal, unless it hangs itself.
pub fn clear_before_end() {
    if let Some(mut drawn) = LAST.get().and_then(|footer| footer.0.try_lock().ok()) {
        let start = drawn.start(drawn.width);
        if !std::mem::take(&mut drawn.lines).is_empty() {
            drawn.write(start + CLEAR_BELOW);
        }
    }
}

impl Footer {
    /// This one, noted as the footer of the process's terminal.
    pub fn noted(self) -> Self {
        // A process draws on one terminal.
        let _first = LAST.set(self.clone());
        self
    }

    /// A footer of a terminal, without lines.
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        Self(Arc::new(Mutex::new(Drawn { out, lines: Vec::new(), width: 0 })))
    }

    /// Draws these lines, each narrower than the terminal, in the place of the last ones.
    pub fn draw(&self, lines: Vec<String>, width: usize) {
        let mut drawn = self.drawn();
        // Without lines the cursor may rest behind a question.
        if drawn.lines.is_empty() && lines.is_empty() {
            return;
        }
        if drawn.lines != lines || drawn.width != width {
            let start = drawn.start(width);
            drawn.lines = lines;
            drawn.width = width;
            let text = start + &drawn.text();
            drawn.write(text);
        }
    }

    /// Clears the lines.
    pub fn clear(&self) {
        let width = self.drawn().width;
        self.draw(Vec::new(), width);
    }

    /// Writes above the lines.
    pub fn above<R>(&self, write: impl FnOnce() -> R) -> R {
        let mut drawn = self.drawn();
        if drawn.lines.is_empty() {
            return write();
        }
        let start = drawn.start(drawn.width);
        drawn.write(start + CLEAR_BELOW);
        let written = write();
        let text = drawn.text();
        drawn.write(text);
        written
    }

    fn drawn(&self) -> MutexGuard<'_, Drawn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const CLEAR_BELOW: &str = "\x1b[J";

impl Drawn {
    /// Moves the cursor to where the lines begin. A terminal that has become narrower than they are has
    /// wrapped them.
    fn start(&self, width: usize) -> String {
        let rows = |line: &String| measure_text_width(line).div_ceil(width.max(1)).max(1);
        match self.lines.iter().map(rows).sum::<usize>() {
            0 => "\r".to_owned(),
            rows => format!("\r\x1b[{rows}A"),
        }
    }

    /// The lines, and nothing of what was there before.
    fn text(&self) -> String {
        let lines = self.lines.iter().map(|line| format!("{line}\x1b[K\n"));
        lines.collect::<String>() + CLEAR_BELOW
    }

    /// Writes all at once, so that nothing flickers.
    fn write(&mut self, text: String) {
        let written: io::Result<()> =
            self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        // A terminal that is gone shows nothing.
        drop(written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal that knows what a footer asks of it.
    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Cells>>);

    #[derive(Default)]
    struct Cells {
        rows: Vec<Vec<char>>,
        at: (usize, usize),
    }

    impl Screen {
        fn rows(&self) -> Vec<String> {
            let rows = self.0.lock().unwrap().rows.clone();
            rows.into_iter().filter(|row| !row.is_empty()).map(String::from_iter).collect()
        }
    }

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut cells = self.0.lock().unwrap();
            let Cells { rows, at: (row, column) } = &mut *cells;
            let mut text = std::str::from_utf8(bytes).unwrap().chars();
            while let Some(c) = text.next() {
                if rows.len() <= *row {
                    rows.resize(*row + 1, Vec::new());
                }
                match c {
                    '\n' => (*row, *column) = (*row + 1, 0),
                    '\r' => *column = 0,
                    '\x1b' => {
                        let code: String = text
                            .by_ref()
                            .skip(1)
                            .take_while(|c| *c != 'A' && *c != 'J' && *c != 'K')
                            .collect();
                        match code.parse::<usize>() {
                            Ok(up) => *row -= up,
                            // To the end of the row and, as the lines end with it, of the screen.
                            Err(_) => {
                                rows[*row].truncate(*column);
                                let below = if *column == 0 { *row } else { rows.len() };
                                rows.truncate(below);
                            }
                        }
                    }
                    c => {
                        rows[*row].truncate(*column);
                        rows[*row].push(c);
                        *column += 1;
                    }
                }
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_logged_stands_above_the_lines_and_nothing_of_old_lines_stays() {
        let screen = Screen::default();
        let footer = Footer::new(Box::new(screen.clone()));
        footer.draw(vec!["one".to_owned(), "two".to_owned()], 80);
        let mut log = screen.clone();
        footer.above(|| log.write_all(b"logged\n").unwrap());
        assert_eq!(screen.rows(), ["logged", "one", "two"]);
        footer.clear();
        assert_eq!(screen.rows(), ["logged"]);
    }

    #[test]
    fn without_lines_nothing_is_written() {
        let screen = Screen::default();
        let footer = Footer::new(Box::new(screen.clone()));
        screen.clone().write_all(b"Password: ").unwrap();
        footer.draw(Vec::new(), 80);
        footer.clear();
        footer.above(|| ());
        assert_eq!(screen.rows(), ["Password: "]);
    }

    #[test]
    fn lines_that_a_narrower_terminal_has_wrapped_are_all_replaced() {
        let screen = Screen::default();
        let footer = Footer::new(Box::new(screen.clone()));
        footer.draw(vec!["x".repeat(70)], 80);
        let drawn = footer.drawn();
        assert_eq!(drawn.start(80), "\r\x1b[1A");
        assert_eq!(drawn.start(60), "\r\x1b[2A");
    }
}
