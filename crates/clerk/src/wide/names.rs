//! Names of firms and people, and addresses. The two worlds draw from disjoint parts.

use super::country::{Country, filled};
use super::labels::Labels;
use crate::World;
use crate::rng::Rng;
use crate::shipped::{self, letter};

/// Before a name, as many languages have it.
const PARTICLES: [&str; 8] = ["O'", "D'", "L'", "van ", "de ", "Mc", "Di ", "von "];
/// Letters with marks, and what they stand for.
const MARKED: [(char, char); 14] = [
    ('a', 'ä'),
    ('o', 'ö'),
    ('u', 'ü'),
    ('e', 'é'),
    ('e', 'è'),
    ('a', 'à'),
    ('n', 'ñ'),
    ('c', 'ç'),
    ('o', 'ø'),
    ('a', 'å'),
    ('i', 'í'),
    ('o', 'ó'),
    ('e', 'ë'),
    ('s', 'š'),
];
const TRADES_TRAINING: &[&str] = &[
    "Trading",
    "Foods",
    "Tools",
    "Papier",
    "Metallbau",
    "Logistics",
    "Services",
    "Elektro",
    "Farm",
    "Textiles",
    "Media",
    "Bureau",
    "Chimie",
    "Motors",
    "Glas",
    "Print",
    "Energía",
    "Systems",
    "Möbel",
    "Packaging",
    "Consulting",
    "Bau",
    "Software",
    "Transport",
    "Informatique",
    "Costruzioni",
    "Hosting",
    "Design",
];
const TRADES_UNSEEN: &[&str] = &[
    "Instruments",
    "Bakery",
    "Holz",
    "Optique",
    "Cerámica",
    "Hardware",
    "Gardens",
    "Marine",
    "Officina",
    "Werkplaats",
    "Studio",
];
const FIRST_TRAINING: &[&str] = &[
    "Anna", "Peter", "Marie", "Jan", "Lucía", "Paolo", "Ursula", "Tom", "Élise", "Kees", "Jorge",
    "Giulia", "Jürgen", "Mary", "Luc", "Sanne",
];
const FIRST_UNSEEN: &[&str] = &[
    "Ingrid", "Oscar", "Noémie", "Bram", "Pilar", "Dario", "Hugh",
];

fn of_world<'a>(rng: &mut Rng, world: World, training: &[&'a str], unseen: &[&'a str]) -> &'a str {
    match world {
        World::Training => rng.pick(training),
        World::Unseen => rng.pick(unseen),
    }
}

/// A family's name.
pub(super) fn family(rng: &mut Rng, world: World) -> String {
    let mut name = shipped::name(rng, world);
    if rng.chance(12) {
        let (plain, marked) = MARKED[rng.index(MARKED.len())];
        name = name.replacen(plain, &marked.to_string(), 1);
    }
    if rng.chance(8) {
        name = format!("{}{name}", rng.pick(&PARTICLES));
    }
    name
}

/// Somebody's first name and family's name.
pub(super) fn person(rng: &mut Rng, world: World) -> String {
    let first = of_world(rng, world, FIRST_TRAINING, FIRST_UNSEEN);
    let family = family(rng, world);
    match rng.below(5) {
        0 => format!("{}. {family}", letter(rng)),
        1 => format!("Dr. {first} {family}"),
        _ => format!("{first} {family}"),
    }
}

/// A firm, as it is printed.
pub(super) fn firm(rng: &mut Rng, world: World, country: &Country) -> String {
    let first = family(rng, world);
    let trade = of_world(rng, world, TRADES_TRAINING, TRADES_UNSEEN);
    let form = rng.pick(country.forms);
    let name = match rng.below(14) {
        0 => format!("{first} {form}"),
        1..=3 => format!("{first} {trade} {form}"),
        4 => format!("{first} & {} {form}", family(rng, world)),
        5 => format!(
            "{first}, {} & {} {form}",
            family(rng, world),
            family(rng, world)
        ),
        6 => format!("{first}-{} {form}", family(rng, world)),
        7 => format!("{trade} {first}"),
        8 => person(rng, world),
        9 => format!("The \"{first}\" {trade} {form}"),
        10 => format!("{first}'s {trade}"),
        11 => format!(
            "{}{}{} {trade} {form}",
            letter(rng),
            letter(rng),
            letter(rng)
        ),
        12 => format!(
            "{trade}-{first} {}{form}",
            if rng.chance(50) { "(Europe) " } else { "" }
        ),
        _ => format!("{first}{} {form}", trade.to_lowercase()),
    };
    match rng.below(12) {
        0 => name.to_uppercase(),
        1 => name.to_lowercase(),
        _ => name,
    }
}

/// A street and a house.
pub(super) fn street(rng: &mut Rng, world: World, country: &Country, labels: &Labels) -> String {
    let street = rng.pick(labels.streets).replace("{}", &family(rng, world));
    let number = rng.between(1, 240);
    let number = match rng.below(8) {
        0 => format!("{number}{}", ["a", "b", "c", "/2", "-3"][rng.index(5)]),
        _ => number.to_string(),
    };
    if country.number_first {
        format!("{number} {street}")
    } else {
        format!("{street} {number}")
    }
}

/// A postcode and a city.
pub(super) fn city(rng: &mut Rng, country: &Country) -> String {
    let pattern = rng.pick(country.cities);
    filled(rng, pattern)
}

/// A name in the net, without a scheme.
pub(super) fn domain(rng: &mut Rng, world: World) -> String {
    let name: String = shipped::name(rng, world).to_lowercase();
    let ascii: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    format!(
        "{ascii}.{}",
        rng.pick(&["com", "de", "fr", "nl", "es", "it", "co.uk", "ch", "eu"])
    )
}
