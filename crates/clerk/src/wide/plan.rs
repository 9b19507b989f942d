//! How a paper is laid out: a product of a few styles and of label sets. Part of that product is held out, so
//! that no training document has a layout of the unseen world.

use crate::World;
use crate::rng::Rng;

/// Where and how the vendor stands.
pub(super) const HEADERS: u32 = 9;
/// How number and date stand.
pub(super) const METAS: u32 = 10;
/// Which columns the table has.
pub(super) const TABLES: u32 = 12;
/// How the table's lines are drawn.
pub(super) const RULES: u32 = 7;
/// How the sums stand.
pub(super) const TOTALS: u32 = 7;
/// The labels of a kind are picked by a number below this, modulo how many there are.
const LABELS: u32 = 60;

/// One way of laying out a paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    pub(super) header: u32,
    pub(super) meta: u32,
    pub(super) table: u32,
    pub(super) rules: u32,
    pub(super) totals: u32,
    /// Which label for the number; see [`Plan::of`].
    pub(super) number_label: u32,
    /// Which label for the date.
    pub(super) date_label: u32,
    /// Which label for the total.
    pub(super) total_label: u32,
}

impl Plan {
    /// A layout of that world.
    pub(super) fn draw(rng: &mut Rng, world: World) -> Self {
        loop {
            let plan = Self {
                header: rng.below(HEADERS),
                meta: rng.below(METAS),
                table: rng.below(TABLES),
                rules: rng.below(RULES),
                totals: rng.below(TOTALS),
                number_label: rng.below(LABELS),
                date_label: rng.below(LABELS),
                total_label: rng.below(LABELS),
            };
            if plan.world() == Some(world) {
                return plan;
            }
        }
    }

    /// The world that may use this layout. One of the unseen world has both a combination of styles and one of
    /// labels that training never has; what has only one of the two belongs to neither world.
    pub(super) fn world(&self) -> Option<World> {
        let styles = self.header + self.meta + self.table + self.totals;
        let labels = self.number_label + self.date_label + self.total_label;
        match (styles.is_multiple_of(6), labels.is_multiple_of(5)) {
            (true, true) => Some(World::Unseen),
            (false, false) => Some(World::Training),
            _ => None,
        }
    }

    /// The label of that number.
    pub(super) fn of(index: u32, labels: &'static [&'static str]) -> &'static str {
        labels[index as usize % labels.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_world_has_papers_of_its_own_in_every_style() {
        for world in [World::Training, World::Unseen] {
            let mut rng = Rng::new(3);
            let drawn: Vec<_> = (0..5_000).map(|_| Plan::draw(&mut rng, world)).collect();
            assert!(drawn.iter().all(|plan| plan.world() == Some(world)));
            for header in 0..HEADERS {
                assert!(drawn.iter().any(|plan| plan.header == header));
            }
            for table in 0..TABLES {
                assert!(drawn.iter().any(|plan| plan.table == table));
            }
        }
    }
}
