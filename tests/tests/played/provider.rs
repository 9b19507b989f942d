//! The template provider: it tells every client what the test told it, from the newest tip on.

use std::time::Duration;

use bitcoin::Network;
use dovetail_sv2::messages::{
    CoinbaseOutputConstraints, NewTemplate, RequestTransactionData, RequestTransactionDataError,
    TemplateSetNewPrevHash,
};
use dovetail_sv2::server::{Client, Server};
use dovetail_sv2::setup::{ServerPolicy, SetupProtocol};
use dovetail_sv2::{AuthorityKeys, Outbox, PlaceLimits};
use dovetail_templates::{DEFAULT_BITS, RegtestChain};
use dovetail_tests::free_port;
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
    /// What no provider says. Clients that come later do not hear it.
    Odd(Box<Odd>),
}

/// Messages that make no sense.
#[derive(Clone)]
pub(crate) enum Odd {
    Template(NewTemplate),
    Tip(TemplateSetNewPrevHash),
    /// An answer that nobody asked for.
    NoTransactions(RequestTransactionDataError),
    /// A client's message.
    Constraints(CoinbaseOutputConstraints),
}

/// What was told, and where the newest tip is in it.
#[derive(Clone, Default)]
struct Story {
    told: Vec<Told>,
    newest_tip: usize,
}

/// A provider that serves. Dropping it ends it.
pub(crate) struct Provider {
    pub(crate) address: String,
    pub(crate) keys: AuthorityKeys,
    told: watch::Sender<Story>,
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
        // It leaves and comes back: nobody may take its port meanwhile.
        let port = free_port().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let provider = Self {
            address: listener.local_addr().unwrap().to_string(),
            keys: AuthorityKeys::generate(),
            told: watch::channel(Story::default()).0,
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
        let told = [Told::Template(Box::new(template)), Told::Tip(tip)];
        self.told.send_modify(|story| {
            story.newest_tip = story.told.len();
            story.told.extend(told);
        });
    }

    /// The next template and the tip, for a test to make something odd of them.
    pub(crate) fn parts(&mut self) -> (NewTemplate, TemplateSetNewPrevHash) {
        (self.next_template(), self.tip.clone())
    }

    /// Tells something odd.
    pub(crate) fn odd(&self, odd: Odd) {
        self.tell(Told::Odd(Box::new(odd)));
    }

    /// The tip that was told last.
    pub(crate) fn tip_now(&self) -> &TemplateSetNewPrevHash {
        &self.tip
    }

    /// Tells a template on the tip, with these changes.
    pub(crate) fn template(&mut self, change: impl FnOnce(&mut NewTemplate)) {
        let mut template = self.next_template();
        change(&mut template);
        self.tell(Told::Template(Box::new(template)));
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
        let mut template = parts(self.next_id).0;
        self.next_id += 1;
        template.version = self.newest_version();
        template
    }

    /// The version of the newest template: each has its own.
    pub(crate) fn newest_version(&self) -> u32 {
        let number = u32::try_from(self.next_id - 1).unwrap();
        0x2000_0000 | (number << 13)
    }

    fn tell(&self, told: Told) {
        self.told.send_modify(|story| story.told.push(told));
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

async fn converse(mut client: Client, mut told: watch::Receiver<Story>) {
    let mut next = None;
    let mut heard_later = 0;
    loop {
        tokio::select! {
            () = client.token.cancelled() => return,
            frame = client.reader.read() => match frame {
                Ok(frame) if frame.is::<CoinbaseOutputConstraints>() => {
                    let story = told.borrow_and_update().clone();
                    next = Some(story.newest_tip);
                    heard_later = story.told.len();
                    told.mark_changed();
                }
                Ok(frame) if frame.is::<RequestTransactionData>() => {
                    let (request, _) = frame.decode::<RequestTransactionData>().unwrap();
                    let _ = client.outbox.send(&RequestTransactionDataError {
                        template_id: request.template_id,
                        error_code: "no-word-of-the-protocol".try_into().unwrap(),
                    });
                }
                // Nobody asks for anything else that a test needs an answer to.
                Ok(_) => {}
                Err(_) => return,
            },
            changed = told.changed(), if next.is_some() => {
                if changed.is_err() {
                    return;
                }
                let story = told.borrow_and_update().clone();
                for (number, told) in story.told.iter().enumerate().skip(next.unwrap()) {
                    if number >= heard_later || !matches!(told, Told::Odd(_)) {
                        say(&client.outbox, told);
                    }
                }
                next = Some(story.told.len());
            }
        }
    }
}

fn say(outbox: &Outbox, told: &Told) {
    // A client that is gone shows when it is read from.
    let _ = match told {
        Told::Template(template) => outbox.send(&**template),
        Told::Tip(tip) => outbox.send(&**tip),
        Told::Odd(odd) => match &**odd {
            Odd::Template(template) => outbox.send(template),
            Odd::Tip(tip) => outbox.send(tip),
            Odd::NoTransactions(error) => outbox.send(error),
            Odd::Constraints(constraints) => outbox.send(constraints),
        },
    };
}

fn parts(template_id: u64) -> (NewTemplate, TemplateSetNewPrevHash) {
    let chain = RegtestChain::new(Network::Regtest, DEFAULT_BITS).unwrap();
    chain.template(template_id, now())
}
