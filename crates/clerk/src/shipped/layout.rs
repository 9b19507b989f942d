//! How an invoice is laid out. The layouts are the product of a few styles and label sets; one part
//! of that product is held out: a training document never has a layout of the unseen world.

use crate::World;
use crate::rng::Rng;

/// Where and how the vendor stands.
pub(crate) const HEADERS: u32 = 6;
/// How number and date stand.
pub(crate) const METAS: u32 = 6;
/// How the rows of items stand.
pub(crate) const ROWS: u32 = 9;
/// How the total stands.
pub(crate) const TOTALS: u32 = 5;
/// In which order the blocks follow each other.
pub(crate) const ORDERS: u32 = 3;

const NUMBER_LABELS: &[&str] = &[
    "Invoice No.",
    "Invoice number",
    "Invoice #",
    "Inv. no.",
    "Bill no.",
    "Document no.",
    "Reference",
];
const DATE_LABELS: &[&str] = &[
    "Date",
    "Invoice date",
    "Issued",
    "Date of issue",
    "Issue date",
    "Dated",
];
const TOTAL_LABELS: &[&str] = &[
    "Total",
    "Grand total",
    "Amount due",
    "Total amount",
    "To pay",
    "Invoice total",
    "Balance due",
    "Sum",
];

/// One way of laying out an invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Layout {
    /// Below [`HEADERS`].
    pub header: u32,
    /// Below [`METAS`].
    pub meta: u32,
    /// Below [`ROWS`].
    pub rows: u32,
    /// Below [`TOTALS`].
    pub total: u32,
    /// Below [`ORDERS`].
    pub order: u32,
    number_label: u32,
    date_label: u32,
    total_label: u32,
}

impl Layout {
    /// A layout of that world.
    pub(crate) fn draw(rng: &mut Rng, world: World) -> Self {
        loop {
            let layout = Self {
                header: rng.below(HEADERS),
                meta: rng.below(METAS),
                rows: rng.below(ROWS),
                total: rng.below(TOTALS),
                order: rng.below(ORDERS),
                number_label: draw_index(rng, NUMBER_LABELS),
                date_label: draw_index(rng, DATE_LABELS),
                total_label: draw_index(rng, TOTAL_LABELS),
            };
            if layout.world() == Some(world) {
                return layout;
            }
        }
    }

    /// The world that may use this layout. A layout of the unseen world has both a combination of
    /// styles and a combination of labels that training never has; what has only one of the two
    /// belongs to neither world, so that the unseen differs in every way at once.
    #[must_use]
    pub(crate) fn world(&self) -> Option<World> {
        let styles_held_out = (self.header + self.meta + self.rows + self.total).is_multiple_of(5);
        let labels_held_out =
            (self.number_label + self.date_label + self.total_label).is_multiple_of(4);
        match (styles_held_out, labels_held_out) {
            (true, true) => Some(World::Unseen),
            (false, false) => Some(World::Training),
            _ => None,
        }
    }

    /// What stands before the invoice's number.
    #[must_use]
    pub(crate) fn number_label(&self) -> &'static str {
        NUMBER_LABELS[self.number_label as usize]
    }

    /// What stands before the invoice's date.
    #[must_use]
    pub(crate) fn date_label(&self) -> &'static str {
        DATE_LABELS[self.date_label as usize]
    }

    /// What stands before the total.
    #[must_use]
    pub(crate) fn total_label(&self) -> &'static str {
        TOTAL_LABELS[self.total_label as usize]
    }
}

fn draw_index(rng: &mut Rng, labels: &[&str]) -> u32 {
    rng.below(u32::try_from(labels.len()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_world_has_layouts_of_its_own_in_every_style() {
        for world in [World::Training, World::Unseen] {
            let mut rng = Rng::new(3);
            let drawn: Vec<_> = (0..5_000).map(|_| Layout::draw(&mut rng, world)).collect();
            assert!(drawn.iter().all(|layout| layout.world() == Some(world)));
            for header in 0..HEADERS {
                assert!(drawn.iter().any(|layout| layout.header == header));
            }
            for rows in 0..ROWS {
                assert!(drawn.iter().any(|layout| layout.rows == rows));
            }
        }
    }
}
