//! Payout lists, from the ledger to what blocks pay: each pool and each declarator reads them again every few seconds.

use std::time::Duration;

use bitcoin::{Amount, ScriptBuf, TxOut};
use dovetail_ledger::{Ledger, LedgerError, PayoutListRecord};
use dovetail_templates::{Payout, PayoutList};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often they are read; a list is offered to jobs when everybody has read it twice.
const INTERVAL: Duration = Duration::from_secs(5);
/// How old the oldest is that is still known: a block that pays it may be found on the chain by then.
const KNOWN_FOR: Duration = Duration::from_secs(3 * 86_400);

/// Reads the lists now.
///
/// # Errors
/// [`LedgerError::Unavailable`]: those of before stay.
pub async fn read(ledger: &Ledger, payout: &Payout) -> Result<(), LedgerError> {
    let lists = ledger.payout_lists(KNOWN_FOR).await?;
    payout.set_lists(lists.into_iter().map(list).collect());
    Ok(())
}

/// Reads them again and again until `shutdown`.
pub async fn keep_reading(ledger: Ledger, payout: Payout, shutdown: CancellationToken) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reading = async {
        loop {
            ticks.tick().await;
            if let Err(error) = read(&ledger, &payout).await {
                tracing::warn!(%error, "cannot read the payout lists: jobs go by those of before");
            }
        }
    };
    shutdown.run_until_cancelled(reading).await;
}

fn list(record: PayoutListRecord) -> PayoutList {
    let outputs = record.outputs.into_iter().map(|(script, sat)| TxOut {
        value: Amount::from_sat(sat),
        script_pubkey: ScriptBuf::from_bytes(script),
    });
    PayoutList::new(
        record.age,
        record.subsidy_sat,
        record.heights,
        outputs.collect(),
    )
}
