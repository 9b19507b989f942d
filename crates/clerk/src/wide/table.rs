//! The rows of a paper: columns with heads, with and without lines, or each row as people write it by hand.

use super::bill::Row;
use super::columns::{Side, padded, table, width, widths};
use super::country::filled;
use super::paper::Paper;
use super::parties::one_of;
use crate::rng::Rng;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Position,
    Code,
    Text,
    Quantity,
    QuantityUnit,
    Unit,
    Price,
    Rate,
    Amount,
}
use Column::{Amount, Code, Position, Price, Quantity, QuantityUnit, Rate, Text, Unit};

/// The columns of tables, by the plan's number.
const COLUMNS: [&[Column]; 9] = [
    &[Text, Quantity, Price, Amount],
    &[Position, Text, Quantity, Unit, Price, Amount],
    &[Quantity, Text, Price, Amount],
    &[Code, Text, Quantity, Price, Amount],
    &[Position, Quantity, Unit, Text, Price, Amount],
    &[Text, Price, Quantity, Amount],
    &[Text, QuantityUnit, Price, Rate, Amount],
    &[Position, Code, Text, QuantityUnit, Price, Amount],
    &[Text, Quantity, Price],
];
/// The plan's number of the table that has no column but text and amount.
const AMOUNT_ONLY: u32 = 9;

