//! What the pool holds beside what it owes: an event every minute, with an alarm for as long as too little is there, and a
//! part of `dovetail-pool ledger audit`. It reads sums of accounts and blocks, no transfers.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use dovetail_ledger::{Ledger, Obligations};
use dovetail_lightning::{Client, ClientError, NodeState, Request};
use dovetail_onchain::{Node, WalletKeys};
use dovetail_telemetry::{Event, Holding, Telemetry};
use dovetail_templates::Payout;
use dovetail_units::Msat;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::payouts::onchain::{self, node_of};

/// How often it is looked at. The sums take as long as there are accounts: a third of a second for a million of them.
const INTERVAL: Duration = Duration::from_secs(60);
/// And the wallet on the chain: the node reads all coins of the network for that.
const ONCHAIN_INTERVAL: Duration = Duration::from_secs(3_600);

/// Both sides, in millisatoshi.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Solvency {
    /// Each place where the pool has money.
    pub(crate) holdings: Vec<Holding>,
    /// What was seen there, in all.
    pub(crate) holds_msat: Msat,
    /// What miners and workers can be paid, what is held for them, and their parts of blocks that have not matured.
    pub(crate) owes_msat: Msat,
    /// The difference.
    pub(crate) surplus_msat: Msat,
    /// Whether each place could be looked at. If not, the pool may hold more.
    #[serde(rename = "complete")]
    pub(crate) is_complete: bool,
}

impl Solvency {
    /// What the ledger owes, beside what the ledger and the wallets say is there.
    pub(crate) async fn look(obligations: &Obligations, purses: &mut Purses) -> Self {
        Self::new(obligations, holdings(obligations, purses).await)
    }

    fn new(obligations: &Obligations, holdings: Vec<Holding>) -> Self {
        let Obligations {
            owed,
            held,
            immature,
            ..
        } = *obligations;
        let sum = |parts: &mut dyn Iterator<Item = Msat>| -> i128 {
            parts.map(|part| i128::from(part.get())).sum()
        };
        let holds = sum(&mut holdings.iter().filter_map(|holding| holding.msat));
        let owes = sum(&mut [owed, held, immature].into_iter());
        Self {
            holds_msat: clamped(holds),
            owes_msat: clamped(owes),
            surplus_msat: clamped(holds - owes),
            is_complete: holdings.iter().all(|holding| holding.msat.is_some()),
            holdings,
        }
    }

    /// Whether it is certain that the pool holds less than it owes.
    pub(crate) fn is_short(&self) -> bool {
        self.is_complete && self.surplus_msat < Msat::ZERO
    }

    fn event(&self) -> Event<'_> {
        Event::Solvency {
            holdings: &self.holdings,
            holds_msat: self.holds_msat,
            owes_msat: self.owes_msat,
            surplus_msat: self.surplus_msat,
            complete: self.is_complete,
            short: self.is_short(),
        }
    }

    pub(crate) fn text(&self) -> String {
        let places: Vec<String> = self
            .holdings
            .iter()
            .map(|Holding { place, msat }| match msat {
                Some(msat) => format!("{place} {}", msat.get()),
                None => format!("{place} unknown"),
            })
            .collect();
        let at_least = if self.is_complete { "" } else { "at least " };
        format!(
            "held by the pool   {at_least}{} msat: {}\nmore than it owes  {at_least}{} msat\n",
            self.holds_msat.get(),
            places.join(", "),
            self.surplus_msat.get(),
        )
    }
}

/// More than all bitcoin is no amount; whoever reads it sees that.
fn clamped(msat: i128) -> Msat {
    let bounded = msat.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    Msat::new(i64::try_from(bounded).unwrap_or(i64::MAX))
}

/// Who can be asked what the pool has.
#[derive(Default)]
pub(crate) struct Purses {
    wallet: Option<Client>,
    onchain: Option<OnchainPurse>,
}

/// The wallet on the chain.
struct OnchainPurse {
    node: Node,
    keys: WalletKeys,
    /// Whether blocks pay into it.
    is_paid_by_blocks: bool,
    /// What it had when it was last looked at: the node searches all coins for it.
    seen: Option<Seen>,
}

/// What was seen of the wallet on the chain.
#[derive(Clone, Copy)]
struct Seen {
    at: Instant,
    /// What all blocks of the pool had paid then. A block more, or one less, is in the wallet too.
    paid_by_blocks: i128,
    msat: Option<Msat>,
}

