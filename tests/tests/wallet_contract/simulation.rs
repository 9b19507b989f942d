//! The simulated wallets.

use std::path::Path;
use std::sync::Arc;

use dovetail_lightning::simulator::{self, Fault, SimulatedWallet};
use dovetail_lightning::{Client, Hash32, server};
use tokio_util::sync::CancellationToken;

use crate::AMOUNT_MSAT;
use crate::contract::Pair;

pub(crate) struct Simulation {
    wallet: SimulatedWallet,
    clients: [Client; 2],
}

impl Simulation {
    pub(crate) fn start(dir: &Path, shutdown: &CancellationToken) -> Self {
        let wallets = simulator::wallets(2, 100 * AMOUNT_MSAT);
        let wallet = wallets[0].clone();
        let clients: Vec<Client> = wallets
            .into_iter()
            .enumerate()
            .map(|(n, wallet)| {
                let path = dir.join(format!("{n}.sock"));
                let listener = server::bind(&path).unwrap();
                tokio::spawn(server::serve(listener, Arc::new(wallet), shutdown.clone()));
                Client::new(path)
            })
            .collect();
        Self {
            wallet,
            clients: clients.try_into().unwrap(),
        }
    }
}

impl Pair for Simulation {
    fn payer(&self) -> &Client {
        &self.clients[0]
    }

    fn payee(&self) -> &Client {
        &self.clients[1]
    }

    fn freeze(&mut self) {
        self.wallet.script([Fault::Hold]);
    }

    async fn thaw(&mut self, payment_hash: Hash32) {
        self.wallet.release(payment_hash.0).unwrap();
    }
}
