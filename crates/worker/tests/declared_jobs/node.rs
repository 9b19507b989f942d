//! A node of the worker's that can be away: the embedded chain behind a template provider.

use std::time::Duration;

use dovetail_sv2::AuthorityKeys;
use dovetail_templates::{SourceConfig, TemplateHandle, tdp_server};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::fixture::{BLOCKS_NEVER, TIME_MAX};

pub(crate) struct Node {
    chain: TemplateHandle,
    address: String,
    keys: AuthorityKeys,
    serving: CancellationToken,
    _stop: DropGuard,
}

impl Node {
    pub(crate) async fn start() -> Self {
        let stop = CancellationToken::new();
        let chain = SourceConfig::embedded_with_bits(BLOCKS_NEVER);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = Self {
            chain: dovetail_templates::start(chain, stop.clone()).unwrap(),
            address: listener.local_addr().unwrap().to_string(),
            keys: AuthorityKeys::generate(),
            serving: CancellationToken::new(),
            _stop: stop.drop_guard(),
        };
        node.serve(listener);
        node
    }

    pub(crate) fn config(&self, stale_after_s: u64) -> String {
        format!(
            "kind = \"template-provider\"\naddress = {:?}\nauthority_public_key = \"{}\"\n\
             stale_after_s = {stale_after_s}\n",
            self.address,
            self.keys.public()
        )
    }

    /// Hangs up, and is not to be reached.
    pub(crate) fn leave(&self) {
        self.serving.cancel();
    }

    /// Is there again, on the same port.
    pub(crate) async fn come_back(&mut self) {
        self.serving = CancellationToken::new();
        let bind = async {
            loop {
                match TcpListener::bind(&self.address).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let listener = timeout(TIME_MAX, bind).await.unwrap();
        self.serve(listener);
    }

    fn serve(&self, listener: TcpListener) {
        let (chain, serving) = (self.chain.clone(), self.serving.clone());
        tokio::spawn(tdp_server::serve(listener, self.keys, chain, serving));
    }
}
