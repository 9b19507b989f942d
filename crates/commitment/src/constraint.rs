//! A constraint: the form that an output must have. Part of what is asked for, so the prompt's commitment covers it,
//! with the name of the guide that turns it into the tokens that may follow. What a form means is the guide's matter.

/// What makes masks of constraints in this release: the library with its version, then a number that counts changes of
/// its options and limits. The masks are a part of what an audit repeats, so any change of a mask is a new name.
pub const GUIDE: &str = "llguidance-1.9.1+2";

/// The longest schema, and the longest list of texts with their lengths.
pub const CONSTRAINT_BYTES_MAX: usize = 16 * 1024;
/// The longest regular expression.
pub const REGEX_BYTES_MAX: usize = 1024;
/// The most texts of a choice.
pub const CHOICES_MAX: usize = 256;
/// The longest name of a guide.
pub const GUIDE_BYTES_MAX: usize = 32;

/// The form that an output must have.
#[derive(Clone, PartialEq, Eq)]
pub enum Form {
    /// JSON that a JSON Schema describes, as its text.
    JsonSchema(String),
    /// All of the output matches this regular expression.
    Regex(String),
    /// The output is one of these texts.
    Choice(Vec<String>),
}

/// A form within its bounds, and the guide that it is for.
#[derive(Clone, PartialEq, Eq)]
pub struct Constraint {
    guide: String,
    form: Form,
}

/// A constraint out of its bounds, or bytes that do not encode one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// Empty, or longer than [`CONSTRAINT_BYTES_MAX`].
    #[error("a schema has 1 to {CONSTRAINT_BYTES_MAX} bytes")]
    Schema,
    /// Empty, or longer than [`REGEX_BYTES_MAX`].
    #[error("a regular expression has 1 to {REGEX_BYTES_MAX} bytes")]
    Regex,
    /// None, too many, an empty one, or too long together.
    #[error(
        "a choice has 1 to {CHOICES_MAX} texts, none of them empty, and {CONSTRAINT_BYTES_MAX} bytes with 2 for each text"
    )]
    Choice,
    /// No name, or one with other letters.
    #[error("a guide's name has 1 to {GUIDE_BYTES_MAX} small letters, digits and signs of \"+-.\"")]
    Guide,
    /// Not what [`Constraint::encode`] writes.
    #[error("the encoding of the constraint is damaged")]
    Encoding,
}

impl Constraint {
    /// A constraint for the guide of this release.
    ///
    /// # Errors
    /// A form out of its bounds.
    pub fn new(form: Form) -> Result<Self, ConstraintError> {
        Self::for_guide(GUIDE, form)
    }

    /// A constraint for a guide of this name, which may be another release's.
    ///
    /// # Errors
    /// A name or a form out of its bounds.
    pub fn for_guide(guide: &str, form: Form) -> Result<Self, ConstraintError> {
        let signs =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
        if !(1..=GUIDE_BYTES_MAX).contains(&guide.len()) || !guide.bytes().all(signs) {
            return Err(ConstraintError::Guide);
        }
        form.check()?;
        Ok(Self {
            guide: guide.to_owned(),
            form,
        })
    }

    /// The name of the guide that it is for.
    pub fn guide(&self) -> &str {
        &self.guide
    }

    /// The form.
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// The number of the form, then the guide's name behind its length (1 byte), then the form's text behind its
    /// length (2 bytes, little-endian). The text of a choice is its texts, each behind its length (2 bytes): `U8`,
    /// `STR0_255`, `B0_64K` of Sv2.
    pub fn encode(&self) -> Vec<u8> {
        let text = self.form.text();
        // The bounds of `for_guide` fit the lengths.
        let mut bytes = vec![self.form.number(), self.guide.len() as u8];
        bytes.extend_from_slice(self.guide.as_bytes());
        bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&text);
        bytes
    }

    /// Writes a constraint or the absence of one, which is a form of number 0 and nothing else.
    pub fn encode_optional(constraint: Option<&Self>) -> Vec<u8> {
        constraint.map_or_else(|| vec![NO_FORM], Self::encode)
    }

    /// Reads what [`Constraint::encode_optional`] wrote from the front of `bytes`; returns the rest too.
    ///
    /// # Errors
    /// [`ConstraintError`] for anything else.
    pub fn decode_optional_from(bytes: &[u8]) -> Result<(Option<Self>, &[u8]), ConstraintError> {
        let (&number, rest) = bytes.split_first().ok_or(ConstraintError::Encoding)?;
        if number == NO_FORM {
            return Ok((None, rest));
        }
        let (&length, rest) = rest.split_first().ok_or(ConstraintError::Encoding)?;
        let (guide, rest) = rest
            .split_at_checked(usize::from(length))
            .ok_or(ConstraintError::Encoding)?;
        let (text, rest) = take_text(rest)?;
        let guide = std::str::from_utf8(guide).map_err(|_| ConstraintError::Guide)?;
        let constraint = Self::for_guide(guide, Form::decode(number, text)?)?;
        Ok((Some(constraint), rest))
    }
}

/// The number that stands for no constraint.
const NO_FORM: u8 = 0;

impl Form {
    fn number(&self) -> u8 {
        match self {
            Self::JsonSchema(_) => 1,
            Self::Regex(_) => 2,
            Self::Choice(_) => 3,
        }
    }

    fn text(&self) -> Vec<u8> {
        match self {
            Self::JsonSchema(text) | Self::Regex(text) => text.clone().into_bytes(),
            Self::Choice(texts) => {
                let mut bytes = Vec::new();
                for text in texts {
                    bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
                    bytes.extend_from_slice(text.as_bytes());
                }
                bytes
            }
        }
    }

