//! The report as tables for people.

use std::fmt::{Display, Formatter, Result};

use super::Report;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let rules = &self.rules;
        writeln!(
            f,
            "batches of {} transcripts; a trusted worker has {} replayed, after {} honest batches; the pay of \
             {} batches is held; a batch costs {} of its pay\n",
            rules.leaves,
            self.replayed_at_the_floor,
            self.batches_to_trust,
            rules.collateral_batches,
            rules.cost,
        )?;
        self.detection(f)?;
        self.grinding(f)?;
        self.strategies(f)
    }
}

impl Report {
    fn detection(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "A trusted worker that lies in every batch")?;
        writeln!(
            f,
            "{:>9} {:>10} {:>10} {:>10} {:>13} {:>28}",
            "bad",
            "caught in",
            "within 10",
            "within 100",
            "batches until",
            "pays if a batch costs more"
        )?;
        for row in &self.detection {
            writeln!(
                f,
                "{:>9} {:>9.1}% {:>9.1}% {:>9.1}% {:>13.1} {:>9.1} (unheld: {:>5.1})",
                row.bad_leaves,
                row.per_batch * 100.0,
                row.within_10_batches * 100.0,
                row.within_100_batches * 100.0,
                row.batches_until,
                row.pays_from_cost,
                row.pays_from_cost_without_collateral,
            )?;
        }
        Ok(())
    }

    fn grinding(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(
            f,
            "\nChoosing among up to {} shares, were the sample known before a share is sent",
            self.rules.shares
        )?;
        writeln!(
            f,
            "{:>9} {:>16} {:>16} {:>16}",
            "bad", "shares needed", "passes if known", "with the beacon"
        )?;
        for row in &self.grinding {
            let needed = row.shares_until_one_suits;
            writeln!(
                f,
                "{:>9} {:>16} {:>15.1}% {:>15.1}%",
                row.bad_leaves,
                needed.map_or("none suits".to_owned(), |shares| format!("{shares:.1}")),
                row.passes_if_known * 100.0,
                row.passes_with_beacon * 100.0,
            )?;
        }
        Ok(())
    }

    fn strategies(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(
            f,
            "\nProfit per batch over {} batches, in batches' pay; played by {} workers each, seed {}",
            self.rules.batches, self.rules.workers, self.rules.seed
        )?;
        writeln!(
            f,
            "{:<36} {:>5} {:>9} {:>9} {:>8} {:>9} {:>12}",
            "strategy", "bad", "expected", "played", "+-", "lost", "caught/1000"
        )?;
        for row in &self.strategies {
            writeln!(
                f,
                "{:<36} {:>5} {:>9.3} {:>9.3} {:>8.4} {:>9.3} {:>12.1}",
                row.strategy,
                row.bad_leaves,
                row.expected,
                row.played,
                row.standard_error,
                row.loss_to_honest,
                row.caught_per_1000_batches,
            )?;
        }
        Ok(())
    }
}