impl Purses {
    /// The wallets of a pool whose blocks pay this.
    pub(crate) fn new(
        wallet: Option<Client>,
        onchain: Option<(Node, WalletKeys)>,
        payout: &Payout,
    ) -> Self {
        Self {
            wallet,
            onchain: onchain.map(|(node, keys)| OnchainPurse {
                // One address for all blocks: a range by height grows out of what a wallet looks for.
                is_paid_by_blocks: keys.owns(&payout.at(u32::MAX)),
                node,
                keys,
                seen: None,
            }),
        }
    }

    /// Those that the configuration names; `keys` are those of its wallet on the chain, if it has one.
    ///
    /// # Errors
    /// A sentence that names the key of the configuration.
    pub(crate) fn of(config: &Config, keys: Option<WalletKeys>) -> anyhow::Result<Self> {
        let refused = |reason: String| anyhow!(reason);
        let wallet = config.lightning.socket.clone().map(Client::new);
        let onchain = match (&config.onchain, keys) {
            (Some(onchain), Some(keys)) => Some((node_of(onchain).map_err(refused)?, keys)),
            _ => None,
        };
        let payout = config.mining.payout().map_err(refused)?;
        Ok(Self::new(wallet, onchain, &payout))
    }
}

impl OnchainPurse {
    /// What it has. If blocks pay into it, what they have paid is in it before it can be spent.
    async fn look(&mut self, obligations: &Obligations) -> Holding {
        let Obligations {
            immature_rewards,
            rewards,
            ..
        } = *obligations;
        let paid_by_blocks = i128::from(immature_rewards.get()) + i128::from(rewards.get());
        let is_current = |seen: &Seen| {
            seen.at.elapsed() < ONCHAIN_INTERVAL && seen.paid_by_blocks == paid_by_blocks
        };
        let msat = match self.seen.filter(is_current) {
            Some(seen) => seen.msat,
            None => self.search(paid_by_blocks).await,
        };
        Holding {
            place: "onchain",
            msat,
        }
    }

    async fn search(&mut self, paid_by_blocks: i128) -> Option<Msat> {
        let found = onchain::holdings(&self.node, &self.keys).await.ok();
        let msat = found.map(|found| {
            let immature = match self.is_paid_by_blocks {
                true => found.immature.to_sat(),
                false => 0,
            };
            let sat = i128::from(found.spendable.to_sat()) + i128::from(immature);
            clamped(sat * 1_000)
        });
        // A node that is busy with another search is asked again before long.
        self.seen = msat.is_some().then(|| Seen {
            at: Instant::now(),
            paid_by_blocks,
            msat,
        });
        msat
    }
}

/// Each place where the pool has money, and how much; a new kind of wallet adds its places here.
async fn holdings(obligations: &Obligations, purses: &mut Purses) -> Vec<Holding> {
    let mut holdings = Vec::new();
    if let Some(wallet) = &purses.wallet {
        holdings.extend(of_wallet(wallet).await);
    }
    let mut is_paid_by_blocks = false;
    if let Some(onchain) = &mut purses.onchain {
        holdings.push(onchain.look(obligations).await);
        is_paid_by_blocks = onchain.is_paid_by_blocks;
    }
    let at = |place, msat| Holding { place, msat };
    // It has left the wallet's balance, and is owed until it has arrived.
    holdings.push(at("under_way", Some(obligations.under_way)));
    if !is_paid_by_blocks {
        holdings.push(at("immature_rewards", Some(obligations.immature_rewards)));
        // Nobody can ask how much of what matured blocks have paid is still at `mining.payout_address`.
        if obligations.rewards > Msat::ZERO {
            holdings.push(at("matured_rewards", None));
        }
    }
    holdings
}

/// What a Lightning wallet has in channels, and on the chain if it has a chain.
async fn of_wallet(wallet: &Client) -> Vec<Holding> {
    let channels = wallet.balance().await.ok();
    let channels = channels.map(|msat| clamped(i128::from(msat)));
    let mut holdings = vec![Holding {
        place: "lightning",
        msat: channels,
    }];
    let state = match wallet.raw(&Request::NodeState).await {
        Ok(state) => serde_json::from_value::<NodeState>(state).ok(),
        // It has no chain.
        Err(ClientError::Refused(_)) => return holdings,
        Err(_) => None,
    };
    let on_chain = state.map(|state| {
        let sat = i128::from(state.onchain_sat) + i128::from(state.closing_sat);
        clamped(sat * 1_000)
    });
    holdings.push(Holding {
        place: "lightning_onchain",
        msat: on_chain,
    });
    holdings
}

