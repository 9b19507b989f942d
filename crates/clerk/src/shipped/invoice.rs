//! Invoices: the truth is drawn first, then written out in a layout, with noise around it.

use serde::Serialize;

use super::date::{Date, DateStyle};
use super::layout::Layout;
use super::money::{Currency, MoneyStyle, plain};
use super::words;
use crate::World;
use crate::rng::Rng;

/// What an invoice says. Its JSON is the answer, with the keys in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Invoice {
    /// Who sends it, as it is printed.
    pub vendor: String,
    /// The invoice's number, as it is printed.
    pub number: String,
    /// `YYYY-MM-DD`.
    pub date: String,
    /// ISO 4217.
    pub currency: &'static str,
    /// With a point and two decimals.
    pub total: String,
    /// The rows, in order.
    pub items: Vec<Item>,
}

/// A row of an invoice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Item {
    /// What it is, as it is printed.
    pub text: String,
    /// How many.
    pub qty: u32,
    /// The price of one, with a point and two decimals.
    pub price: String,
    /// The price of one in cents.
    #[serde(skip)]
    cents: u32,
}

/// The invoice of that seed, and its text.
#[must_use]
pub(crate) fn draw(rng: &mut Rng, world: World) -> (Invoice, String) {
    let (invoice, mut page) = begin(rng, world);
    page.write(rng, &invoice);
    (invoice, page.lines.join("\n"))
}

