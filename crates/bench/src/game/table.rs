//! The report as a table for people.

use std::fmt::{Display, Formatter, Result};

use super::Report;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let rules = &self.rules;
        writeln!(
            f,
            "What lies bring, for each msat that they claim; {} workers with {} claims each, seed {}. Computing costs {} \
             of its pay.\n",
            rules.workers, rules.claims, rules.seed, rules.cost
        )?;
        writeln!(
            f,
            "{:<50} {:>12} {:>9} {:>9} {:>8} {:>15}",
            "strategy", "caught/1000", "expected", "played", "+-", "over computing"
        )?;
        for row in &self.strategies {
            let number = |of: Option<f64>| of.map_or("-".to_owned(), |of| format!("{of:.3}"));
            writeln!(
                f,
                "{:<50} {:>12.1} {:>9} {:>9} {:>8} {:>15}",
                row.strategy,
                row.caught_per_1000_claims,
                number(row.expected),
                number(row.played),
                number(row.standard_error),
                number(row.gain_over_computing),
            )?;
        }
        Ok(())
    }
}
