//! The truth of an invoice: rows, discount, carriage, tax and total, in whole numbers that fit each other.

use super::country::{self, Country, Currency};
use super::day::Day;
use super::figures::{plain, plain_price};
use super::labels::{Labels, labels};
use super::{goods, names};
use crate::World;
use crate::answer;
use crate::rng::Rng;

/// Rows of a paper at most.
pub(super) const ROWS_MAX: u32 = 30;
/// Prices are in ten-thousandths, quantities in thousandths, amounts in hundredths.
const E4_PER_CENT: i64 = 100;
const MILLI: i64 = 1_000;

/// A row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) text: String,
    pub(super) milli: i64,
    /// Decimals that the quantity is printed with.
    pub(super) decimals: usize,
    pub(super) unit: &'static str,
    pub(super) price_e4: i64,
    pub(super) cents: i64,
}

/// What becomes of the tax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tax {
    /// None is charged.
    None,
    /// It comes upon the rows' sum.
    Added,
    /// The prices hold it, and the paper says how much of it.
    Included,
}

/// A rate in tenths of a percent, with what it is taken of and what it makes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) rate: u32,
    pub(super) base: i64,
    pub(super) cents: i64,
}

/// The whole truth.
#[derive(Clone, Debug)]
pub(super) struct Bill {
    pub(super) country: &'static Country,
    pub(super) labels: &'static Labels,
    pub(super) currency: Currency,
    pub(super) vendor: String,
    pub(super) customer: String,
    pub(super) number: String,
    pub(super) day: Day,
    pub(super) credit: bool,
    pub(super) rows: Vec<Row>,
    /// The rows' sum.
    pub(super) sum: i64,
    /// What is taken off, and how many tenths of a percent of the sum that is, if it is said so.
    pub(super) discount: Option<(i64, Option<u32>)>,
    pub(super) shipping: Option<i64>,
    /// The sum with discount and carriage: net, unless prices hold the tax.
    pub(super) net: i64,
    pub(super) tax: Tax,
    /// One or two rates.
    pub(super) shares: Vec<Share>,
    pub(super) total: i64,
}

impl Bill {
    /// A bill of at most so many rows.
    pub(super) fn draw(rng: &mut Rng, world: World, rows_max: u32) -> Self {
        let (country, currency) = country::draw(rng);
        let labels = labels(country.language);
        let credit = rng.chance(7);
        // A few credit notes print what they give back with a minus.
        let sign = if credit && rng.chance(40) { -1 } else { 1 };
        let rows = draw_rows(rng, world, labels, currency, rows_max, sign);
        let sum: i64 = rows.iter().map(|row| row.cents).sum();
        let discount = (sum > 0 && rng.chance(13)).then(|| draw_discount(rng, currency, sum));
        let discount = discount.filter(|(off, _)| *off > 0 && *off < sum);
        let shipping = (sum > 0 && !credit && rng.chance(16))
            .then(|| rounded(currency, i64::from(rng.between(250, 4_900))));
        let net = sum - discount.map_or(0, |(off, _)| off) + shipping.unwrap_or(0);
        let tax = draw_tax(rng, country);
        let shares = draw_shares(rng, country, currency, net, tax);
        let added: i64 = match tax {
            Tax::Added => shares.iter().map(|share| share.cents).sum(),
            Tax::None | Tax::Included => 0,
        };
        Self {
            country,
            labels,
            currency,
            vendor: names::firm(rng, world, country),
            customer: names::firm(rng, world, country),
            number: draw_number(rng, labels),
            day: Day::draw(rng),
            credit,
            rows,
            sum,
            discount,
            shipping,
            net,
            tax,
            shares,
            total: net + added,
        }
    }

    /// All taxes together.
    pub(super) fn tax_cents(&self) -> i64 {
        self.shares.iter().map(|share| share.cents).sum()
    }

    /// What a model should answer to a paper that prints all of it; `tax_printed` is whether the paper says the tax
    /// as one amount.
    pub(super) fn answer(&self, tax_printed: bool) -> answer::Invoice {
        answer::Invoice {
            vendor: Some(self.vendor.clone()),
            number: Some(self.number.clone()),
            date: Some(self.day.iso()),
            currency: Some(self.currency.code.to_owned()),
            total: Some(plain(self.total)),
            tax: tax_printed.then(|| plain(self.tax_cents())),
            discount: self.discount.map(|(off, _)| plain(off)),
            shipping: self.shipping.map(plain),
            credit: self.credit,
            items: self.rows.iter().map(Row::answer).collect(),
        }
    }
}

