//! Names of vendors, goods and places. The two worlds draw from disjoint parts, so that no vendor
//! and no good of the unseen world has ever stood in a training document.

use crate::World;
use crate::rng::Rng;

const STARTS_TRAINING: &[&str] = &[
    "Kel", "Bran", "Ost", "Mar", "Hal", "Vin", "Tor", "Lun", "Ric", "Sab", "Nor", "Del", "Gar",
    "Pol", "Fen", "Wil", "Ber", "Cas", "Jan", "Rud", "Alb", "Ern", "Igl", "Umb", "Zan", "Hof",
    "Mül", "Lév", "Sor", "Kra", "Ton", "Bav", "Duk", "Fal", "Gor", "Hed", "Jor", "Kir", "Lom",
    "Mon", "Nie", "Pet", "Rol", "Sta", "Tal", "Ver", "Wes", "Yor",
];
const ENDS_TRAINING: &[&str] = &[
    "mor", "ner", "avel", "tin", "berg", "son", "dale", "ik", "ova", "ette", "wood", "field",
    "ini", "ersen", "ard", "holm", "ert", "ley", "mann", "ecki", "ando", "ier", "worth", "stad",
    "lin", "um", "ax", "quist", "gate", "ulo",
];
const STARTS_UNSEEN: &[&str] = &[
    "Thr", "Quin", "Blo", "Schw", "Pry", "Esk", "Oph", "Cly", "Dwi", "Gru", "Hux", "Jup", "Lyn",
    "Myr", "Nav", "Obe", "Plu", "Rhe", "Sku", "Tyn", "Ulm", "Vey", "Wych", "Xen", "Zep",
];
const ENDS_UNSEEN: &[&str] = &[
    "combe", "ander", "ogen", "issa", "ford", "uski", "ilde", "orne", "eau", "aker", "esson",
    "ville", "ock", "ury", "enta",
];
const TRADES_TRAINING: &[&str] = &[
    "Trading",
    "Foods",
    "Tools",
    "Paper",
    "Metals",
    "Logistics",
    "Supplies",
    "Electric",
    "Farm",
    "Textiles",
    "Media",
    "Office",
    "Chemicals",
    "Motors",
    "Glass",
    "Print",
    "Energy",
    "Systems",
    "Furniture",
    "Packaging",
];
const TRADES_UNSEEN: &[&str] = &[
    "Instruments",
    "Bakery",
    "Timber",
    "Optics",
    "Ceramics",
    "Hardware",
    "Gardens",
    "Marine",
    "Plastics",
    "Workshop",
];
/// Groups of letters that are common in the documents, so that a tokenizer makes tokens of them. Each must
/// have been copied in training: what only ever stood in a label is not found again in a name.
const PIECES: &[&str] = &[
    "able", "age", "aid", "air", "alan", "ale", "all", "als", "amo", "ando", "ank", "ann", "ape",
    "aper", "apr", "ard", "are", "arg", "arge", "ary", "ate", "avel", "ays", "bat", "bear", "ber",
    "berg", "bolt", "bus", "card", "chair", "conta", "dece", "del", "der", "eck", "eld", "eller",
    "ence", "end", "endor", "ent", "ered", "escr", "ety", "fer", "fice", "field", "fil", "gate",
    "ger", "glo", "glove", "hand", "heet", "hin", "his", "holm", "hose", "ice", "ier", "ill",
    "incl", "ine", "iness", "ing", "ini", "int", "inv", "issue", "ist", "lab", "led", "ler",
    "level", "ley", "lin", "mann", "mber", "ment", "mor", "mount", "ner", "nit", "nove", "nta",
    "num", "ocum", "ode", "odu", "oice", "olm", "olt", "one", "ood", "oods", "ort", "ose", "oun",
    "ount", "ours", "out", "pan", "par", "part", "point", "produ", "quist", "ree", "reet", "rema",
    "rew", "rice", "ruary", "sell", "sen", "sheet", "sor", "ssue", "stad", "stock", "store", "sue",
    "tal", "targ", "tem", "ter", "tic", "ticle", "tion", "tober", "tock", "tom", "ton", "tore",
    "tory", "tow", "towel", "ttle", "uary", "ude", "ulo", "unt", "until", "ust", "ustom", "uyer",
    "val", "vel", "ver", "voice", "wit", "wood", "wort", "worth", "your",
];
const FORMS: &[&str] = &[
    "GmbH", "Ltd", "Inc.", "AG", "S.A.", "BV", "LLC", "Oy", "AB", "Ltd.", "KG", "Co.",
];

