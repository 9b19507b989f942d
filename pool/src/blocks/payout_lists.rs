//! Who is paid in the coinbase itself: the heaviest accounts of the window whose way is an address, by nine tenths of their
//! parts of the subsidy. The list of them is made anew every few minutes, for all pools and declarators on the ledger.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Network, ScriptBuf};
use dovetail_ledger::{HeavyAccount, LedgerError, ListedOutput, NewPayoutList};
use dovetail_payee::bitcoin_address;
use dovetail_rewards::AdvanceTerms;
use dovetail_templates::subsidy_at;
use dovetail_units::Msat;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::config::RewardScheme;
use crate::shared::Shared;

/// How often it is looked at whether a new list is needed.
const INTERVAL_MAX: Duration = Duration::from_secs(30);
/// Accounts that are looked at for each place on the list: some want more, or have the address of another.
const LOOKED_AT: u32 = 4;

/// Makes lists until `shutdown`. A pool that pays nobody so makes an empty one, where another was made before.
pub(crate) async fn keep_making(shared: Arc<Shared>, shutdown: CancellationToken) {
    let renewed = Duration::from_secs(shared.config.rewards.coinbase_payouts_renewed_s);
    let mut ticks = interval(renewed.min(INTERVAL_MAX));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let making = async {
        loop {
            ticks.tick().await;
            match make(&shared, renewed).await {
                Ok(true) => tracing::info!("made a new payout list for coinbases"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "cannot make a payout list yet"),
            }
        }
    };
    shutdown.run_until_cancelled(making).await;
}

async fn make(shared: &Shared, renewed: Duration) -> Result<bool, LedgerError> {
    let work = shared.templates.subscribe().borrow().clone();
    let Some(height) = work.map(|work| work.height()) else {
        return Ok(false);
    };
    let (subsidy_sat, heights) = subsidy_at(shared.config.mining.network, height);
    if subsidy_sat == 0 {
        return Ok(false);
    }
    let outputs = outputs(shared, subsidy_sat, height).await?;
    let list = NewPayoutList {
        subsidy_sat,
        heights,
        outputs,
    };
    shared.ledger.make_payout_list(&list, renewed).await
}

async fn outputs(
    shared: &Shared,
    subsidy_sat: u64,
    height: u32,
) -> Result<Vec<ListedOutput>, LedgerError> {
    let rewards = &shared.config.rewards;
    let most = rewards.coinbase_payouts_max;
    if most == 0 || rewards.scheme != RewardScheme::Pplns {
        return Ok(Vec::new());
    }
    let (window, heaviest) = shared.ledger.heaviest_accounts(most * LOOKED_AT).await?;
    // Both were checked at the start.
    let terms = rewards.fee().and_then(|fee| Ok((fee, rewards.length()?)));
    let (fee, length) =
        terms.map_err(|_| LedgerError::Refused("the section rewards is not valid"))?;
    let choice = Choice {
        terms: AdvanceTerms {
            subsidy_sat,
            fee,
            length,
            window,
        },
        network: shared.config.mining.network,
        least_sat: rewards.coinbase_payout_min_sat,
        most: most as usize,
    };
    Ok(choice.of(&heaviest, |script| shared.payout.is_pools(script, height)))
}

/// By what outputs are chosen.
struct Choice {
    terms: AdvanceTerms,
    network: Network,
    least_sat: u64,
    most: usize,
}

impl Choice {
    /// The outputs to these accounts, the heaviest first.
    fn of(
        &self,
        heaviest: &[HeavyAccount],
        is_pools: impl Fn(&ScriptBuf) -> bool,
    ) -> Vec<ListedOutput> {
        let mut scripts = BTreeSet::new();
        let outputs = heaviest.iter().filter_map(|heavy| {
            let output = self.output(heavy)?;
            let script = ScriptBuf::from_bytes(output.script.clone());
            (!is_pools(&script) && scripts.insert(script)).then_some(output)
        });
        outputs.take(self.most).collect()
    }

    fn output(&self, heavy: &HeavyAccount) -> Option<ListedOutput> {
        let address = bitcoin_address(&heavy.address)?.0;
        let address = address.require_network(self.network).ok()?;
        let amount_sat = self.terms.sat(heavy.weight);
        let amount = i64::try_from(amount_sat.checked_mul(1_000)?).ok()?;
        let is_enough = amount_sat >= self.least_sat && Msat::new(amount) >= heavy.threshold;
        is_enough.then(|| ListedOutput {
            account: heavy.account.clone(),
            script: address.script_pubkey().into_bytes(),
            amount_sat,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_rewards::{PoolFee, Weight, WindowLength};

    const A: &str = "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x";
    const B: &str = "bcrt1qft5p2uhsdcdc3l2ua4ap5qqfg4pjaqlp250x7us7a8qqhrxrxfsqseac85";
    const MAINNET: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";

    fn choice(most: usize, window: u128) -> Choice {
        let of = |difficulties: u128| Weight::new(difficulties * Weight::PER_DIFFICULTY.get());
        Choice {
            terms: AdvanceTerms {
                subsidy_sat: 1_000_000,
                fee: PoolFee::NONE,
                length: WindowLength::default(),
                window: of(window).unwrap(),
            },
            network: Network::Regtest,
            least_sat: 100_000,
            most,
        }
    }

    fn heavy(account: &str, difficulties: u128, address: &str, threshold: i64) -> HeavyAccount {
        HeavyAccount {
            account: account.to_owned(),
            weight: Weight::new(difficulties * Weight::PER_DIFFICULTY.get()).unwrap(),
            address: address.to_owned(),
            threshold: Msat::new(threshold),
        }
    }

    fn chosen(choice: &Choice, heaviest: &[HeavyAccount]) -> Vec<(String, u64)> {
        let outputs = choice.of(heaviest, |script| script.len() == 34).into_iter();
        outputs
            .map(|output| (output.account, output.amount_sat))
            .collect()
    }

    #[test]
    fn the_heaviest_are_paid_whose_address_is_of_the_network_and_who_want_no_more() {
        let all = [
            heavy("elsewhere", 4, MAINNET, 0),
            heavy("a", 3, A, 0),
            heavy("the same", 2, A, 0),
            heavy("light", 1, "mfWxJ45yp2SFn7UciZyNpvDKrzbhyfKrY8", 0),
        ];
        assert_eq!(chosen(&choice(20, 10), &all), [("a".to_owned(), 270_000)]);
        let of = |most, threshold| {
            let all = [
                heavy("a", 6, A, threshold),
                heavy("c", 4, "mfWxJ45yp2SFn7UciZyNpvDKrzbhyfKrY8", 0),
            ];
            chosen(&choice(most, 10), &all)
        };
        assert_eq!(of(20, 540_000_000).len(), 2);
        assert_eq!(of(1, 540_000_000), [("a".to_owned(), 540_000)]);
        assert_eq!(of(20, 540_000_001), [("c".to_owned(), 360_000)]);
        // What the pool is paid at is no place for others, and a window that is not full is nobody's yet.
        assert_eq!(chosen(&choice(20, 8), &[heavy("b", 8, B, 0)]), []);
        assert_eq!(chosen(&choice(20, 7), &[heavy("a", 7, A, 0)]), []);
    }
}
