//! Standard output, where whoever reads it may go at any time, as `head -1` does.

use std::fmt::Display;
use std::io::{self, Write};

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

/// Writes a line to standard output. In place of `println!`, which panics where nobody reads.
///
/// # Errors
/// [`OutputError`]; the command should end.
pub fn print_line(line: impl Display) -> Result<(), OutputError> {
    Ok(writeln!(io::stdout().lock(), "{line}")?)
}
