//! The paper's number and day, among numbers and days that are not the paper's.

use super::columns::{Side, beside, padded, table, width};
use super::country::filled;
use super::paper::{Omitted, Paper};
use super::parties::one_of;
use super::plan::Plan;
use super::{names, paper};
use crate::rng::Rng;

/// The plans whose number and day are each a pair of their own, so that one can be left out.
pub(super) const MAY_OMIT: [u32; 6] = [0, 1, 4, 7, 8, 9];

/// A label and what stands for it.
type Pair = (String, String);

impl Paper<'_> {
    /// The lines with number and day; beside `left`, if the plan puts them there.
    pub(super) fn meta(&mut self, rng: &mut Rng, left: Vec<String>) -> Vec<String> {
        let lines = match self.plan.meta {
            0 => self.each(rng, |pen, label, value| {
                format!("{label}{} {value}", pen.colon)
            }),
            1 => self.aligned(rng),
            2 => self.across(rng),
            3 => self.in_one_line(rng),
            4 => {
                let right = self.aligned(rng);
                return beside(&left, &right, self.pen.right);
            }
            5 => self.with_title(rng),
            6 => self.with_place(rng),
            7 => self.each(rng, |_, label, value| format!("{label}\n{value}")),
            8 => self.each(rng, |pen, label, value| {
                let dots = ".".repeat(24_usize.saturating_sub(width(label) + pen.gap).max(3));
                format!("{label} {dots} {value}")
            }),
            _ => {
                let pairs = self.pairs(rng);
                let mark = rng.pick(&[" | ", "   ", " / ", "; "]);
                let said: Vec<String> = pairs
                    .iter()
                    .map(|(label, value)| format!("{label}{} {value}", self.pen.colon))
                    .collect();
                said.chunks(3).map(|chunk| chunk.join(mark)).collect()
            }
        };
        let mut whole = left;
        whole.push(String::new());
        whole.extend(
            lines
                .iter()
                .flat_map(|line| line.split('\n').map(str::to_owned)),
        );
        whole
    }

    /// Number, day and what stands around them, in an order.
    fn pairs(&mut self, rng: &mut Rng) -> Vec<Pair> {
        let (number, day) = (self.number_pair(rng), self.date_pair(rng));
        let mut pairs = match self.omitted {
            Some(Omitted::Number) => vec![day],
            Some(Omitted::Day) => vec![number],
            None => vec![number, day],
        };
        if rng.chance(35) {
            pairs.reverse();
        }
        for _ in 0..[0, 0, 1, 1, 2, 3][rng.index(6)] {
            let at = rng.index(pairs.len() + 1);
            let other = self.other_pair(rng);
            // The same label twice with two values would leave open which one counts.
            if pairs.iter().all(|(label, _)| *label != other.0) {
                pairs.insert(at, other);
            }
        }
        pairs
    }

    fn number_pair(&mut self, rng: &mut Rng) -> Pair {
        let labels = self.bill.labels;
        let words = if self.bill.credit {
            labels.credit_number
        } else {
            labels.number
        };
        let label = Plan::of(self.plan.number_label, words);
        (self.pen.label(rng, label), self.bill.number.clone())
    }

    fn date_pair(&mut self, rng: &mut Rng) -> Pair {
        let label = Plan::of(self.plan.date_label, self.bill.labels.date);
        (self.pen.label(rng, label), self.day_written())
    }

    fn other_pair(&mut self, rng: &mut Rng) -> Pair {
        let labels = self.bill.labels;
        match rng.below(6) {
            0 | 1 => {
                let day = self.bill.day.later(rng.between(1, 60));
                let label = self.pen.pick(rng, labels.other_dates);
                (label, day.written(self.days, labels))
            }
            2 => {
                let label = self.pen.pick(rng, labels.contact);
                (label, names::person(rng, self.world))
            }
            3 => {
                self.hinted = true;
                let label = self.pen.pick(rng, labels.currency);
                (label, self.bill.currency.code.to_owned())
            }
            _ => {
                let pattern = rng.pick(&[
                    "######", "@@-####", "####/##", "K-#####", "#####", "########", "PO-####",
                    "@###",
                ]);
                let label = self.pen.pick(rng, labels.other_numbers);
                (label, filled(rng, pattern))
            }
        }
    }

    fn each(
        &mut self,
        rng: &mut Rng,
        write: impl Fn(&super::pen::Pen, &str, &str) -> String,
    ) -> Vec<String> {
        let pairs = self.pairs(rng);
        pairs
            .iter()
            .map(|(label, value)| write(&self.pen, label, value))
            .collect()
    }

    fn aligned(&mut self, rng: &mut Rng) -> Vec<String> {
        let colon = self.pen.colon;
        let rows: Vec<Vec<String>> = self
            .pairs(rng)
            .into_iter()
            .map(|(label, value)| vec![format!("{label}{colon}"), value])
            .collect();
        let side = if rng.chance(70) {
            Side::Left
        } else {
            Side::Right
        };
        table(&rows, &[Side::Left, side], self.pen.gap.max(1))
    }

    /// Labels in one line, values in the next.
    fn across(&mut self, rng: &mut Rng) -> Vec<String> {
        let (labels, values): (Vec<String>, Vec<String>) =
            self.pairs(rng).into_iter().take(4).unzip();
        // Number and day are two of the first three or four; what was cut off is added again.
        let mut rows = vec![labels, values];
        for (label, value) in [self.number_pair(rng), self.date_pair(rng)] {
            if !rows[1].contains(&value) {
                rows[0].push(label);
                rows[1].push(value);
            }
        }
        let sides = vec![Side::Left; rows[0].len()];
        table(&rows, &sides, self.pen.gap.max(2))
    }

    fn in_one_line(&mut self, rng: &mut Rng) -> Vec<String> {
        let (label, number) = self.number_pair(rng);
        let of = one_of(rng, self.bill.labels.of);
        let mut lines = vec![format!("{label} {number} {of} {}", self.day_written())];
        if rng.chance(30) {
            let (label, value) = self.other_pair(rng);
            lines.push(format!("{label}{} {value}", self.pen.colon));
        }
        lines
    }

    fn with_title(&mut self, rng: &mut Rng) -> Vec<String> {
        let labels = self.bill.labels;
        let words = if self.bill.credit {
            labels.credit
        } else {
            labels.invoice
        };
        let title = self.pen.pick(rng, words);
        let (label, value) = self.date_pair(rng);
        let first = format!(
            "{title} {}{}",
            rng.pick(&["", "Nr. ", "no. ", "# "]),
            self.bill.number
        );
        let day = format!("{label}{} {value}", self.pen.colon);
        if rng.chance(40) {
            vec![format!(
                "{}{day}",
                padded(&first, self.pen.right, Side::Left) + "  "
            )]
        } else {
            vec![first, day]
        }
    }

    /// As in letters: a place and a day without a label.
    fn with_place(&mut self, rng: &mut Rng) -> Vec<String> {
        let city = names::city(rng, self.bill.country);
        let city = city.trim_matches(|c: char| !c.is_alphabetic()).to_owned();
        let place = city
            .split(|c: char| c.is_ascii_digit())
            .find(|part| part.trim().len() > 2)
            .unwrap_or("")
            .trim()
            .to_owned();
        let day = self.day_written();
        let place = match rng.below(3) {
            0 => format!("{place}, {day}"),
            1 if self.bill.labels.of[0] == "vom" => format!("{place}, den {day}"),
            1 => format!("{place}, {} {day}", paper::article(self.bill.labels)),
            _ => day,
        };
        let (label, number) = self.number_pair(rng);
        vec![
            padded(&place, self.pen.right + 20, Side::Right),
            format!("{label}{} {number}", self.pen.colon),
        ]
    }
}
