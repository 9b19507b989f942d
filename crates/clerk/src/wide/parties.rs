//! Who sends the paper and to whom: the blocks of names and addresses, with the numbers that stand in them.

use super::columns::{Side, padded, width};
use super::country::{self, Country, filled_one};
use super::names;
use super::paper::Paper;
use crate::rng::Rng;

impl Paper<'_> {
    /// The vendor's name and address.
    pub(super) fn vendor_block(&mut self, rng: &mut Rng) -> Vec<String> {
        let mut lines = vec![self.bill.vendor.clone()];
        if rng.chance(80) {
            lines.push(names::street(
                rng,
                self.world,
                self.bill.country,
                self.bill.labels,
            ));
            lines.push(names::city(rng, self.bill.country));
        }
        if self.must_name_country() || rng.chance(25) {
            lines.push(self.bill.country.name.to_owned());
            self.hinted = true;
        }
        for _ in 0..rng.below(4) {
            lines.push(self.reach(rng));
        }
        lines
    }

    /// The customer's name and address, below a label or not.
    pub(super) fn customer_block(&mut self, rng: &mut Rng, labelled: bool) -> Vec<String> {
        let labels = self.bill.labels;
        let mut lines = Vec::new();
        if labelled || rng.chance(55) {
            let label = self.pen.pick(rng, labels.to);
            lines.push(format!("{label}{}", self.pen.colon));
        }
        lines.push(self.bill.customer.clone());
        if rng.chance(30) {
            lines.push(names::person(rng, self.world));
        }
        if rng.chance(85) {
            // Customers may live in another country than the vendor.
            let country: &Country = if rng.chance(12) {
                country::draw(rng).0
            } else {
                self.bill.country
            };
            lines.push(names::street(rng, self.world, country, labels));
            lines.push(names::city(rng, country));
            if country.name != self.bill.country.name {
                lines.push(country.name.to_owned());
            }
        }
        if rng.chance(12) {
            let id = filled_one(rng, self.bill.country.tax_ids);
            let label = self.pen.pick(rng, labels.tax_id);
            lines.push(format!("{label} {id}"));
        }
        lines
    }

    /// One line with a way to reach or to pay the vendor, or a number of it.
    pub(super) fn reach(&mut self, rng: &mut Rng) -> String {
        let (labels, country) = (self.bill.labels, self.bill.country);
        let (words, value) = match rng.below(7) {
            0 | 1 => (labels.phone, filled_one(rng, country.phones)),
            2 => {
                let domain = names::domain(rng, self.world);
                let box_name = rng.pick(&[
                    "info", "mail", "office", "billing", "rechnung", "compta", "admin",
                ]);
                (labels.mail, format!("{box_name}@{domain}"))
            }
            3 => (labels.bank, filled_one(rng, country.banks)),
            4 => (labels.tax_id, filled_one(rng, country.tax_ids)),
            5 => (labels.register, filled_one(rng, country.registers)),
            _ => return format!("www.{}", names::domain(rng, self.world)),
        };
        let label = one_of(rng, words);
        let label = self.pen.label(rng, label);
        format!("{label}{} {value}", self.pen.colon)
    }

    /// Vendor and customer, as the plan has them.
    pub(super) fn head(&mut self, rng: &mut Rng) -> Vec<String> {
        let title = self.title(rng);
        match self.plan.header {
            0 => self.stacked(rng, &title, true),
            1 => self.stacked(rng, &title, false),
            2 => self.vendor_at_the_right(rng, &title),
            3 => self.sender_line(rng, &title),
            4 => self.labelled(rng, &title),
            5 => self.two_columns(rng, &title),
            6 => {
                // The vendor stands in the foot.
                let mut lines = self.customer_block(rng, false);
                lines.extend([String::new(), title]);
                lines
            }
            7 => {
                let mut lines = vec![format!(
                    "{}{}{title}",
                    self.bill.vendor,
                    " ".repeat(
                        self.pen
                            .right
                            .saturating_sub(width(&self.bill.vendor))
                            .max(2)
                    )
                )];
                lines.extend(self.vendor_block(rng).into_iter().skip(1));
                lines.push(String::new());
                lines.extend(self.customer_block(rng, true));
                lines
            }
            _ => {
                let vendor = self.vendor_block(rng);
                let inline = vendor.join(rng.pick(&[" · ", ", ", " | ", " - ", "  "]));
                let mut lines = vec![inline, String::new()];
                lines.extend(self.customer_block(rng, false));
                lines.extend([String::new(), title]);
                lines
            }
        }
    }

    fn stacked(&mut self, rng: &mut Rng, title: &str, title_last: bool) -> Vec<String> {
        let vendor = self.vendor_block(rng);
        let mut lines = Vec::new();
        if !title_last {
            lines.extend([title.to_owned(), String::new()]);
        }
        lines.extend(vendor);
        lines.push(String::new());
        lines.extend(self.customer_block(rng, false));
        if title_last {
            lines.extend([String::new(), title.to_owned()]);
        }
        lines
    }

    fn vendor_at_the_right(&mut self, rng: &mut Rng, title: &str) -> Vec<String> {
        let to = self.pen.right + 30;
        let mut lines: Vec<String> = self
            .vendor_block(rng)
            .iter()
            .map(|line| padded(line, to, Side::Right))
            .collect();
        lines.push(String::new());
        lines.extend(self.customer_block(rng, false));
        lines.extend([String::new(), title.to_owned()]);
        lines
    }

    fn sender_line(&mut self, rng: &mut Rng, title: &str) -> Vec<String> {
        let (country, labels) = (self.bill.country, self.bill.labels);
        let street = names::street(rng, self.world, country, labels);
        let city = names::city(rng, country);
        let mark = rng.pick(&[" · ", " - ", ", ", " • ", " | "]);
        let mut lines = vec![
            format!("{}{mark}{street}{mark}{city}", self.bill.vendor),
            String::new(),
        ];
        lines.extend(self.customer_block(rng, false));
        lines.extend([String::new(), title.to_owned()]);
        lines
    }

    fn labelled(&mut self, rng: &mut Rng, title: &str) -> Vec<String> {
        let labels = self.bill.labels;
        let from = self.pen.pick(rng, labels.from);
        let to = self.pen.pick(rng, labels.to);
        let colon = if self.pen.colon.is_empty() {
            ":"
        } else {
            self.pen.colon
        };
        let mut lines = vec![title.to_owned()];
        lines.push(format!("{from}{colon} {}", self.bill.vendor));
        lines.extend(self.vendor_block(rng).into_iter().skip(1));
        lines.push(format!("{to}{colon} {}", self.bill.customer));
        lines
    }

    fn two_columns(&mut self, rng: &mut Rng, title: &str) -> Vec<String> {
        let labels = self.bill.labels;
        let mut vendor = vec![self.pen.pick(rng, labels.from)];
        vendor.extend(self.vendor_block(rng));
        let customer = self.customer_block(rng, true);
        let mut lines = vec![title.to_owned(), String::new()];
        let (left, right) = if rng.chance(75) {
            (vendor, customer)
        } else {
            (customer, vendor)
        };
        lines.extend(super::columns::beside(&left, &right, self.pen.right));
        lines
    }

    /// What the paper calls itself.
    fn title(&mut self, rng: &mut Rng) -> String {
        let labels = self.bill.labels;
        let words = if self.bill.credit {
            labels.credit
        } else {
            labels.invoice
        };
        let title = self.pen.pick(rng, words);
        if rng.chance(15) {
            format!("{}{title}", " ".repeat(rng.between(4, 40) as usize))
        } else {
            title
        }
    }
}

/// One of the words; the borrow of `rng` ends before its result is used.
pub(super) fn one_of(rng: &mut Rng, words: &'static [&'static str]) -> &'static str {
    words[rng.index(words.len())]
}
