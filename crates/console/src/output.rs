//! Standard output, where whoever reads it may go at any time, as `head -1` does, and standard error, where notes go
//! that are not the result. Both are made harmless: some of the words are a pool's or a model's.

use std::error::Error;
use std::fmt::{Display, Write as _};
use std::io::{self, Write};

use dovetail_units::{harmless, harmless_lines};

/// The exit code of a command that ended because nobody reads its output any more: what a shell reports of a program
/// that the signal for a broken pipe ended (128 + SIGPIPE).
pub const CLOSED_EXIT_CODE: u8 = 141;

/// Why something was not written to standard output.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Nobody reads it any more: a reason to end, and nothing to complain of.
    #[error("nobody reads standard output any more")]
    Closed,
    /// Anything else, such as a disk that is full.
    #[error("cannot write to standard output: {0}")]
    Failed(#[source] io::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(error),
        }
    }
}

/// Writes a line to standard output. In place of `println!`, which panics where nobody reads, and prints whatever a
/// stranger wrote. JSON comes out as the same value.
///
/// # Errors
/// [`OutputError`]; the command should end.
pub fn print_line(line: impl Display) -> Result<(), OutputError> {
    Ok(writeln!(io::stdout().lock(), "{}", harmless(line))?)
}

/// As [`print_line`], for a text whose ends of lines are meant.
///
/// # Errors
/// As [`print_line`].
pub fn print_text(text: impl Display) -> Result<(), OutputError> {
    Ok(writeln!(io::stdout().lock(), "{}", harmless_lines(text))?)
}

/// Writes a line to standard error. If nobody reads it, the command is none the worse.
pub fn print_note(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{}", harmless(line));
}

/// As [`print_note`], for several lines.
pub fn print_notes(lines: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{}", harmless_lines(lines));
}

/// Says on standard error why a command failed, with all causes, on one line.
pub fn complain(error: &(dyn Error + 'static)) {
    print_note(format_args!("error: {}", chain(error)));
}

/// `what failed: why: why that`.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string does not fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