    fn check(&self) -> Result<(), ConstraintError> {
        match self {
            Self::JsonSchema(text) if !(1..=CONSTRAINT_BYTES_MAX).contains(&text.len()) => {
                Err(ConstraintError::Schema)
            }
            Self::Regex(text) if !(1..=REGEX_BYTES_MAX).contains(&text.len()) => {
                Err(ConstraintError::Regex)
            }
            Self::Choice(texts) => {
                let bytes: usize = texts.iter().map(|text| text.len().saturating_add(2)).sum();
                let fits = (1..=CHOICES_MAX).contains(&texts.len())
                    && texts.iter().all(|text| !text.is_empty())
                    && bytes <= CONSTRAINT_BYTES_MAX;
                fits.then_some(()).ok_or(ConstraintError::Choice)
            }
            Self::JsonSchema(_) | Self::Regex(_) => Ok(()),
        }
    }

    fn decode(number: u8, text: &[u8]) -> Result<Self, ConstraintError> {
        match number {
            1 => Ok(Self::JsonSchema(utf8(text)?)),
            2 => Ok(Self::Regex(utf8(text)?)),
            3 => {
                let (mut texts, mut rest) = (Vec::new(), text);
                while !rest.is_empty() {
                    if texts.len() == CHOICES_MAX {
                        return Err(ConstraintError::Choice);
                    }
                    let (text, tail) = take_text(rest)?;
                    texts.push(utf8(text)?);
                    rest = tail;
                }
                Ok(Self::Choice(texts))
            }
            _ => Err(ConstraintError::Encoding),
        }
    }
}

fn take_text(bytes: &[u8]) -> Result<(&[u8], &[u8]), ConstraintError> {
    let (length, rest) = bytes
        .split_first_chunk::<2>()
        .ok_or(ConstraintError::Encoding)?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
        .ok_or(ConstraintError::Encoding)
}

fn utf8(bytes: &[u8]) -> Result<String, ConstraintError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ConstraintError::Encoding)
}

impl std::fmt::Debug for Constraint {
    // It is as private as the prompt: the content stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} for {}", self.form, self.guide)
    }
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::JsonSchema(text) => write!(f, "a schema of {} bytes", text.len()),
            Self::Regex(text) => write!(f, "a regular expression of {} bytes", text.len()),
            Self::Choice(texts) => write!(f, "a choice of {} texts", texts.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms_out_of_bounds_are_refused() {
        let refused = |form: Form| Constraint::new(form).err();
        let schema = |bytes: usize| Form::JsonSchema(" ".repeat(bytes));
        assert_eq!(refused(schema(CONSTRAINT_BYTES_MAX)), None);
        assert_eq!(
            refused(schema(CONSTRAINT_BYTES_MAX + 1)),
            Some(ConstraintError::Schema)
        );
        assert_eq!(refused(schema(0)), Some(ConstraintError::Schema));
        let regex = |bytes: usize| Form::Regex("a".repeat(bytes));
        assert_eq!(refused(regex(REGEX_BYTES_MAX)), None);
        assert_eq!(
            refused(regex(REGEX_BYTES_MAX + 1)),
            Some(ConstraintError::Regex)
        );
        let choice =
            |texts: &[usize]| Form::Choice(texts.iter().map(|bytes| "x".repeat(*bytes)).collect());
        assert_eq!(refused(choice(&[1; CHOICES_MAX])), None);
        assert_eq!(refused(choice(&[CONSTRAINT_BYTES_MAX - 2])), None);
        for texts in [
            &[][..],
            &[0],
            &[1; CHOICES_MAX + 1],
            &[CONSTRAINT_BYTES_MAX - 1],
            &[CONSTRAINT_BYTES_MAX / 2; 2],
        ] {
            assert_eq!(refused(choice(texts)), Some(ConstraintError::Choice));
        }
        for name in ["", "A", "a b", &"a".repeat(GUIDE_BYTES_MAX + 1)] {
            let named = Constraint::for_guide(name, schema(2));
            assert_eq!(named, Err(ConstraintError::Guide));
        }
    }

    #[test]
    fn what_is_shown_of_one_is_its_kind_and_length() {
        let shown = |form: Form| format!("{:?}", Constraint::new(form).unwrap());
        let private = "private".to_owned();
        let all = [
            shown(Form::JsonSchema(private.clone())),
            shown(Form::Regex(private.clone())),
            shown(Form::Choice(vec![private])),
        ];
        assert!(all.iter().all(|shown| !shown.contains("private")));
        assert_eq!(all[2], format!("a choice of 1 texts for {GUIDE}"));
    }

    fn forms() -> impl Strategy<Value = Form> {
        prop_oneof![
            ".{1,40}".prop_map(Form::JsonSchema),
            ".{1,40}".prop_map(Form::Regex),
            proptest::collection::vec(".{1,10}", 1..=5).prop_map(Form::Choice),
        ]
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            form in proptest::option::of(forms()),
            guide in "[a-z0-9+.-]{1,32}",
            rest in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            let constraint = form.map(|form| Constraint::for_guide(&guide, form).unwrap());
            let mut bytes = Constraint::encode_optional(constraint.as_ref());
            bytes.extend_from_slice(&rest);
            prop_assert_eq!(
                Constraint::decode_optional_from(&bytes).unwrap(),
                (constraint, rest.as_slice())
            );
        }

        #[test]
        fn any_other_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok((constraint, rest)) = Constraint::decode_optional_from(&bytes) {
                let again = Constraint::encode_optional(constraint.as_ref());
                prop_assert_eq!([again, rest.to_vec()].concat(), bytes);
            }
        }
    }
}