const ADJECTIVES_TRAINING: &[&str] = &[
    "Steel", "Copper", "Blue", "Large", "Small", "Wooden", "Plastic", "Heavy", "Soft", "Red",
    "Black", "Double", "Folding", "Digital", "Cotton", "Rubber", "Safety", "Spare", "Office",
    "Green", "Dry", "Fine", "Long", "Round",
];
const NOUNS_TRAINING: &[&str] = &[
    "bolt", "wire", "paper", "box", "lamp", "chair", "cable", "filter", "glove", "brush", "pump",
    "valve", "screw", "panel", "bag", "label", "battery", "hose", "desk", "toner", "bearing",
    "tape", "coffee", "flour", "sensor", "hinge", "bottle", "towel", "pipe", "switch",
];
const ADJECTIVES_UNSEEN: &[&str] = &[
    "Brass", "White", "Narrow", "Leather", "Silent", "Portable", "Coarse", "Yellow", "Flat",
    "Marine",
];
const NOUNS_UNSEEN: &[&str] = &[
    "bracket", "ladder", "magnet", "shovel", "curtain", "gasket", "kettle", "monitor", "pallet",
    "rivet", "sugar", "washer",
];
const SIZES: &[&str] = &[
    "A4", "A5", "M8", "M10", "XL", "10 mm", "25 m", "500 g", "2 kg", "40 W", "type B", "no. 7",
];
const STREETS: &[&str] = &[
    "Harbour Road",
    "Mill Street",
    "Lindenweg",
    "High Street",
    "Station Road",
    "Rue Verte",
    "Park Lane",
    "Ringstrasse",
    "Quay Street",
    "Via Roma",
];
const CITIES: &[&str] = &[
    "Hamburg", "Leeds", "Basel", "Lyon", "Gdansk", "Uppsala", "Boston", "Graz", "Porto", "Ghent",
    "Cork", "Turin",
];

/// A family or brand name.
pub(crate) fn name(rng: &mut Rng, world: World) -> String {
    match world {
        World::Unseen => joined(rng.pick(STARTS_UNSEEN), rng.pick(ENDS_UNSEEN)),
        World::Training if rng.chance(45) => {
            joined(rng.pick(STARTS_TRAINING), rng.pick(ENDS_TRAINING))
        }
        World::Training => wild(rng),
    }
}

fn joined(start: &str, end: &str) -> String {
    format!("{start}{end}")
}

/// A made-up word of the training world: it teaches copying letter by letter, since nothing else
/// about it can be learned. One that begins like a name of the unseen world, or is one of
/// its words, is drawn again.
fn wild(rng: &mut Rng) -> String {
    loop {
        let word = capitalised(&if rng.chance(50) {
            spoken(rng)
        } else {
            pieced(rng)
        });
        let of_unseen = STARTS_UNSEEN.iter().any(|start| word.starts_with(start))
            || [TRADES_UNSEEN, ADJECTIVES_UNSEEN, NOUNS_UNSEEN]
                .concat()
                .iter()
                .any(|unseen| unseen.eq_ignore_ascii_case(&word));
        if !of_unseen {
            return word;
        }
    }
}

/// Vowels and consonants, mostly in turn, so that clusters of either kind appear too.
fn spoken(rng: &mut Rng) -> String {
    const CONSONANTS: &[u8] = b"bcdfghjklmnpqrstvwxzbdklmnrst";
    const VOWELS: &[u8] = b"aeiouyaeio";
    let mut vowel = rng.chance(35);
    (0..rng.between(3, 9))
        .map(|_| {
            let from = if vowel { VOWELS } else { CONSONANTS };
            let letter = char::from(from[rng.index(from.len())]);
            vowel = if rng.chance(75) { !vowel } else { vowel };
            letter
        })
        .collect()
}

