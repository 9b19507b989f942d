//! How a paper writes what is printed on all papers of its kind: in which case, with how many spaces, and with
//! which errors of a scanner. Values are never damaged, since the answer repeats them as they are
//! printed.

use crate::rng::Rng;

/// Damaged places in one document at most.
const ERRORS_MAX: u32 = 6;
/// What scanners take for what.
const TAKEN_FOR: [(&str, &str); 9] = [
    ("I", "l"),
    ("l", "1"),
    ("O", "0"),
    ("rn", "m"),
    ("m", "rn"),
    ("e", "c"),
    ("i", "í"),
    ("B", "8"),
    (" ", ""),
];

#[derive(Clone, Copy)]
enum Case {
    Usual,
    Upper,
    Lower,
}

/// What writes labels and remarks.
pub(super) struct Pen {
    case: Case,
    /// What stands between a label and its value.
    pub(super) colon: &'static str,
    /// Spaces between things in a line.
    pub(super) gap: usize,
    /// The column at which what stands at the right begins.
    pub(super) right: usize,
    errors_left: u32,
}

impl Pen {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Self {
            case: match rng.below(12) {
                0 | 1 => Case::Upper,
                2 => Case::Lower,
                _ => Case::Usual,
            },
            colon: [":", ":", ":", " :", ""][rng.index(5)],
            gap: [1, 2, 2, 3, 4, 6, 10][rng.index(7)],
            right: rng.between(34, 70) as usize,
            errors_left: if rng.chance(12) {
                rng.between(1, ERRORS_MAX)
            } else {
                0
            },
        }
    }

    /// A label as this paper writes it.
    pub(super) fn label(&mut self, rng: &mut Rng, label: &str) -> String {
        let label = match self.case {
            Case::Usual => label.to_owned(),
            Case::Upper => label.to_uppercase(),
            Case::Lower => label.to_lowercase(),
        };
        self.scanned(rng, label)
    }

    /// One of the labels as this paper writes it.
    pub(super) fn pick(&mut self, rng: &mut Rng, labels: &[&'static str]) -> String {
        let label = labels[rng.index(labels.len())];
        self.label(rng, label)
    }

    /// The text as a scanner may have read it.
    pub(super) fn scanned(&mut self, rng: &mut Rng, text: String) -> String {
        if self.errors_left == 0 || !rng.chance(40) {
            return text;
        }
        let (from, to) = TAKEN_FOR[rng.index(TAKEN_FOR.len())];
        if !text.contains(from) {
            return text;
        }
        self.errors_left -= 1;
        text.replacen(from, to, 1)
    }

    /// The spaces between things in a line.
    pub(super) fn spaces(&self) -> String {
        " ".repeat(self.gap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scanner_errs_a_bounded_number_of_times() {
        let mut rng = Rng::new(2);
        for _ in 0..300 {
            let mut pen = Pen::draw(&mut rng);
            pen.case = Case::Usual;
            let damaged = (0..200)
                .filter(|_| pen.label(&mut rng, "Invoice number Ol rn") != "Invoice number Ol rn")
                .count();
            assert!(damaged <= ERRORS_MAX as usize);
        }
    }
}
