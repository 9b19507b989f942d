//! What rows are about: goods and services, with the sizes, quotes, commas and numbers that people write into
//! them.

use super::labels::Labels;
use crate::World;
use crate::rng::Rng;
use crate::shipped::{self, code};

const SIZES: &[&str] = &[
    "A4",
    "M8x40",
    "XL",
    "12 mm",
    "2,5 m",
    "500 g",
    "2 kg",
    "40 W",
    "type B",
    "no. 7",
    "1/2\"",
    "3x1.5 mm²",
    "230V",
    "10er",
    "25 l",
    "Ø 8",
    "DIN 912",
    "USB-C",
    "2.0",
    "90°",
];
const LINKS: [&str; 6] = [" ", ", ", " - ", " / ", " & ", " + "];

/// What is sold by the piece.
pub(super) fn good(rng: &mut Rng, world: World, labels: &Labels) -> String {
    let (kinds, nouns) = match world {
        World::Training => (labels.kinds_training, labels.goods_training),
        World::Unseen => (labels.kinds_unseen, labels.goods_unseen),
    };
    let noun = if world == World::Training && rng.chance(35) {
        shipped::name(rng, world).to_lowercase()
    } else {
        rng.pick(nouns).to_owned()
    };
    let kind = rng.pick(kinds);
    let text = match rng.below(10) {
        0 | 1 => format!("{kind} {noun}"),
        2 => format!("{noun}{}{}", rng.pick(&LINKS), rng.pick(SIZES)),
        3 => format!("{kind} {noun} {}", rng.pick(SIZES)),
        4 => format!("{} {noun}", shipped::name(rng, world)),
        5 => format!("{noun} \"{}\"", shipped::name(rng, world)),
        6 => format!("{noun} ({kind}, {})", rng.pick(SIZES)),
        7 => format!("{noun} {}", code(rng)),
        8 => format!("{noun}, {}", kind.to_lowercase()),
        _ => format!(
            "{kind} {noun}{}{}",
            rng.pick(&LINKS),
            shipped::name(rng, world)
        ),
    };
    match rng.below(14) {
        0 => text.to_uppercase(),
        1..=4 => capitalised(&text),
        _ => text,
    }
}

/// What is sold by the hour or as a whole.
pub(super) fn service(rng: &mut Rng, world: World, labels: &Labels) -> String {
    let service = rng.pick(labels.services);
    let name = shipped::name(rng, world);
    match rng.below(5) {
        0 => format!("{service} {name}"),
        1 => {
            let month = labels.months[rng.index(12)];
            format!("{service} {month} {} {name}", rng.between(2015, 2032))
        }
        2 => format!("{service} \"{name}\""),
        3 => format!("{service} {name}, {}", code(rng)),
        _ => format!("{service} - {name}"),
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}
