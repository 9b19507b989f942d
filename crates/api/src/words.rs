//! A pool's words for people: harmless on a terminal and in a log, and no longer than somebody reads. Clients pass every
//! word of a pool through here before it becomes part of an error.

use dovetail_units::harmless_within;
use tonic::Status;

use crate::v1::Model;

/// A refusal explains itself in less.
const MESSAGE_CHARS_MAX: usize = 500;
/// Codes are short words; models' names have 64 bytes.
const WORD_CHARS_MAX: usize = 64;
/// So many names are read; a pool that has more is asked for all of them.
const NAMES_MAX: usize = 16;

/// The message of a refusal.
pub fn message_of(status: &Status) -> String {
    message(status.message())
}

/// A sentence, such as the transport's.
pub fn message(text: &str) -> String {
    harmless_within(text, MESSAGE_CHARS_MAX).to_string()
}

/// A single word, such as a code.
pub fn word(text: &str) -> String {
    harmless_within(text, WORD_CHARS_MAX).to_string()
}

/// The names of models, "none" if there are none.
pub fn names(models: &[Model]) -> String {
    let mut names: Vec<String> = models
        .iter()
        .take(NAMES_MAX)
        .map(|model| word(&model.name))
        .collect();
    match models.len() {
        0 => return "none".to_owned(),
        all if all > NAMES_MAX => names.push(format!("and {} more", all - NAMES_MAX)),
        _ => {}
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pools_words_are_short_and_harmless() {
        let message = format!("\x1b[2J{}", "x".repeat(10_000));
        let shown = message_of(&Status::unavailable(message));
        assert!(shown.starts_with("\\u001b[2Jxx"), "{shown}");
        assert!(shown.chars().count() < 510, "{}", shown.len());
        assert_eq!(word("no-worker\n"), "no-worker\\n");
    }

    #[test]
    fn many_names_are_counted_instead() {
        let model = |name: &str| Model {
            name: name.to_owned(),
            ..Default::default()
        };
        assert_eq!(names(&[]), "none");
        assert_eq!(names(&[model("tiny"), model("clerk\n")]), "tiny, clerk\\n");
        let many = vec![model("m"); 20];
        assert_eq!(names(&many), format!("{}and 4 more", "m, ".repeat(16)));
    }
}