/// One to three groups of letters, with single letters before, between and behind some of them.
fn pieced(rng: &mut Rng) -> String {
    let mut word = String::new();
    for _ in 0..rng.between(1, 3) {
        if rng.chance(40) {
            word.push(letter(rng).to_ascii_lowercase());
        }
        word.push_str(rng.pick(PIECES));
    }
    if rng.chance(20) {
        word.push(letter(rng).to_ascii_lowercase());
    }
    word
}

fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_ascii_uppercase() + rest
}

/// One of the words, or in `percent` of a hundred training documents a made-up one, lest the model
/// learns the few words by heart and looks for them instead of for their place.
fn or_wild(rng: &mut Rng, world: World, words: &[&str], percent: u32) -> String {
    if world == World::Training && rng.chance(percent) {
        wild(rng)
    } else {
        rng.pick(words).to_owned()
    }
}

/// The name of a firm.
pub(crate) fn vendor(rng: &mut Rng, world: World) -> String {
    let trades = match world {
        World::Training => TRADES_TRAINING,
        World::Unseen => TRADES_UNSEEN,
    };
    let first = name(rng, world);
    let trade = or_wild(rng, world, trades, 30);
    let written = match rng.below(7) {
        0 => format!("{first} {}", rng.pick(FORMS)),
        1 => format!("{first} {trade}"),
        2 | 3 => format!("{first} {trade} {}", rng.pick(FORMS)),
        4 => format!("{first} & {} {}", name(rng, world), rng.pick(FORMS)),
        5 => format!("{first} {} {trade}", name(rng, world)),
        _ => format!("{first}-{} {}", name(rng, world), rng.pick(FORMS)),
    };
    if rng.chance(12) {
        written.to_uppercase()
    } else {
        written
    }
}

/// What a row of an invoice or a stock sheet is about.
pub(crate) fn goods(rng: &mut Rng, world: World) -> String {
    let (adjectives, nouns) = match world {
        World::Training => (ADJECTIVES_TRAINING, NOUNS_TRAINING),
        World::Unseen => (ADJECTIVES_UNSEEN, NOUNS_UNSEEN),
    };
    let adjective = or_wild(rng, world, adjectives, 50);
    let noun = or_wild(rng, world, nouns, 50).to_lowercase();
    match rng.below(8) {
        0..=2 => format!("{adjective} {noun}"),
        3 | 4 => format!("{adjective} {noun} {}", rng.pick(SIZES)),
        5 => format!("{} {noun}", name(rng, world)),
        6 => format!("{} {} {noun}", name(rng, world), adjective.to_lowercase()),
        _ => format!("{noun} {}", name(rng, world)),
    }
}

/// A street and a number.
pub(crate) fn street(rng: &mut Rng) -> String {
    format!("{} {}", rng.pick(STREETS), rng.between(1, 199))
}

/// A postcode and a city.
pub(crate) fn city(rng: &mut Rng) -> String {
    format!("{} {}", rng.between(10_000, 99_999), rng.pick(CITIES))
}

/// Letters and digits as article numbers have them.
pub(crate) fn code(rng: &mut Rng) -> String {
    format!("{}{}{}", letter(rng), letter(rng), rng.between(10, 9999))
}

/// A capital letter.
pub(crate) fn letter(rng: &mut Rng) -> char {
    char::from(b'A' + u8::try_from(rng.below(26)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_two_worlds_are_disjoint() {
        for (training, unseen) in [
            (STARTS_TRAINING, STARTS_UNSEEN),
            (ENDS_TRAINING, ENDS_UNSEEN),
            (TRADES_TRAINING, TRADES_UNSEEN),
            (ADJECTIVES_TRAINING, ADJECTIVES_UNSEEN),
            (NOUNS_TRAINING, NOUNS_UNSEEN),
        ] {
            for part in unseen {
                assert!(!training.contains(part), "{part} is in both worlds");
            }
        }
    }

    #[test]
    fn no_training_name_begins_like_an_unseen_one() {
        let mut rng = Rng::new(5);
        for _ in 0..20_000 {
            let word = name(&mut rng, World::Training);
            assert!(
                !STARTS_UNSEEN.iter().any(|start| word.starts_with(start)),
                "{word}"
            );
        }
    }
}
