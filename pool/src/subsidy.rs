//! The operator's account for tasks of agents that show no key, as the operator sees it: `dovetail-pool subsidy`, and an event whenever it has
//! changed. The ledger keeps the account and holds the pool to its budget.

use std::time::Duration;

use anyhow::Context;
use dovetail_ledger::{Ledger, LedgerError, Subsidy};
use dovetail_telemetry::{Event, Telemetry};
use dovetail_units::Msat;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, SubsidyConfig};
use crate::records;

/// How often the account is looked at. It moves with every task, and nobody needs to hear of each.
const INTERVAL: Duration = Duration::from_secs(10);

/// The account, beside its budget. Amounts are millisatoshi.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
struct SubsidyAccount {
    /// The budget of a day (UTC).
    msat_per_day: Msat,
    /// The budget in all, ever.
    msat_in_all: Msat,
    /// What the budget has given so far.
    granted_msat: Msat,
    /// What tasks have cost on this day.
    spent_today_msat: Msat,
    /// What tasks have cost in all.
    spent_msat: Msat,
    /// What is set aside for tasks that have not ended.
    reserved_msat: Msat,
    /// What new tasks may cost now.
    available_msat: Msat,
}

impl SubsidyAccount {
    fn new(budget: SubsidyConfig, subsidy: &Subsidy) -> Self {
        Self {
            msat_per_day: Msat::new(budget.msat_per_day),
            msat_in_all: Msat::new(budget.msat_in_all),
            granted_msat: subsidy.granted,
            spent_today_msat: subsidy.spent_today,
            spent_msat: subsidy.spent,
            reserved_msat: subsidy.reserved,
            available_msat: subsidy.available(),
        }
    }

    async fn read(ledger: &Ledger, budget: SubsidyConfig) -> Result<Self, LedgerError> {
        Ok(Self::new(budget, &ledger.subsidy().await?))
    }

    fn event(self) -> Event<'static> {
        Event::Subsidy {
            msat_per_day: self.msat_per_day,
            msat_in_all: self.msat_in_all,
            granted_msat: self.granted_msat,
            spent_today_msat: self.spent_today_msat,
            spent_msat: self.spent_msat,
            reserved_msat: self.reserved_msat,
            available_msat: self.available_msat,
        }
    }

    fn text(&self) -> String {
        format!(
            "budget        {} a day, {} in all\n\
             given so far  {}\n\
             spent today   {}\n\
             spent in all  {}\n\
             set aside     {}\n\
             left now      {}\n",
            self.msat_per_day,
            self.msat_in_all,
            self.granted_msat,
            self.spent_today_msat,
            self.spent_msat,
            self.reserved_msat,
            self.available_msat,
        )
    }
}

/// Prints what the operator pays for agents' tasks: the budget, and what became of it; as one JSON object, or for people. Only
/// reads the ledger, so it may run beside the pool.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn print_subsidy(config: &Config, json: bool) -> anyhow::Result<()> {
    let ledger = records::connect(config).await?;
    let account = SubsidyAccount::read(&ledger, config.inference.subsidy)
        .await
        .context("cannot read the subsidy account: has this pool's database been migrated?")?;
    records::print(&[account], json, SubsidyAccount::text, "")
}

/// Tells whoever watches the pool how the account stands, whenever it has changed, until `shutdown`. An account that was never
/// used and has no budget is not spoken of.
pub(crate) async fn keep_telling(
    ledger: Ledger,
    budget: SubsidyConfig,
    telemetry: Telemetry,
    shutdown: CancellationToken,
) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let telling = async {
        let mut told = SubsidyAccount::default();
        loop {
            ticks.tick().await;
            told = tell(&ledger, budget, &telemetry, told).await;
        }
    };
    shutdown.run_until_cancelled(telling).await;
}

/// Emits the event if the account is no longer what was told; returns what is told now.
async fn tell(
    ledger: &Ledger,
    budget: SubsidyConfig,
    telemetry: &Telemetry,
    told: SubsidyAccount,
) -> SubsidyAccount {
    match SubsidyAccount::read(ledger, budget).await {
        Ok(now) if now != told => {
            telemetry.emit(&now.event());
            now
        }
        Ok(_) => told,
        // It is looked at again before long.
        Err(error) => {
            tracing::warn!(%error, "cannot read the subsidy account");
            told
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use dovetail_telemetry::Sink;

    use super::*;
    use crate::test_support::Database;

    #[derive(Debug, Clone, Default)]
    struct Heard(Arc<Mutex<Vec<String>>>);

    impl Sink for Heard {
        fn take(&self, event: &Event<'_>) {
            self.0.lock().unwrap().push(event.to_json());
        }
    }

    #[tokio::test]
    async fn the_account_is_told_when_it_has_changed_and_not_at_all_where_there_is_none() {
        let database = Database::create().await;
        let ledger = database.ledger().await;
        ledger.migrate().await.unwrap();
        let heard = Heard::default();
        let telemetry = Telemetry::none().and(heard.clone());
        let told = SubsidyAccount::default();
        let told = tell(&ledger, SubsidyConfig::default(), &telemetry, told).await;
        assert!(heard.0.lock().unwrap().is_empty());

        let budget = SubsidyConfig {
            msat_per_day: 100,
            msat_in_all: 900,
            msat_per_address_and_day: None,
        };
        let told = tell(&ledger, budget, &telemetry, told).await;
        let told = tell(&ledger, budget, &telemetry, told).await;
        assert_eq!(heard.0.lock().unwrap().len(), 1);
        assert!(heard.0.lock().unwrap()[0].contains(r#""msat_in_all":900"#));
        assert!(told.text().contains("100 msat a day, 900 msat in all"));
        database.drop().await;
    }
}
