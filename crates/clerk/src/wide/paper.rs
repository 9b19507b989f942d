//! A paper as a whole: the truth of a bill, and its blocks in an order.

use super::bill::Bill;
use super::day::DayForm;
use super::figures::Figures;
use super::labels::Labels;
use super::meta;
use super::pen::Pen;
use super::plan::Plan;
use crate::World;
use crate::answer::Invoice;
use crate::rng::Rng;

/// Of a hundred papers, those that lack their number or their day.
const OMITTED_PERCENT: u32 = 6;

/// What a paper does not say, though most do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Omitted {
    Number,
    Day,
}

/// A paper in the making, with the choices that hold for all of it.
pub(super) struct Paper<'a> {
    pub(super) bill: &'a Bill,
    pub(super) world: World,
    pub(super) plan: Plan,
    pub(super) pen: Pen,
    pub(super) figures: Figures,
    pub(super) days: DayForm,
    pub(super) percent_apart: bool,
    pub(super) omitted: Option<Omitted>,
    /// Whether something printed says which of the currencies of one symbol is meant.
    pub(super) hinted: bool,
    /// Whether the tax is printed as one amount.
    pub(super) tax_printed: bool,
}

/// An invoice of at most so many rows: what it says, and its text.
pub(super) fn draw(rng: &mut Rng, world: World, rows_max: u32) -> (Invoice, String) {
    let bill = Bill::draw(rng, world, rows_max);
    let plan = Plan::draw(rng, world);
    let may_omit = meta::MAY_OMIT.contains(&plan.meta) && rng.chance(OMITTED_PERCENT);
    let omitted = may_omit.then(|| [Omitted::Number, Omitted::Day][rng.index(2)]);
    let mut paper = Paper {
        bill: &bill,
        world,
        plan,
        pen: Pen::draw(rng),
        figures: Figures::draw(rng, bill.country, bill.currency),
        days: bill.country.days[rng.index(bill.country.days.len())],
        percent_apart: rng.chance(50),
        omitted,
        hinted: false,
        tax_printed: false,
    };
    let text = paper.text(rng);
    let mut answer = bill.answer(paper.tax_printed);
    match omitted {
        Some(Omitted::Number) => answer.number = None,
        Some(Omitted::Day) => answer.date = None,
        None => {}
    }
    (answer, text)
}

/// What stands before a day in letters of that language.
pub(super) fn article(labels: &Labels) -> &'static str {
    match labels.of[0] {
        "du" => "le",
        "van" => "d.d.",
        "de" => "a",
        "del" => "il",
        _ => "on",
    }
}

impl Paper<'_> {
    fn text(&mut self, rng: &mut Rng) -> String {
        let head = self.head(rng);
        let mut lines = self.meta(rng, head);
        self.space(rng, &mut lines);
        if rng.chance(15) {
            lines.push(self.remark(rng));
        }
        let rows = self.rows(rng);
        let totals = self.totals(rng);
        lines.extend(rows);
        self.space(rng, &mut lines);
        lines.extend(totals);
        self.space(rng, &mut lines);
        lines.extend(self.foot(rng));
        let margin = if rng.chance(12) {
            rng.between(1, 8) as usize
        } else {
            0
        };
        let blank_lines = rng.below(3);
        finished(&lines, margin, blank_lines)
    }

    /// An empty line, in most places.
    fn space(&mut self, rng: &mut Rng, lines: &mut Vec<String>) {
        if rng.chance(80) {
            lines.push(String::new());
        }
    }

    /// The day of issue as this paper writes it.
    pub(super) fn day_written(&self) -> String {
        self.bill.day.written(self.days, self.bill.labels)
    }

    /// Whether the currency's symbol alone would not say which it is.
    pub(super) fn must_name_currency(&self) -> bool {
        self.bill.currency.shared || self.bill.currency != self.bill.country.currency
    }

    /// Whether a day with its month in front, or a shared symbol, needs the country for its meaning.
    pub(super) fn must_name_country(&self) -> bool {
        self.bill.currency.shared && self.bill.currency == self.bill.country.currency
    }
}

/// The lines as one text: without blanks at their ends, with at most so many empty ones in turn.
fn finished(lines: &[String], margin: usize, blank_lines: u32) -> String {
    let mut text = String::new();
    let mut empty = 0;
    for line in lines.iter().flat_map(|line| line.split('\n')) {
        let line = line.trim_end();
        if line.is_empty() {
            empty += 1;
            if empty <= blank_lines && !text.is_empty() {
                text.push('\n');
            }
            continue;
        }
        empty = 0;
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&" ".repeat(margin));
        text.push_str(line);
    }
    text
}
