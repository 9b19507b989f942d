//! Stock sheets in the six languages: a history of movements and a level to return to.

use super::columns::{Side, table};
use super::country;
use super::day::Day;
use super::goods;
use super::labels::{Labels, labels};
use super::pen::Pen;
use crate::World;
use crate::answer::NextOrder;
use crate::rng::Rng;

/// The highest stock and target.
const LEVEL_MAX: u32 = 9_999;
/// Ways to write the table, and how many places the target may stand at.
const TABLES: u32 = 5;
const PLACES: u32 = 4;

/// A day's movement and what it leaves.
struct Movement {
    day: Day,
    received: u32,
    issued: u32,
    left: u32,
}

/// A sheet of that world, and what it asks for.
pub(super) fn draw(rng: &mut Rng, world: World) -> (NextOrder, String) {
    let (country, _) = country::draw(rng);
    let labels = labels(country.language);
    let target = match rng.below(4) {
        0 => rng.between(1, 9) * 10,
        1 => rng.between(1, 99),
        2 => rng.between(2, 60) * 25,
        _ => rng.between(10, LEVEL_MAX),
    };
    let on_hand = if rng.chance(85) {
        rng.below(target)
    } else {
        rng.between(target, LEVEL_MAX)
    };
    let order = NextOrder {
        item: goods::good(rng, world, labels),
        on_hand,
        target,
        order: target.saturating_sub(on_hand),
    };
    let movements = draw_movements(rng, on_hand);
    let layout = draw_layout(rng, world);
    let form = country.days[rng.index(country.days.len())];
    let mut pen = Pen::draw(rng);
    let mut lines = vec![pen.pick(rng, labels.stock_title)];
    let item = labelled(rng, &mut pen, labels.stock_item, &order.item);
    let goal = labelled(rng, &mut pen, labels.stock_target, &target.to_string());
    match layout.1 {
        0 => lines.extend([item, goal.clone()]),
        1 => lines.push(format!("{item}{}{goal}", " ".repeat(pen.gap.max(3)))),
        2 => lines.extend([goal.clone(), item]),
        _ => lines.push(item),
    }
    for _ in 0..rng.below(3) {
        let value = rng.below(60).to_string();
        let noise = labelled(rng, &mut pen, labels.stock_noise, &value);
        lines.push(noise);
    }
    let written: Vec<(String, &Movement)> = movements
        .iter()
        .map(|one| (one.day.written(form, labels), one))
        .collect();
    lines.extend(history(rng, &mut pen, labels, layout.0, &written));
    if layout.1 == PLACES - 1 {
        lines.push(goal);
    }
    (order, lines.join("\n"))
}

/// Which table, and where the target stands.
fn draw_layout(rng: &mut Rng, world: World) -> (u32, u32) {
    loop {
        let (table, place) = (rng.below(TABLES), rng.below(PLACES));
        if (table + place).is_multiple_of(4) == (world == World::Unseen) {
            return (table, place);
        }
    }
}

fn labelled(rng: &mut Rng, pen: &mut Pen, words: &'static [&'static str], value: &str) -> String {
    let label = pen.pick(rng, words);
    let colon = if pen.colon.is_empty() { ":" } else { pen.colon };
    format!("{label}{colon} {value}")
}

/// Movements that end at `on_hand`, drawn from the last to the first.
fn draw_movements(rng: &mut Rng, on_hand: u32) -> Vec<Movement> {
    let count = rng.between(1, 9);
    let mut days = vec![Day::draw(rng)];
    for _ in 1..count {
        let last = days[days.len() - 1];
        days.push(last.later(rng.between(1, 20)));
    }
    let mut level = on_hand;
    let mut movements = Vec::new();
    for day in days.into_iter().rev() {
        let received = if rng.chance(40) {
            rng.below(level + 1)
        } else {
            0
        };
        let before = level - received;
        let issued = rng.below((LEVEL_MAX - before.min(LEVEL_MAX - 1)).min(400));
        movements.push(Movement {
            day,
            received,
            issued,
            left: level,
        });
        level = before + issued;
    }
    movements.reverse();
    movements
}

fn history(
    rng: &mut Rng,
    pen: &mut Pen,
    labels: &Labels,
    form: u32,
    movements: &[(String, &Movement)],
) -> Vec<String> {
    let heads: Vec<String> = [
        labels.date,
        labels.stock_in,
        labels.stock_out,
        labels.stock_on_hand,
    ]
    .iter()
    .map(|words| pen.pick(rng, words))
    .collect();
    let cells = movements.iter().map(|(day, one)| {
        vec![
            day.clone(),
            one.received.to_string(),
            one.issued.to_string(),
            one.left.to_string(),
        ]
    });
    match form {
        0 | 1 => {
            let rows: Vec<Vec<String>> = [heads].into_iter().chain(cells).collect();
            if form == 0 {
                table(
                    &rows,
                    &[Side::Left, Side::Right, Side::Right, Side::Right],
                    pen.gap.max(2),
                )
            } else {
                rows.iter().map(|row| row.join(" | ")).collect()
            }
        }
        2 => [heads]
            .into_iter()
            .chain(cells)
            .map(|row| row.join(";"))
            .collect(),
        3 => movements
            .iter()
            .map(|(day, one)| format!("{day}: +{} -{} = {}", one.received, one.issued, one.left))
            .collect(),
        _ => movements
            .iter()
            .map(|(day, one)| {
                format!(
                    "{day} {} {}, {} {}, {} {}",
                    heads[1], one.received, heads[2], one.issued, heads[3], one.left
                )
            })
            .collect(),
    }
}
