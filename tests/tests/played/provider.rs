//! The template provider: it tells every client what the test told it, from the newest tip on.

use std::time::Duration;

use bitcoin::Network;
use dovetail_sv2::messages::{CoinbaseOutputConstraints, NewTemplate, TemplateSetNewPrevHash};
use dovetail_sv2::server::{Client, Server};
use dovetail_sv2::setup::{ServerPolicy, SetupProtocol};
use dovetail_sv2::{AuthorityKeys, Outbox, PlaceLimits};
use dovetail_templates::{DEFAULT_BITS, RegtestChain};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::now;

/// What clients are told.
#[derive(Clone)]
enum Told {
    Template(Box<NewTemplate>),
    Tip(Box<TemplateSetNewPrevHash>),
}

/// A provider that serves. Dropping it ends it.
pub(crate) struct Provider {
    pub(crate) address: String,
    pub(crate) keys: AuthorityKeys,
    told: watch::Sender<Vec<Told>>,
    next_id: u64,
    tip: TemplateSetNewPrevHash,
    serving: CancellationToken,
}

impl Provider {
    /// On the first block of a fresh chain.
    pub(crate) async fn start() -> Self {
        let mut provider = Self::start_silent().await;
        provider.tip(|_| {});
        provider
    }

    /// It gives no template until it is told to, as one does whose node is in initial block download.
    pub(crate) async fn start_silent() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Self {
            address: listener.local_addr().unwrap().to_string(),
            keys: AuthorityKeys::generate(),
            told: watch::channel(Vec::new()).0,
            next_id: 1,
            tip: parts(0).1,
            serving: CancellationToken::new(),
        };
        provider.serve(listener);
        provider
    }

    /// The `[templates]` section of its clients.
    pub(crate) fn config(&self, stale_after_s: u64) -> String {
        format!(
            "kind = \"template-provider\"\naddress = \"{}\"\nauthority_public_key = \"{}\"\n\
             stale_after_s = {stale_after_s}\n",
            self.address,
            self.keys.public()
        )
    }

    /// Tells a future template, and the tip before with these changes, which activates it.
    pub(crate) fn tip(&mut self, change: impl FnOnce(&mut TemplateSetNewPrevHash)) {
        change(&mut self.tip);
        let mut template = self.next_template();
        template.future_template = true;
        self.tip.template_id = template.template_id;
        let tip = Box::new(self.tip.clone());
        self.tell([Told::Template(Box::new(template)), Told::Tip(tip)]);
    }

    /// The tip that was told last.
    pub(crate) fn tip_now(&self) -> &TemplateSetNewPrevHash {
        &self.tip
    }

    /// Tells a template on the tip, with these changes.
    pub(crate) fn template(&mut self, change: impl FnOnce(&mut NewTemplate)) {
        let mut template = self.next_template();
        change(&mut template);
        self.tell([Told::Template(Box::new(template))]);
    }

    /// Hangs up, and is not to be reached.
    pub(crate) fn leave(&mut self) {
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
        let listener = tokio::time::timeout(super::TIME_MAX, bind).await.unwrap();
        self.serve(listener);
    }

    fn next_template(&mut self) -> NewTemplate {
        let template = parts(self.next_id).0;
        self.next_id += 1;
        template
    }

    fn tell<const N: usize>(&self, told: [Told; N]) {
        self.told.send_modify(|all| all.extend(told));
    }

    fn serve(&self, listener: TcpListener) {
        let server = Server {
            keys: self.keys,
            certificate_validity: Duration::from_secs(3_600),
            policy: ServerPolicy {
                protocol: SetupProtocol::TemplateDistributionProtocol,
                supported_flags: 0,
                required_flags: 0,
                success_flags: |_| 0,
            },
            places: PlaceLimits::total(16),
            outbox_max: 1_024,
            payload_bytes_max: 1 << 20,
        };
        let (told, serving) = (self.told.subscribe(), self.serving.clone());
        let tracker = TaskTracker::new();
        tokio::spawn(async move {
            let serve = move |client| converse(client, told.clone());
            server.run(listener, &tracker, &serving, serve).await;
        });
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.serving.cancel();
    }
}

async fn converse(mut client: Client, mut told: watch::Receiver<Vec<Told>>) {
    let mut next = None;
    loop {
        tokio::select! {
            () = client.token.cancelled() => return,
            frame = client.reader.read() => match frame {
                Ok(frame) if frame.is::<CoinbaseOutputConstraints>() => {
                    let all = told.borrow_and_update().clone();
                    let tip = all.iter().rposition(|told| matches!(told, Told::Tip(_)));
                    next = Some(tip.map_or(0, |tip| tip - 1));
                    told.mark_changed();
                }
                // Nobody asks for anything else that a test needs an answer to.
                Ok(_) => {}
                Err(_) => return,
            },
            changed = told.changed(), if next.is_some() => {
                if changed.is_err() {
                    return;
                }
                let all = told.borrow_and_update().clone();
                for told in &all[next.unwrap()..] {
                    say(&client.outbox, told);
                }
                next = Some(all.len());
            }
        }
    }
}

fn say(outbox: &Outbox, told: &Told) {
    // A client that is gone shows when it is read from.
    let _ = match told {
        Told::Template(template) => outbox.send(&**template),
        Told::Tip(tip) => outbox.send(&**tip),
    };
}

fn parts(template_id: u64) -> (NewTemplate, TemplateSetNewPrevHash) {
    let chain = RegtestChain::new(Network::Regtest, DEFAULT_BITS).unwrap();
    chain.template(template_id, now())
}
