//! The sums below the rows: net, discount, carriage, taxes, total.

use super::bill::Tax;
use super::columns::{Side, padded, table};
use super::paper::Paper;
use super::parties::one_of;
use super::plan::Plan;
use crate::rng::Rng;

/// A label and its amount as they are printed.
type Sum = (String, String);

impl Paper<'_> {
    /// The lines with the sums. Sets whether the tax stands there as one amount.
    pub(super) fn totals(&mut self, rng: &mut Rng) -> Vec<String> {
        let mut sums = self.before_the_total(rng);
        let total = self.total(rng);
        let inclusive = self.included(rng);
        match self.plan.totals {
            0 => {
                sums.push(total);
                sums.extend(inclusive);
                self.aligned_right(&sums)
            }
            1 => {
                sums.push(total);
                sums.extend(inclusive);
                sums.iter()
                    .map(|(label, amount)| format!("{label}{} {amount}", self.pen.colon))
                    .collect()
            }
            2 => {
                sums.push(total);
                sums.extend(inclusive);
                let rows: Vec<Vec<String>> = sums
                    .into_iter()
                    .map(|(label, amount)| vec![label, amount])
                    .collect();
                table(&rows, &[Side::Left, Side::Right], self.pen.gap.max(2))
            }
            3 => {
                sums.extend(inclusive);
                let mut lines = self.aligned_right(&sums);
                let rule = "-".repeat(self.pen.right / 2);
                lines.push(padded(&rule, self.pen.right + 28, Side::Right));
                lines.extend(self.aligned_right(&[total]));
                lines
            }
            4 => {
                sums.push(total);
                sums.extend(inclusive);
                sums.iter()
                    .map(|(label, amount)| format!("{label} ........ {amount}"))
                    .collect()
            }
            5 => self.across_sums(&sums, total, inclusive),
            _ => {
                sums.push(total);
                sums.extend(inclusive);
                sums.iter()
                    .map(|(label, amount)| format!("| {label} | {amount} |"))
                    .collect()
            }
        }
    }

    fn before_the_total(&mut self, rng: &mut Rng) -> Vec<Sum> {
        let (bill, labels) = (self.bill, self.bill.labels);
        let mut sums = Vec::new();
        let parts = bill.discount.is_some() || bill.shipping.is_some();
        if parts || (bill.tax == Tax::Added && rng.chance(85)) || rng.chance(10) {
            let label = self.pen.pick(rng, labels.net);
            sums.push((label, self.sum(rng, bill.sum)));
        }
        if let Some((off, tenths)) = bill.discount {
            let label = self.pen.pick(rng, labels.discount);
            let label = match tenths {
                Some(tenths) if rng.chance(80) => format!("{label} {}", self.rate(tenths)),
                _ => label,
            };
            let off = if rng.chance(70) { -off } else { off };
            sums.push((label, self.sum(rng, off)));
        }
        if let Some(shipping) = bill.shipping {
            let label = self.pen.pick(rng, labels.shipping);
            sums.push((label, self.sum(rng, shipping)));
        }
        if bill.tax == Tax::Added && !bill.shares.is_empty() {
            sums.extend(self.taxes(rng));
        } else if bill.shares.is_empty() && bill.tax == Tax::Added && rng.chance(50) {
            // A rate of nothing is printed by some.
            let label = self.pen.pick(rng, labels.tax);
            let none = self.sum(rng, 0);
            sums.push((format!("{label} {}", self.rate(0)), none));
            self.tax_printed = true;
        }
        sums
    }

    fn taxes(&mut self, rng: &mut Rng) -> Vec<Sum> {
        let (bill, labels) = (self.bill, self.bill.labels);
        self.tax_printed = true;
        let mut sums = Vec::new();
        if bill.net != bill.sum && rng.chance(50) {
            let label = self.pen.pick(rng, labels.net);
            sums.push((label, self.sum(rng, bill.net)));
        }
        let word = one_of(rng, labels.tax);
        for share in &bill.shares {
            let label = self.pen.label(rng, word);
            let rate = self.rate(share.rate);
            let label = match rng.below(5) {
                0 => format!("{label} ({rate})"),
                1 => format!("{rate} {label}"),
                2 if bill.shares.len() == 1 => label,
                3 => format!("{label} {rate} / {}", self.figures.bare(share.base)),
                _ => format!("{label} {rate}"),
            };
            sums.push((label, self.sum(rng, share.cents)));
        }
        if bill.shares.len() > 1 {
            // The answer has one tax, so a paper of two rates prints their sum.
            let label = self.pen.label(rng, labels.tax[labels.tax.len() - 1]);
            sums.push((label, self.sum(rng, bill.tax_cents())));
        }
        sums
    }

    /// The tax that prices hold, if the paper says it.
    fn included(&mut self, rng: &mut Rng) -> Option<Sum> {
        let bill = self.bill;
        if bill.tax != Tax::Included || bill.shares.is_empty() || rng.chance(25) {
            return None;
        }
        self.tax_printed = true;
        let label = self.pen.pick(rng, bill.labels.tax_included);
        let label = format!("{label} {}", self.rate(bill.shares[0].rate));
        Some((label, self.sum(rng, bill.tax_cents())))
    }

    fn total(&mut self, rng: &mut Rng) -> Sum {
        let (bill, labels) = (self.bill, self.bill.labels);
        let words = match (bill.credit, bill.shares.is_empty()) {
            (true, _) => labels.credit_total,
            (false, true) => labels.total_net,
            (false, false) => labels.total,
        };
        let label = self.pen.label(rng, Plan::of(self.plan.total_label, words));
        // A currency that is shared by its symbol has to be named somewhere.
        let code = bill.currency.code;
        if rng.chance(20) || (self.must_name_currency() && !self.hinted) {
            self.hinted = true;
            return match rng.below(3) {
                0 => (format!("{label} ({code})"), self.figures.bare(bill.total)),
                1 => (format!("{label} {code}"), self.figures.bare(bill.total)),
                _ => (label, format!("{} {code}", self.figures.bare(bill.total))),
            };
        }
        (label, self.figures.marked(bill.total))
    }

    /// An amount above the total, with the currency or without.
    fn sum(&self, rng: &mut Rng, cents: i64) -> String {
        if rng.chance(50) {
            self.figures.marked(cents)
        } else {
            self.figures.bare(cents)
        }
    }

    fn aligned_right(&self, sums: &[Sum]) -> Vec<String> {
        let rows: Vec<Vec<String>> = sums
            .iter()
            .map(|(label, amount)| vec![label.clone(), amount.clone()])
            .collect();
        table(&rows, &[Side::Left, Side::Right], self.pen.gap.max(3))
            .iter()
            .map(|line| format!("{}{line}", " ".repeat(self.pen.right / 2)))
            .collect()
    }

    /// The sums' labels in one line, the amounts in the next.
    fn across_sums(&self, sums: &[Sum], total: Sum, inclusive: Option<Sum>) -> Vec<String> {
        let all: Vec<Sum> = sums
            .iter()
            .cloned()
            .chain(inclusive)
            .chain([total])
            .collect();
        let (labels, amounts): (Vec<String>, Vec<String>) = all.into_iter().unzip();
        let sides = vec![Side::Right; labels.len()];
        table(&[labels, amounts], &sides, self.pen.gap.max(3))
    }

    /// A rate in tenths of a percent as this paper writes it.
    pub(super) fn rate(&self, tenths: u32) -> String {
        let mark = if self.percent_apart { " %" } else { "%" };
        if tenths.is_multiple_of(10) {
            format!("{}{mark}", tenths / 10)
        } else {
            let text = self.figures.quantity(i64::from(tenths) * 100, 1);
            format!("{text}{mark}")
        }
    }
}