impl Row {
    /// Whether a paper may print its amount alone: one piece, at a price of whole cents.
    pub(super) fn amount_says_price(&self) -> bool {
        self.milli == MILLI && self.price_e4 % E4_PER_CENT == 0
    }

    fn answer(&self) -> answer::Item {
        let whole = self.milli % MILLI == 0;
        let qty = if whole {
            (self.milli / MILLI).into()
        } else {
            // Thousandths are exact enough to print as they were.
            serde_json::Number::from_f64(self.milli as f64 / MILLI as f64)
                .unwrap_or_else(|| 0.into())
        };
        answer::Item {
            text: self.text.clone(),
            qty,
            price: plain_price(self.price_e4),
        }
    }
}

/// Price times quantity in cents, the nearest; halves away from zero.
pub(super) fn amount(milli: i64, price_e4: i64) -> i64 {
    let scale = MILLI * E4_PER_CENT;
    let product = milli * price_e4;
    let half = if product < 0 { -scale / 2 } else { scale / 2 };
    (product + half) / scale
}

/// Amounts of a currency without small coins have no cents.
fn rounded(currency: Currency, cents: i64) -> i64 {
    if currency.whole {
        (cents / 100).max(1) * 100
    } else {
        cents
    }
}

fn draw_rows(
    rng: &mut Rng,
    world: World,
    labels: &'static Labels,
    currency: Currency,
    rows_max: u32,
    sign: i64,
) -> Vec<Row> {
    let count = match rng.below(20) {
        0..=5 => 1,
        6..=9 => 2,
        10..=12 => 3,
        13..=16 => rng.between(4, 7),
        17 | 18 => rng.between(8, 14),
        _ => rng.between(15, ROWS_MAX),
    };
    let hourly = rng.chance(30);
    (0..count.min(rows_max))
        .map(|_| draw_row(rng, world, labels, currency, hourly, sign))
        .collect()
}

fn draw_row(
    rng: &mut Rng,
    world: World,
    labels: &'static Labels,
    currency: Currency,
    hourly: bool,
    sign: i64,
) -> Row {
    let service = if hourly {
        rng.chance(85)
    } else {
        rng.chance(8)
    };
    let (text, unit) = if service {
        (goods::service(rng, world, labels), rng.pick(labels.hours))
    } else {
        (goods::good(rng, world, labels), rng.pick(labels.units))
    };
    let (milli, decimals) = draw_quantity(rng, service && !currency.whole);
    let cents = match rng.below(6) {
        0 => rng.between(1, 60) * 50,
        1 => rng.between(5, 999),
        2 | 3 => rng.between(100, 19_999),
        4 => rng.between(1_000, 199_999),
        _ => rng.between(10_000, 2_500_000),
    };
    // Long rows of large prices would leave the figures that people write.
    let cents = if milli > 200 * MILLI {
        cents % 5_000 + 1
    } else {
        cents
    };
    let mut price_e4 = rounded(currency, i64::from(cents)) * E4_PER_CENT;
    if rng.chance(3) && !currency.whole {
        price_e4 += i64::from(rng.between(1, 99));
    }
    Row {
        text,
        milli: milli * sign,
        decimals,
        unit,
        price_e4,
        cents: amount(milli * sign, price_e4),
    }
}

/// Thousandths, and with how many decimals they are printed.
fn draw_quantity(rng: &mut Rng, parts: bool) -> (i64, usize) {
    if parts && rng.chance(55) {
        return match rng.below(3) {
            0 => (i64::from(rng.between(1, 80)) * 500, 1),
            1 => (i64::from(rng.between(1, 160)) * 250, 2),
            _ => (i64::from(rng.between(1, 999)) * 10, 2),
        };
    }
    let whole = match rng.below(10) {
        0..=3 => 1,
        4..=6 => rng.between(2, 12),
        7 => rng.between(13, 99),
        8 => rng.between(100, 999),
        _ => [rng.between(1_000, 9_999), rng.between(10, 50) * 10][rng.index(2)],
    };
    // Some papers print 3,00 for 3.
    let decimals = if rng.chance(10) { 2 } else { 0 };
    (i64::from(whole) * MILLI, decimals)
}

fn draw_discount(rng: &mut Rng, currency: Currency, sum: i64) -> (i64, Option<u32>) {
    if rng.chance(65) {
        let tenths = [20, 30, 50, 75, 100, 150, 200, 250][rng.index(8)];
        let off = (sum * i64::from(tenths) + 500) / 1_000;
        (rounded(currency, off), Some(tenths))
    } else {
        let bound = u32::try_from(sum / 3).unwrap_or(u32::MAX).clamp(1, 50_000);
        (rounded(currency, i64::from(rng.between(1, bound))), None)
    }
}