/// Tells whoever watches the pool how it stands, every minute until `shutdown`.
pub(crate) async fn keep_telling(
    ledger: Ledger,
    mut purses: Purses,
    telemetry: Telemetry,
    shutdown: CancellationToken,
) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let telling = async {
        let mut was_short = false;
        loop {
            ticks.tick().await;
            if let Some(now) = tell(&ledger, &mut purses, &telemetry, was_short).await {
                was_short = now.is_short();
            }
        }
    };
    shutdown.run_until_cancelled(telling).await;
}

async fn tell(
    ledger: &Ledger,
    purses: &mut Purses,
    telemetry: &Telemetry,
    was_short: bool,
) -> Option<Solvency> {
    let obligations = match ledger.obligations().await {
        Ok(obligations) => obligations,
        // It is looked at again before long.
        Err(error) => {
            tracing::warn!(%error, "cannot read what the ledger owes");
            return None;
        }
    };
    let solvency = Solvency::look(&obligations, purses).await;
    let (holds_msat, owes_msat) = (solvency.holds_msat.get(), solvency.owes_msat.get());
    if solvency.is_short() {
        tracing::warn!(
            holds_msat,
            owes_msat,
            missing_msat = solvency.surplus_msat.get().saturating_neg(),
            "ALARM: the pool holds less than it owes; see `dovetail-pool ledger audit`"
        );
    } else if was_short && solvency.is_complete {
        tracing::info!(holds_msat, owes_msat, "the pool holds what it owes again");
    }
    telemetry.emit(&solvency.event());
    Some(solvency)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use bitcoin::ScriptBuf;
    use dovetail_lightning::server;
    use dovetail_lightning::simulator::{self, SimulatedWallet};
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

    fn purses(wallet: Option<&Client>) -> Purses {
        Purses::new(wallet.cloned(), None, &Payout::one(ScriptBuf::new()))
    }

    fn wallet(dir: &tempfile::TempDir, msat: u64) -> (SimulatedWallet, Client) {
        let socket = dir.path().join("wallet.sock");
        let [wallet] = simulator::wallets(1, msat).try_into().ok().unwrap();
        let listener = server::bind(&socket).unwrap();
        let served = Arc::new(SimulatedWallet::clone(&wallet));
        tokio::spawn(server::serve(listener, served, CancellationToken::new()));
        (wallet, Client::new(socket))
    }

    #[tokio::test]
    async fn a_pool_that_holds_less_than_it_owes_raises_an_alarm_for_as_long_as_it_does() {
        let database = Database::create().await;
        let ledger = database.ledger().await;
        ledger.migrate().await.unwrap();
        database.credit("alice", 5_000).await;
        let dir = tempfile::tempdir().unwrap();
        let (wallet, client) = wallet(&dir, 7_000);
        let heard = Heard::default();
        let telemetry = Telemetry::none().and(heard.clone());
        let look = async |was_short| {
            let mut purses = purses(Some(&client));
            tell(&ledger, &mut purses, &telemetry, was_short).await
        };
        let enough = look(false).await.unwrap();
        assert_eq!(enough.surplus_msat, Msat::new(2_000));
        assert!(enough.is_complete && !enough.is_short());
        wallet.set_balance(4_999);
        for was_short in [false, true] {
            assert!(look(was_short).await.unwrap().is_short());
        }
        wallet.set_balance(5_000);
        assert!(!look(true).await.unwrap().is_short());
        let short: Vec<bool> = heard
            .0
            .lock()
            .unwrap()
            .iter()
            .map(|event| event.contains(r#""short":true"#))
            .collect();
        assert_eq!(short, [false, true, true, false]);
        database.drop().await;
    }

    #[tokio::test]
    async fn where_not_all_can_be_looked_at_nothing_is_certain() {
        let owed = Obligations {
            owed: Msat::new(900),
            held: Msat::new(30),
            immature: Msat::new(70),
            immature_rewards: Msat::new(80),
            under_way: Msat::new(11),
            ..Obligations::default()
        };
        let without = Solvency::look(&owed, &mut purses(None)).await;
        assert_eq!(without.owes_msat, Msat::new(1_000));
        assert_eq!(without.surplus_msat, Msat::new(80 + 11 - 1_000));
        assert!(without.is_short());
        let away = Client::new("/nowhere/wallet.sock".into());
        let wallet_away = Solvency::look(&owed, &mut purses(Some(&away))).await;
        assert!(!wallet_away.is_complete && !wallet_away.is_short());
        assert!(
            wallet_away
                .text()
                .contains("at least 91 msat: lightning unknown")
        );
        let matured = Obligations {
            rewards: Msat::new(1),
            ..owed
        };
        assert!(!Solvency::look(&matured, &mut purses(None)).await.is_short());
    }
}
