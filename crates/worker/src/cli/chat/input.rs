//! What people type: messages of a line, messages of several lines between lines of `"""`, and commands.

use std::io::{self, BufRead, Read};

/// Longer than any context that is likely to hold it.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Begins and ends a message of several lines.
pub(crate) const FENCE: &str = "\"\"\"";

/// One thing that was typed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// To be answered.
    Message(Vec<u8>),
    /// `/reset`.
    Reset,
    /// `/help`.
    Help,
    /// `/quit`, or the end of the input.
    Quit,
    /// Something else that begins like a command.
    Unknown(String),
}

/// Why there is no input.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("cannot read what is typed: {0}")]
    Read(#[from] io::Error),
    #[error("a message has at most {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
}

/// The next input; empty lines are passed over. `ask` is called before each line, with whether it goes on with
/// a message.
pub(crate) fn next(
    source: &mut impl BufRead,
    mut ask: impl FnMut(bool),
) -> Result<Input, InputError> {
    loop {
        ask(false);
        let Some(line) = line(source, MESSAGE_BYTES_MAX)? else {
            return Ok(Input::Quit);
        };
        if line.trim_ascii() == FENCE.as_bytes() {
            return message(source, ask);
        }
        if !line.trim_ascii().is_empty() {
            return Ok(one_line(line));
        }
    }
}

/// All of the input as one message; none where there is nothing.
pub(crate) fn whole(source: &mut impl Read) -> Result<Option<Vec<u8>>, InputError> {
    let mut bytes = Vec::new();
    source.take(MESSAGE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MESSAGE_BYTES_MAX {
        return Err(InputError::TooLong);
    }
    Ok((!bytes.is_empty()).then_some(bytes))
}

fn one_line(line: Vec<u8>) -> Input {
    let Some(rest) = line.strip_prefix(b"/") else {
        return Input::Message(line);
    };
    // A second slash stands for one that begins a message.
    if rest.starts_with(b"/") {
        return Input::Message(rest.to_vec());
    }
    match rest.trim_ascii() {
        b"reset" => Input::Reset,
        b"help" | b"?" => Input::Help,
        b"quit" | b"exit" | b"bye" => Input::Quit,
        _ => Input::Unknown(String::from_utf8_lossy(&line).into_owned()),
    }
}

/// The lines up to the next fence, or to the end of the input.
fn message(source: &mut impl BufRead, mut ask: impl FnMut(bool)) -> Result<Input, InputError> {
    let mut text = Vec::new();
    loop {
        ask(true);
        let room = MESSAGE_BYTES_MAX.saturating_sub(text.len() as u64);
        match line(source, room)? {
            Some(line) if line.trim_ascii() != FENCE.as_bytes() => {
                text.extend(line);
                text.push(b'\n');
            }
            _ => return Ok(Input::Message(text)),
        }
    }
}

/// A line without its end; none at the end of the input.
fn line(source: &mut impl BufRead, bytes_max: u64) -> Result<Option<Vec<u8>>, InputError> {
    let mut line = Vec::new();
    let read = source.take(bytes_max + 1).read_until(b'\n', &mut line)?;
    if read as u64 > bytes_max {
        return Err(InputError::TooLong);
    }
    if line.ends_with(b"\n") {
        line.pop();
    }
    if line.ends_with(b"\r") {
        line.pop();
    }
    Ok((read > 0).then_some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(mut typed: &[u8]) -> Vec<Input> {
        let mut inputs = Vec::new();
        while inputs.last() != Some(&Input::Quit) {
            inputs.push(next(&mut typed, |_| {}).unwrap());
        }
        inputs
    }

    fn message(text: &str) -> Input {
        Input::Message(text.into())
    }

    #[test]
    fn lines_are_messages_and_some_are_commands() {
        let typed = b"hello\r\n\n  \n /help \n/reset\n/help\n//etc\n/what\nbye";
        let expected = [
            message("hello"),
            message(" /help "),
            Input::Reset,
            Input::Help,
            message("/etc"),
            Input::Unknown("/what".to_owned()),
            message("bye"),
            Input::Quit,
        ];
        assert_eq!(inputs(typed), expected);
    }

    #[test]
    fn a_message_may_have_several_lines_and_commands_in_it_are_text() {
        let typed = "\"\"\"\nInvoice 7\n\n/quit\n\"\"\"\nnext\n\"\"\"\nopen";
        let expected = [
            message("Invoice 7\n\n/quit\n"),
            message("next"),
            message("open\n"),
            Input::Quit,
        ];
        assert_eq!(inputs(typed.as_bytes()), expected);
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_kept() {
        let long = vec![b'x'; 1 << 21];
        let ask = |_| {};
        let refused = |typed: &[u8]| next(&mut &*typed, ask).unwrap_err();
        assert!(matches!(refused(&long), InputError::TooLong));
        let lines = b"abcdefg\n".repeat(1 << 18);
        let fenced = [b"\"\"\"\n".as_slice(), &lines].concat();
        assert!(matches!(refused(&fenced), InputError::TooLong));
        assert!(matches!(whole(&mut &long[..]), Err(InputError::TooLong)));
        assert_eq!(whole(&mut &b""[..]).unwrap(), None);
    }
}
