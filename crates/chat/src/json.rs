//! `tojson` as the library has it that templates are written for (transformers): Python's `json.dumps` with
//! `ensure_ascii=False`. Jinja's own escapes HTML, which models never saw.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// The text of one value; a list of lists of one list can be written out without end.
const BYTES_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 64;
const INDENT_MAX: usize = 16;

/// The filter. Keys keep their order unless `sort_keys` is set; `separators` is not known.
pub(super) fn tojson(
    value: &Value,
    indent: Option<usize>,
    options: Kwargs,
) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<usize>>("indent")?,
    };
    let ascii = options.get::<Option<bool>>("ensure_ascii")?;
    let sorted = options.get::<Option<bool>>("sort_keys")?;
    options.assert_all_used()?;
    if indent.is_some_and(|indent| indent > INDENT_MAX) {
        return Err(refused("the indent is too wide"));
    }
    let mut writer = Writer {
        text: String::new(),
        indent,
        ascii: ascii.unwrap_or(false),
        sorted: sorted.unwrap_or(false),
    };
    writer.value(value, 0)?;
    Ok(Value::from(writer.text))
}

struct Writer {
    text: String,
    indent: Option<usize>,
    ascii: bool,
    sorted: bool,
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX || self.text.len() > BYTES_MAX {
            return Err(Error::from(ErrorKind::OutOfFuel));
        }
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => {
                let words = ["false", "true"];
                self.text.push_str(words[usize::from(value.is_true())]);
            }
            ValueKind::Number => self.number(value)?,
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list('[', ']', &items, depth, |writer, item| {
                    writer.value(item, depth + 1)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                self.list('{', '}', &keys, depth, |writer, key| {
                    writer.string(&key.to_string());
                    writer.text.push_str(": ");
                    writer.value(&value.get_item(key)?, depth + 1)
                })?;
            }
            _ => return Err(refused("a value is none that JSON has")),
        }
        Ok(())
    }

    fn list(
        &mut self,
        open: char,
        close: char,
        items: &[Value],
        depth: usize,
        mut item: impl FnMut(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.text.push(open);
        for (place, value) in items.iter().enumerate() {
            match (self.indent, place) {
                (Some(_), 0) => (),
                (Some(_), _) => self.text.push(','),
                (None, 0) => (),
                (None, _) => self.text.push_str(", "),
            }
            self.line(depth + 1);
            item(self, value)?;
        }
        if !items.is_empty() {
            self.line(depth);
        }
        self.text.push(close);
        Ok(())
    }

    /// A new line, where each value stands on one.
    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.indent {
            self.text.push('\n');
            self.text.push_str(&" ".repeat(indent * depth));
        }
    }

    fn number(&mut self, value: &Value) -> Result<(), Error> {
        if value.is_integer() {
            self.text.push_str(&value.to_string());
            return Ok(());
        }
        let number = f64::try_from(value.clone())?;
        if !number.is_finite() {
            return Err(refused("a number is not finite"));
        }
        // As Python: 1.0 keeps its point.
        let written = write!(self.text, "{number:?}");
        written.map_err(|_| refused("a number cannot be written"))
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for letter in text.chars() {
            match letter {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                letter if letter < ' ' || (self.ascii && !letter.is_ascii()) => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        self.text.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                letter => self.text.push(letter),
            }
        }
        self.text.push('"');
    }
}

fn refused(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}