fn draw_tax(rng: &mut Rng, country: &Country) -> Tax {
    match rng.below(20) {
        0..=2 => Tax::None,
        3..=5 if !country.sales_tax => Tax::Included,
        _ => Tax::Added,
    }
}

fn draw_shares(
    rng: &mut Rng,
    country: &Country,
    currency: Currency,
    net: i64,
    tax: Tax,
) -> Vec<Share> {
    if tax == Tax::None {
        return Vec::new();
    }
    let rate = country.rates[rng.index(country.rates.len())];
    let other = country.rates[rng.index(country.rates.len())];
    if rate == 0 {
        return Vec::new();
    }
    let two =
        tax == Tax::Added && other != rate && other != 0 && net.abs() > 1_000 && rng.chance(50);
    let first = if two {
        net * i64::from(rng.between(20, 80)) / 100
    } else {
        net
    };
    let first = if currency.whole {
        first / 100 * 100
    } else {
        first
    };
    let mut shares = vec![share(currency, tax, rate, first)];
    if two {
        shares.push(share(currency, tax, other, net - first));
    }
    shares
}

fn share(currency: Currency, tax: Tax, rate: u32, base: i64) -> Share {
    let rate_wide = i64::from(rate);
    let cents = match tax {
        // Of a gross amount the tax is rate parts of 1000 + rate.
        Tax::Included => (base * rate_wide + (1_000 + rate_wide) / 2) / (1_000 + rate_wide),
        Tax::None | Tax::Added => (base * rate_wide + 500) / 1_000,
    };
    let cents = if currency.whole {
        cents / 100 * 100
    } else {
        cents
    };
    Share { rate, base, cents }
}

/// A number as vendors give them.
fn draw_number(rng: &mut Rng, labels: &Labels) -> String {
    let letter = |rng: &mut Rng| crate::shipped::letter(rng);
    let year = rng.between(2015, 2032);
    let initial = labels.invoice[0].chars().next().unwrap_or('R');
    match rng.below(14) {
        0 => format!("INV-{:04}", rng.below(10_000)),
        1 => format!(
            "{initial}{}-{:04}",
            labels.invoice[0].chars().nth(1).unwrap_or('e'),
            rng.below(10_000)
        )
        .to_uppercase(),
        2 => format!("{}E-{year}-{:04}", initial, rng.below(10_000)),
        3 => format!("{year}/{:03}", rng.below(1_000)),
        4 => format!("{year}-{:05}", rng.below(100_000)),
        5 => format!("{:06}", rng.below(1_000_000)),
        6 => rng.between(1, 9_999).to_string(),
        7 => format!(
            "{}{}-{}",
            letter(rng),
            letter(rng),
            rng.between(100, 99_999)
        ),
        8 => format!("{initial}{}{:05}", year % 100, rng.below(100_000)),
        9 => format!("{}/{year}", rng.between(1, 999)),
        10 => format!(
            "{}{:03}.{:04}",
            letter(rng),
            rng.below(1_000),
            rng.below(10_000)
        ),
        11 => format!(
            "{}{:02}{:02}-{}",
            year,
            rng.between(1, 12),
            rng.between(1, 28),
            rng.between(1, 99)
        ),
        12 => format!("{} {:03} {:03}", year, rng.below(1_000), rng.below(1_000)),
        _ => format!("#{}", rng.between(100, 99_999)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Row, amount};

    #[test]
    fn an_amount_alone_says_the_price_of_one_piece_in_whole_cents() {
        for (milli, price_e4, says) in [
            (1_000, 1_866_200, true),
            (1_000, 1_765_954, false),
            (-1_000, 1_866_200, false),
            (2_000, 1_866_200, false),
        ] {
            let row = Row {
                text: "nut".to_owned(),
                milli,
                decimals: 0,
                unit: "pcs",
                price_e4,
                cents: amount(milli, price_e4),
            };
            assert_eq!(row.amount_says_price(), says, "{milli} at {price_e4}");
        }
    }

    #[test]
    fn price_times_quantity_is_rounded_to_the_nearest_cent() {
        assert_eq!(amount(2_500, 100_000), 2_500);
        assert_eq!(amount(3_000, 125), 4);
        assert_eq!(amount(-1_000, 125), -1);
        assert_eq!(amount(1_000, 50), 1);
    }
}