impl Paper<'_> {
    /// The rows as the plan has them.
    pub(super) fn rows(&mut self, rng: &mut Rng) -> Vec<String> {
        match self.plan.table {
            AMOUNT_ONLY if self.bill.rows.iter().all(Row::amount_says_price) => {
                self.columns(rng, &[Text, Amount])
            }
            AMOUNT_ONLY => self.columns(rng, &[Text, QuantityUnit, Price, Amount]),
            10 => self.in_words(rng),
            11 => self.below_each_other(rng),
            plan => self.columns(rng, COLUMNS[plan as usize % COLUMNS.len()]),
        }
    }

    fn columns(&mut self, rng: &mut Rng, columns: &[Column]) -> Vec<String> {
        let head: Vec<String> = columns
            .iter()
            .map(|&column| self.head_of(rng, column))
            .collect();
        let mut rows = vec![head];
        for (index, row) in self.bill.rows.iter().enumerate() {
            rows.push(
                columns
                    .iter()
                    .map(|&column| self.cell(rng, column, index, row))
                    .collect(),
            );
        }
        match self.plan.rules {
            0 => self.boxed(&rows, columns),
            1 => rows.iter().map(|row| row.join(" | ")).collect(),
            2 => {
                let mark = rng.pick(&[";", "\t", " ; "]);
                // A mark in a text would be taken for the next column.
                if rows
                    .iter()
                    .flatten()
                    .any(|cell| cell.contains(mark.trim_matches(' ')))
                {
                    self.lined(rng, &rows, columns)
                } else {
                    rows.iter().map(|row| row.join(mark)).collect()
                }
            }
            _ => self.lined(rng, &rows, columns),
        }
    }

    /// Columns below each other, with lines above and below the head or without; details below some rows.
    fn lined(&mut self, rng: &mut Rng, rows: &[Vec<String>], columns: &[Column]) -> Vec<String> {
        let sides: Vec<Side> = columns.iter().map(|&column| side(column)).collect();
        let lines = table(rows, &sides, self.pen.gap.max(2));
        let long = lines.iter().map(|line| width(line)).max().unwrap_or(0);
        let rule = match self.plan.rules {
            3 => Some("-".repeat(long)),
            4 => Some("_".repeat(long)),
            5 => Some("=".repeat(long)),
            _ => None,
        };
        let details = rng.chance(12);
        let mut whole = Vec::new();
        for (index, line) in lines.into_iter().enumerate() {
            if index == 0 && rng.chance(6) {
                continue; // no head at all
            }
            whole.push(line);
            if index == 0 {
                whole.extend(rule.clone());
            } else if details && rng.chance(35) {
                whole.push(self.detail(rng, columns));
            }
        }
        whole.extend(rule.filter(|_| rng.chance(60)));
        whole
    }

    fn boxed(&self, rows: &[Vec<String>], columns: &[Column]) -> Vec<String> {
        let widths = widths(rows, columns.len());
        let rule: String = widths
            .iter()
            .map(|to| format!("+{}", "-".repeat(to + 2)))
            .collect();
        let rule = format!("{rule}+");
        let mut lines = vec![rule.clone()];
        for (index, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).zip(columns);
            let cells: String = cells
                .map(|((cell, &to), &column)| format!("| {} ", padded(cell, to, side(column))))
                .collect();
            lines.push(format!("{cells}|"));
            if index == 0 {
                lines.push(rule.clone());
            }
        }
        lines.push(rule);
        lines
    }

    fn head_of(&mut self, rng: &mut Rng, column: Column) -> String {
        let labels = self.bill.labels;
        let words = match column {
            Position => labels.position,
            Code => labels.code,
            Text => labels.description,
            Quantity | QuantityUnit => labels.quantity,
            Unit => labels.unit,
            Price => labels.price,
            Rate => labels.rate,
            Amount => labels.amount,
        };
        let word = one_of(rng, words);
        self.pen.label(rng, word)
    }

    fn cell(&self, rng: &mut Rng, column: Column, index: usize, row: &Row) -> String {
        match column {
            Position => (index + 1).to_string(),
            Code => filled(rng, code_form(self.plan.table as usize)),
            Text => row.text.clone(),
            Quantity => self.figures.quantity(row.milli, row.decimals),
            QuantityUnit => format!(
                "{} {}",
                self.figures.quantity(row.milli, row.decimals),
                row.unit
            ),
            Unit => row.unit.to_owned(),
            Price => self.figures.price(row.price_e4),
            Rate => {
                let share = self.bill.shares.get(index % self.bill.shares.len().max(1));
                share.map_or("-".to_owned(), |share| self.rate(share.rate))
            }
            Amount => self.figures.row(row.cents),
        }
    }

    /// A line below a row that says more about it.
    fn detail(&mut self, rng: &mut Rng, columns: &[Column]) -> String {
        let indent = if columns[0] == Text { 2 } else { 6 };
        let detail = match rng.below(3) {
            0 => {
                let label = one_of(rng, self.bill.labels.code);
                format!("{label} {}", filled(rng, "##-####"))
            }
            1 => format!(
                "({})",
                self.bill
                    .day
                    .later(rng.between(1, 20))
                    .written(self.days, self.bill.labels)
            ),
            _ => {
                let label = one_of(rng, self.bill.labels.other_numbers);
                format!("{label} {}", filled(rng, "#####"))
            }
        };
        format!("{}{}", " ".repeat(indent), self.pen.scanned(rng, detail))
    }

    /// Each row in one line of words and figures.
    fn in_words(&mut self, rng: &mut Rng) -> Vec<String> {
        let (form, gap) = (rng.below(6), self.pen.spaces());
        let bill = self.bill;
        bill.rows
            .iter()
            .enumerate()
            .map(|(index, row)| {
                let (text, unit) = (&row.text, row.unit);
                let qty = self.figures.quantity(row.milli, row.decimals);
                let price = self.figures.price(row.price_e4);
                let amount = self.figures.row(row.cents);
                match form {
                    0 => format!("{qty} x {text}{gap}{price}{gap}{amount}"),
                    1 => format!("{}. {text}, {qty} {unit} @ {price}", index + 1),
                    2 => format!("{text} ({qty} {unit} x {price}){gap}{amount}"),
                    3 => format!("- {text}: {qty} {unit} à {price} = {amount}"),
                    4 => format!("{qty} {unit} {text}{gap}{price}{gap}{amount}"),
                    _ => format!("* {text} - {qty} × {price}"),
                }
            })
            .collect()
    }

    /// The text in one line, its figures in the next.
    fn below_each_other(&mut self, rng: &mut Rng) -> Vec<String> {
        let form = rng.below(3);
        let bill = self.bill;
        let mut lines = Vec::new();
        for row in &bill.rows {
            let qty = self.figures.quantity(row.milli, row.decimals);
            let price = self.figures.price(row.price_e4);
            let amount = self.figures.row(row.cents);
            lines.push(row.text.clone());
            lines.push(match form {
                0 => format!("  {qty} x {price} = {amount}"),
                1 => format!(
                    "    {qty} {} × {price}{}{amount}",
                    row.unit,
                    self.pen.spaces()
                ),
                _ => format!("  {qty} @ {price}   {amount}"),
            });
        }
        lines
    }
}

/// How article numbers look in papers of that table.
fn code_form(index: usize) -> &'static str {
    ["@@####", "####", "###-##", "@-###", "#####"][index % 5]
}

fn side(column: Column) -> Side {
    match column {
        Position | Code | Text | Unit => Side::Left,
        Quantity | QuantityUnit | Price | Rate | Amount => Side::Right,
    }
}