/// One block of an invoice of the training world, and the piece of the answer that follows from it,
/// to where the next field would begin. Short lessons in one thing each.
#[must_use]
pub(crate) fn draw_fragment(rng: &mut Rng) -> (String, String) {
    let (invoice, mut page) = begin(rng, World::Training);
    page.noise(rng, 20);
    let piece = match rng.below(10) {
        0 | 1 => {
            page.vendor(rng, &invoice.vendor);
            format!(r#"{{"vendor":"{}","number":""#, invoice.vendor)
        }
        2..=4 => {
            page.meta(rng, &invoice.number);
            let Invoice { number, date, .. } = &invoice;
            format!(r#"","number":"{number}","date":"{date}","currency":""#)
        }
        5 => {
            page.total(rng, invoice.currency);
            let Invoice {
                currency, total, ..
            } = &invoice;
            format!(r#"","currency":"{currency}","total":"{total}","items":[{{"text":""#)
        }
        _ => {
            page.rows(rng, &invoice.items);
            let whole = crate::json(&invoice);
            let start = whole.find(r#"","items":"#).unwrap_or_default();
            whole[start..].to_owned()
        }
    };
    page.noise(rng, 20);
    (page.lines.join("\n"), piece)
}

/// The truth, and an empty page for it.
fn begin(rng: &mut Rng, world: World) -> (Invoice, Page) {
    let vendor = words::vendor(rng, world);
    let date = Date::draw(rng);
    let currency = Currency::draw(rng);
    let rows = [1, 1, 2, 2, 3][rng.index(5)];
    let items: Vec<Item> = (0..rows).map(|_| draw_item(rng, world)).collect();
    let cents = items.iter().map(|item| item.qty * item.cents).sum();
    let invoice = Invoice {
        vendor,
        number: draw_number(rng),
        date: date.iso(),
        currency: currency.code,
        total: plain(cents),
        items,
    };
    let page = Page {
        layout: Layout::draw(rng, world),
        money: MoneyStyle::draw(rng, currency),
        dates: DateStyle::draw(rng),
        case: Case::draw(rng),
        gap: [" ", "  ", "    ", "\t"][rng.index(4)],
        date,
        cents,
        world,
        lines: Vec::new(),
    };
    (invoice, page)
}

fn draw_item(rng: &mut Rng, world: World) -> Item {
    let cents = match rng.below(4) {
        0 => rng.between(1, 40) * 50,
        1 => rng.between(10, 999),
        2 => rng.between(100, 9_999),
        _ => rng.between(1_000, 99_999),
    };
    let qty = if rng.chance(80) {
        rng.between(1, 12)
    } else {
        rng.between(13, 60)
    };
    Item {
        text: words::goods(rng, world),
        qty,
        price: plain(cents),
        cents,
    }
}

fn draw_number(rng: &mut Rng) -> String {
    match rng.below(5) {
        0 => format!("INV-{:04}", rng.below(10_000)),
        1 => format!("{}-{}", words::letter(rng), rng.between(1_000, 99_999)),
        2 => format!("{}-{:02}", words::code(rng), rng.below(100)),
        3 => format!("{:06}", rng.below(1_000_000)),
        _ => format!(
            "{}{}{}",
            words::letter(rng),
            rng.between(10, 99_999),
            words::letter(rng)
        ),
    }
}

/// How labels are written.
#[derive(Clone, Copy)]
enum Case {
    Usual,
    Upper,
    Lower,
}

impl Case {
    fn draw(rng: &mut Rng) -> Self {
        match rng.below(10) {
            0 | 1 => Self::Upper,
            2 => Self::Lower,
            _ => Self::Usual,
        }
    }

    fn of(self, label: &str) -> String {
        match self {
            Self::Usual => label.to_owned(),
            Self::Upper => label.to_uppercase(),
            Self::Lower => label.to_lowercase(),
        }
    }
}

/// The header that stands at the end.
const CLOSING: u32 = 3;

/// A text in the making, with the choices that hold for all of it.
struct Page {
    layout: Layout,
    money: MoneyStyle,
    dates: DateStyle,
    case: Case,
    gap: &'static str,
    date: Date,
    cents: u32,
    world: World,
    lines: Vec<String>,
}

impl Page {
    fn write(&mut self, rng: &mut Rng, invoice: &Invoice) {
        let closing_vendor = self.layout.header == CLOSING;
        if closing_vendor {
            self.line(self.case.of("Invoice"));
        } else {
            self.vendor(rng, &invoice.vendor);
        }
        match self.layout.order {
            0 => {
                self.meta(rng, &invoice.number);
                self.noise(rng, 35);
                self.rows(rng, &invoice.items);
                self.total(rng, invoice.currency);
            }
            1 => {
                self.noise(rng, 35);
                self.meta(rng, &invoice.number);
                self.total(rng, invoice.currency);
                self.rows(rng, &invoice.items);
            }
            _ => {
                self.rows(rng, &invoice.items);
                self.total(rng, invoice.currency);
                self.noise(rng, 35);
                self.meta(rng, &invoice.number);
            }
        }
        self.noise(rng, 45);
        if closing_vendor {
            self.vendor(rng, &invoice.vendor);
        }
        self.noise(rng, 25);
    }

    fn line(&mut self, line: String) {
        self.lines.push(line);
    }

    /// An empty line, in one document more often than in another.
    fn space(&mut self, rng: &mut Rng) {
        if rng.chance(30) && self.lines.last().is_some_and(|last| !last.is_empty()) {
            self.line(String::new());
        }
    }

    fn vendor(&mut self, rng: &mut Rng, vendor: &str) {
        let title = self.case.of("Invoice");
        let customer = words::vendor(rng, self.world);
        match self.layout.header {
            0 => {
                self.line(vendor.to_owned());
                self.address(rng);
                self.line(title);
            }
            1 => {
                self.line(title);
                self.line(vendor.to_owned());
                self.address(rng);
            }
            2 => {
                let (from, to) = (self.case.of("From"), self.case.of("To"));
                self.line(format!("{from}: {vendor}"));
                self.line(format!("{to}: {customer}"));
            }
            CLOSING => {
                let label = self.case.of(rng.pick(&["Issued by", "Seller", "Vendor"]));
                self.line(format!("{label}: {vendor}"));
            }
            4 => {
                self.line(self.case.of("Seller"));
                self.line(vendor.to_owned());
                self.line(self.case.of("Buyer"));
                self.line(customer);
            }
            _ => {
                self.line(format!("{vendor}{}{title}", self.gap));
                if rng.chance(50) {
                    self.line(format!("{} {customer}", self.case.of("Bill to")));
                }
            }
        }
        self.space(rng);
    }

    fn address(&mut self, rng: &mut Rng) {
        if rng.chance(50) {
            self.line(words::street(rng));
            self.line(words::city(rng));
        }
    }

    fn meta(&mut self, rng: &mut Rng, number: &str) {
        let numbers = self.case.of(self.layout.number_label());
        let dates = self.case.of(self.layout.date_label());
        let date = self.date.written(self.dates);
        let gap = self.gap;
        match self.layout.meta {
            0 => {
                self.line(format!("{numbers}: {number}"));
                self.line(format!("{dates}: {date}"));
            }
            1 => self.line(format!("{numbers} {number}{gap}{dates} {date}")),
            2 => {
                self.line(format!("{numbers}{gap}{dates}"));
                self.line(format!("{number}{gap}{date}"));
            }
            3 => self.line(format!(
                "{numbers} {number} {} {date}",
                rng.pick(&["of", "dated", "from"])
            )),
            4 => self.line(format!("{dates}: {date} | {numbers}: {number}")),
            _ => {
                self.line(format!("{dates} .... {date}"));
                self.line(format!("{numbers} .... {number}"));
            }
        }
        if rng.chance(15) {
            let label = self.case.of(rng.pick(&["Due date", "Payable by", "Due"]));
            let due = self.date.days_later(rng.between(7, 27)).written(self.dates);
            self.line(format!("{label}: {due}"));
        }
        if rng.chance(20) {
            let label = self
                .case
                .of(rng.pick(&["Order no.", "Your order", "Customer no."]));
            self.line(format!("{label}: {}", words::code(rng)));
        }
        self.space(rng);
    }

    fn rows(&mut self, rng: &mut Rng, items: &[Item]) {
        let gap = self.gap;
        let heading = match self.layout.rows {
            1 => Some(format!("Description{gap}Qty{gap}Price{gap}Amount")),
            2 => Some("Item | Qty | Unit price".to_owned()),
            5 => Some("Qty;Item;Unit price;Total".to_owned()),
            8 => Some(format!("Code{gap}Item{gap}Qty{gap}Price")),
            _ => None,
        };
        if let Some(heading) = heading {
            self.line(self.case.of(&heading));
        }
        for (position, item) in items.iter().enumerate() {
            self.row(rng, position + 1, item);
        }
        self.space(rng);
    }

    fn row(&mut self, rng: &mut Rng, position: usize, item: &Item) {
        let Item {
            text, qty, cents, ..
        } = item;
        let gap = self.gap;
        let price = self.money.price(*cents);
        let amount = self.money.price(qty * cents);
        let row = match self.layout.rows {
            0 => format!("{qty} x {text}{gap}{price}{gap}{amount}"),
            1 => format!("{text}{gap}{qty}{gap}{price}{gap}{amount}"),
            2 => format!("{text} | {qty} | {price}"),
            3 => format!("{position}. {text}, {qty} pcs @ {price}"),
            4 => format!("{text}\n  {qty} x {price} = {amount}"),
            5 => format!("{qty};{text};{price};{amount}"),
            6 => format!("{text} ({qty} @ {price}) {amount}"),
            7 => format!("- {text}: {qty} pcs, unit price {price}"),
            _ => format!("{}{gap}{text}{gap}{qty}{gap}{price}", words::code(rng)),
        };
        self.line(row);
    }

    /// The total, always with the currency.
    fn total(&mut self, rng: &mut Rng, code: &str) {
        let label = self.case.of(self.layout.total_label());
        let (bare, marked, gap) = (
            self.money.bare(self.cents),
            self.money.marked(self.cents),
            self.gap,
        );
        let line = match self.layout.total {
            0 => format!("{label}: {marked}"),
            1 => format!("{label}{gap}{marked}"),
            2 => format!("{label} ({code}){gap}{bare}"),
            3 => format!("{label} .... {marked}"),
            _ => format!("{label} {}: {marked}", self.case.of("incl. VAT")),
        };
        self.line(line);
        self.space(rng);
    }

    /// Lines that an answer must not be taken from.
    fn noise(&mut self, rng: &mut Rng, percent: u32) {
        if !rng.chance(percent) {
            return;
        }
        let line = match rng.below(8) {
            0 => format!(
                "Phone +{} {} {}",
                rng.between(30, 49),
                rng.between(100, 999),
                rng.between(1_000, 99_999)
            ),
            1 => format!(
                "VAT ID {}{}{}",
                words::letter(rng),
                words::letter(rng),
                rng.between(100_000, 9_999_999)
            ),
            2 => rng
                .pick(&[
                    "Thank you for your order!",
                    "Thank you",
                    "Thanks for your business.",
                ])
                .to_owned(),
            3 => format!(
                "Bank account {} {}",
                rng.between(1_000, 9_999),
                rng.between(1_000, 9_999)
            ),
            4 => format!("Payment within {} days", rng.between(7, 60)),
            5 => format!("Page {} of {}", rng.between(1, 2), rng.between(2, 4)),
            6 => format!("Contact: {}", words::vendor(rng, self.world)),
            _ => rng
                .pick(&[
                    "Goods remain ours until paid.",
                    "All prices include VAT.",
                    "Delivered free of charge.",
                ])
                .to_owned(),
        };
        self.line(line);
    }
}
