//! Events as lines of JSON.

use std::io::{self, Stdout, Write};
use std::sync::{Mutex, PoisonError};

use crate::{Event, Sink};

/// Writes each event as one line of JSON and flushes it, for a supervisor that reads a program's standard output.
/// What cannot be written is dropped: a closed standard output is no reason to stop mining.
#[derive(Debug)]
pub struct JsonLines<W> {
    out: Mutex<W>,
}

impl JsonLines<Stdout> {
    /// To standard output.
    pub fn stdout() -> Self {
        Self::new(io::stdout())
    }
}

impl<W> JsonLines<W> {
    /// To `out`.
    pub const fn new(out: W) -> Self {
        Self {
            out: Mutex::new(out),
        }
    }
}

impl<W: Write + Send + std::fmt::Debug> Sink for JsonLines<W> {
    fn take(&self, event: &Event<'_>) {
        let line = event.to_json() + "\n";
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = out.write_all(line.as_bytes());
        let _ = out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: Event<'_> = Event::TaskFinished {
        task: "0a",
        output_tokens: 1,
    };

    /// Whoever read it has gone.
    #[derive(Debug)]
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn each_event_is_one_line() {
        let sink = JsonLines::new(Vec::new());
        sink.take(&EVENT);
        sink.take(&EVENT);
        let written = sink.out.into_inner().unwrap();
        let line = "{\"event\":\"task_finished\",\"task\":\"0a\",\"output_tokens\":1}\n";
        assert_eq!(String::from_utf8(written).unwrap(), line.repeat(2));
    }

    #[test]
    fn an_output_that_is_closed_stops_nobody() {
        JsonLines::new(Closed).take(&EVENT);
    }
}
