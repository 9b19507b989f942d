//! Texts that are no invoice: e-mails, minutes, lists, measurements. There is nothing to find in them, though
//! they hold names, days and amounts.

use super::country::{self, filled_one};
use super::day::Day;
use super::figures::Figures;
use super::labels::labels;
use super::names;
use super::parties::one_of;
use crate::World;
use crate::rng::Rng;

/// Every third sentence of a language is the unseen world's.
const HELD_OUT: usize = 3;

/// A text of that world.
pub(super) fn draw(rng: &mut Rng, world: World) -> String {
    match rng.below(4) {
        0 => measurements(rng, world),
        1 => list(rng, world),
        _ => letter(rng, world),
    }
}

fn letter(rng: &mut Rng, world: World) -> String {
    let (country, currency) = country::draw(rng);
    let labels = labels(country.language);
    let figures = Figures::draw(rng, country, currency);
    let sentences: Vec<&'static str> = labels
        .letters
        .iter()
        .enumerate()
        .filter(|(index, _)| (index % HELD_OUT == HELD_OUT - 1) == (world == World::Unseen))
        .map(|(_, sentence)| *sentence)
        .collect();
    let mut lines = Vec::new();
    if rng.chance(60) {
        let domain = names::domain(rng, world);
        lines.push(format!(
            "From: {} <{}@{domain}>",
            names::person(rng, world),
            rng.pick(&["info", "a", "post"])
        ));
        if rng.chance(50) {
            lines.push(format!(
                "Subject: {}",
                rng.pick(&[
                    "Re: invoice",
                    "Meeting",
                    "Question",
                    "FYI",
                    "Termin",
                    "Réunion"
                ])
            ));
        }
        lines.push(String::new());
    }
    lines.push(one_of(rng, labels.greetings).replace("{}", &names::person(rng, world)));
    for _ in 0..rng.between(1, 6) {
        let day = Day::draw(rng).written(country.days[rng.index(country.days.len())], labels);
        let sentence = sentences[rng.index(sentences.len())]
            .replace("{d}", &day)
            .replace(
                "{t}",
                &format!("{}:{:02}", rng.between(7, 20), rng.below(60)),
            )
            .replace("{n}", &rng.between(2, 90).to_string())
            .replace("{m}", &rng.between(10, 900).to_string())
            .replace(
                "{a}",
                &figures.marked(i64::from(rng.between(500, 900_000)) / 100 * 100),
            )
            .replace("{p}", &filled_one(rng, country.phones));
        lines.push(sentence);
    }
    lines.push(one_of(rng, labels.greetings).replace("{}", &names::person(rng, world)));
    lines.push(names::person(rng, world));
    if rng.chance(30) {
        lines.push(names::firm(rng, world, country));
    }
    lines.join("\n")
}

fn measurements(rng: &mut Rng, world: World) -> String {
    let name = names::family(rng, world);
    let unit = rng.pick(&["°C", "mm", "V", "kg", "%", "bar", "ms"]);
    let mut lines = vec![format!(
        "{} {name}",
        rng.pick(&["Log", "Station", "Sensor", "Run", "Probe"])
    )];
    let mut day = Day::draw(rng);
    for _ in 0..rng.between(3, 14) {
        day = day.later(1);
        let value = format!("{}.{}", rng.between(0, 99), rng.below(10));
        lines.push(format!(
            "{} {:02}:{:02}  {value} {unit}",
            day.iso(),
            rng.below(24),
            rng.below(60)
        ));
    }
    lines.join("\n")
}

fn list(rng: &mut Rng, world: World) -> String {
    let (country, _) = country::draw(rng);
    let mut lines = vec![
        rng.pick(&[
            "Members",
            "Teilnehmer",
            "To do",
            "Contacts",
            "Adresses",
            "Leden",
        ])
        .to_owned(),
    ];
    for index in 1..=rng.between(2, 10) {
        let line = match rng.below(3) {
            0 => format!(
                "{index}. {}, {}",
                names::person(rng, world),
                filled_one(rng, country.phones)
            ),
            1 => format!(
                "{index}. {} - {}",
                names::firm(rng, world, country),
                names::city(rng, country)
            ),
            _ => format!("{index}. {}", names::person(rng, world)),
        };
        lines.push(line);
    }
    lines.join("\n")
}
