//! Stock sheets: a short history and a target level; the answer is the next order.

use serde::Serialize;

use super::date::{Date, DateStyle};
use super::words;
use crate::World;
use crate::rng::Rng;

/// The highest stock and target that a sheet shows.
pub const LEVEL_MAX: u32 = 99;

/// What a stock sheet asks for. Its JSON is the answer, with the keys in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct NextOrder {
    /// What is in stock, as it is printed.
    pub item: String,
    /// What the history's last row leaves.
    pub on_hand: u32,
    /// The level to return to.
    pub target: u32,
    /// What is missing to the target; 0 at or above it.
    pub order: u32,
}

/// A day's movement and what it leaves.
struct Row {
    date: Date,
    received: u32,
    issued: u32,
    on_hand: u32,
}

/// How a sheet is laid out.
struct Layout {
    table: u32,
    target: u32,
    title: u32,
    labels: u32,
}

const TITLES: &[&str] = &[
    "Stock sheet",
    "Inventory card",
    "Stock history",
    "Store ledger",
];
const ITEM_LABELS: &[&str] = &["Item", "Article", "Product", "Part"];
const TARGET_LABELS: &[&str] = &["Target level", "Target", "Target stock", "Order up to"];
const STOCK_LABELS: &[&str] = &["On hand", "Stock", "Balance", "Left"];

impl Layout {
    fn draw(rng: &mut Rng, world: World) -> Self {
        loop {
            let layout = Self {
                table: rng.below(5),
                target: rng.below(3),
                title: rng.below(4),
                labels: rng.below(64),
            };
            let held_out =
                (layout.table + layout.target + layout.title + layout.labels).is_multiple_of(4);
            if held_out == (world == World::Unseen) {
                return layout;
            }
        }
    }

    fn item_label(&self) -> &'static str {
        ITEM_LABELS[self.labels as usize % 4]
    }

    fn target_label(&self) -> &'static str {
        TARGET_LABELS[self.labels as usize / 4 % 4]
    }

    fn stock_label(&self) -> &'static str {
        STOCK_LABELS[self.labels as usize / 16 % 4]
    }
}

/// The stock sheet of that seed, and its text.
#[must_use]
pub(crate) fn draw(rng: &mut Rng, world: World) -> (NextOrder, String) {
    // People set round levels; it also leaves a subtraction that so small a model can learn.
    let target = rng.between(1, 9) * 10;
    let on_hand = if rng.chance(85) {
        rng.below(target)
    } else {
        rng.between(target, LEVEL_MAX)
    };
    let order = NextOrder {
        item: words::goods(rng, world),
        on_hand,
        target,
        order: target.saturating_sub(on_hand),
    };
    let rows = draw_history(rng, on_hand);
    let layout = Layout::draw(rng, world);
    let text = write(rng, &layout, &order, &rows);
    (order, text)
}

/// Rows that end at `on_hand`, drawn from the last to the first.
fn draw_history(rng: &mut Rng, on_hand: u32) -> Vec<Row> {
    let count = [1, 2, 2, 3, 4][rng.index(5)];
    let mut days = vec![Date::draw(rng)];
    for _ in 1..count {
        let last = days[days.len() - 1];
        days.push(last.days_later(rng.between(1, 9)));
    }
    let mut level = on_hand;
    let mut rows = Vec::new();
    for date in days.into_iter().rev() {
        let received = if rng.chance(40) {
            rng.below(level + 1)
        } else {
            0
        };
        let before = level - received;
        let issued = rng.below(LEVEL_MAX - before.min(LEVEL_MAX - 1)).min(40);
        rows.push(Row {
            date,
            received,
            issued,
            on_hand: level,
        });
        level = before + issued;
    }
    rows.reverse();
    rows
}

fn write(rng: &mut Rng, layout: &Layout, order: &NextOrder, rows: &[Row]) -> String {
    let mut lines = Vec::new();
    if rng.chance(70) {
        lines.push(TITLES[layout.title as usize].to_owned());
    }
    let target = format!("{}: {}", layout.target_label(), order.target);
    let item = format!("{}: {}", layout.item_label(), order.item);
    match layout.target {
        0 => lines.extend([item, target.clone()]),
        1 => lines.push(format!("{item} | {target}")),
        _ => lines.push(item),
    }
    if rng.chance(20) {
        lines.push(format!("Reorder point: {}", rng.below(60)));
    }
    write_table(rng, layout, rows, &mut lines);
    if layout.target == 2 {
        lines.push(target);
    }
    if rng.chance(20) {
        let remark = rng.pick(&[
            "Counted by hand.",
            "Shelf checked.",
            "Next count in a month.",
        ]);
        lines.push(remark.to_owned());
    }
    lines.join("\n")
}

fn write_table(rng: &mut Rng, layout: &Layout, rows: &[Row], lines: &mut Vec<String>) {
    let stock = layout.stock_label();
    let gap = [" ", "  ", "   ", "\t"][rng.index(4)];
    let heading = match layout.table {
        0 => Some(format!("Date{gap}In{gap}Out{gap}{stock}")),
        1 => Some(format!("Date | In | Out | {stock}")),
        2 => Some(format!("date;in;out;{}", stock.to_lowercase())),
        _ => None,
    };
    lines.extend(heading);
    let dates = DateStyle::draw(rng);
    for Row {
        date,
        received,
        issued,
        on_hand,
    } in rows
    {
        let date = date.written(dates);
        lines.push(match layout.table {
            0 => format!("{date}{gap}{received}{gap}{issued}{gap}{on_hand}"),
            1 => format!("{date} | {received} | {issued} | {on_hand}"),
            2 => format!("{date};{received};{issued};{on_hand}"),
            3 => format!("{date}: +{received} -{issued} = {on_hand}"),
            _ => format!(
                "{date} in {received}, out {issued}, {} {on_hand}",
                stock.to_lowercase()
            ),
        });
    }
}
