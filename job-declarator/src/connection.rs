//! One miner's connection: a task that owns its tokens, its declarations under way and the jobs that
//! it may still solve. What takes time runs in tasks of the connection's, a few at most, which end
//! with it; so a slow declaration delays neither the miner's other messages nor anybody else's.

use std::collections::{HashSet, VecDeque};
use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use bitcoin::consensus::serialize;
use dovetail_sv2::extension::EXTENSION_TYPE;
use dovetail_sv2::messages::{
    AllocateMiningJobToken, AllocateMiningJobTokenSuccess, B064KOwned, B0255Owned,
    DeclareMiningJob, DeclareMiningJobError, DeclareMiningJobSuccess, ProvideMissingTransactions,
    ProvideMissingTransactionsSuccess, PushSolution, RequestExtensions, Seq064KOwned, Str0255Owned,
};
use dovetail_sv2::negotiation;
use dovetail_sv2::server::Client;
use dovetail_sv2::setup::declaration_flags;
use dovetail_sv2::{EndReason, Frame, FrameReader, Message, Outbox, Place};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::assembly::{Assemblies, Assembly};
use crate::refusal::Refusal;
use crate::rules::{Declaration, WholeJob};
use crate::shared::Shared;
use crate::solution::solve;
use crate::token_book::TokenBook;

/// Declarations of one connection that are worked on at once; more would only wait for its one turn
/// at the node.
const BACKGROUND_MAX: usize = 4;
/// Declarations and token requests of one connection that wait for that. Miners declare every few
/// seconds at most; up to 0.6 MB each.
const QUEUE_MAX: usize = 12;
/// Jobs of one connection that a pushed solution is looked for among. Templates come every few
/// seconds at most, and a solution is pushed at once.
const SOLVABLE_MAX: usize = 8;
/// A connection that says nothing for this long is closed; miners declare every few minutes.
const SILENCE_MAX: Duration = Duration::from_secs(3_600);

/// The first tokens of a connection in coinbase-only mode wait this long after its set-up.
/// `jd_client_sv2` 0.6 throws one away for each tip that it hears of before it has a channel at the
/// pool, and it hears of its first tip right after it asked; with none left it asks for no more.
const FIRST_TOKENS_AFTER: Duration = Duration::from_secs(1);

/// What takes time.
type Background = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// As many tasks and waiting ones as a connection may have.
#[derive(Debug)]
struct TooMuch;

/// What a task of the connection's comes back with.
enum Outcome {
    Allowed {
        request_id: u32,
        account: String,
    },
    Checked {
        request_id: u32,
        wtxids: Vec<[u8; 32]>,
        declaration: Result<Box<Declaration>, Refusal>,
    },
    Accepted {
        request_id: u32,
        job: Result<Box<WholeJob>, Refusal>,
    },
}

/// The connection's state. Nobody else holds any of it.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    outbox: Outbox,
    place: Arc<Place>,
    /// Whether the miner reveals its transactions (`DECLARE_TX_DATA`).
    full_template: bool,
    /// Whether it was granted the extension: it takes outputs that are paid beside the pool's.
    has_extension: bool,
    tokens: TokenBook,
    opened: Instant,
    /// Dropping it ends the tasks.
    background: JoinSet<Outcome>,
    queue: VecDeque<Background>,
    /// The connection's one turn at the node.
    turn: Arc<Semaphore>,
    assemblies: Assemblies,
    solvable: VecDeque<Arc<WholeJob>>,
    submitted: Option<BlockHash>,
}

/// Serves one miner to its end.
pub(crate) async fn serve(shared: Arc<Shared>, client: Client) {
    let full_template = client.flags & declaration_flags::DECLARE_TX_DATA != 0;
    let mut connection = Connection::new(shared, client.outbox, client.place, full_template);
    match connection.run(client.reader, &client.token).await {
        EndReason::Closed => tracing::debug!("declaration client gone"),
        reason => tracing::warn!(%reason, "a declaration client was dropped"),
    }
}

impl Connection {
    fn new(shared: Arc<Shared>, outbox: Outbox, place: Arc<Place>, full_template: bool) -> Self {
        let tokens = TokenBook::new(
            Duration::from_secs(shared.limits.token_lifetime_s),
            shared.limits.tokens_per_minute,
        );
        Self {
            shared,
            outbox,
            place,
            full_template,
            has_extension: false,
            tokens,
            opened: Instant::now(),
            background: JoinSet::new(),
            queue: VecDeque::new(),
            turn: Arc::new(Semaphore::new(1)),
            assemblies: Assemblies::default(),
            solvable: VecDeque::new(),
            submitted: None,
        }
    }

    async fn run(&mut self, mut reader: FrameReader, token: &CancellationToken) -> EndReason {
        loop {
            let step = tokio::select! {
                () = token.cancelled() => return EndReason::Closed,
                Some(done) = self.background.join_next() => match done {
                    Ok(outcome) => {
                        if let Some(next) = self.queue.pop_front() {
                            self.background.spawn(next);
                        }
                        self.on_outcome(outcome)
                    }
                    Err(_) => Err(EndReason::Fault("a declaration did not come to its end")),
                },
                // Always: the end of the connection has to be heard at once.
                frame = timeout(SILENCE_MAX, reader.read()) => match frame {
                    Ok(Ok(frame)) => self.on_frame(&frame),
                    _ => return EndReason::Closed,
                },
            };
            if let Err(ended) = step {
                return ended;
            }
        }
    }

    /// Has it done now or soon.
    fn take_on(
        &mut self,
        work: impl Future<Output = Outcome> + Send + 'static,
    ) -> Result<(), TooMuch> {
        if self.background.len() < BACKGROUND_MAX {
            self.background.spawn(work);
        } else if self.queue.len() < QUEUE_MAX {
            self.queue.push_back(Box::pin(work));
        } else {
            return Err(TooMuch);
        }
        Ok(())
    }

    fn on_frame(&mut self, frame: &Frame) -> Result<(), EndReason> {
        if frame.is::<RequestExtensions>() {
            return self.on_negotiation(&frame.message()?);
        }
        if frame.extension_type != 0 {
            // Unknown extensions are discarded; the connection stays (3.4.1).
            return Ok(());
        }
        if frame.is::<AllocateMiningJobToken>() {
            self.on_allocate(&frame.message()?)
        } else if frame.is::<DeclareMiningJob>() {
            self.on_declare(frame.message()?)
        } else if frame.is::<ProvideMissingTransactionsSuccess>() {
            self.on_transactions(frame.message()?)
        } else if frame.is::<PushSolution>() {
            self.on_solution(&frame.message()?);
            Ok(())
        } else {
            Err(EndReason::Protocol("a message that miners do not send"))
        }
    }

    /// Our extension has no messages here: it says that the miner takes tokens with outputs that are paid beside the pool's.
    fn on_negotiation(&mut self, request: &RequestExtensions) -> Result<(), EndReason> {
        match negotiation::answer(request, &[EXTENSION_TYPE], &[]) {
            Ok(granted) => {
                let granted_ours = granted.supported_extensions.as_slice();
                self.has_extension = granted_ours.contains(&EXTENSION_TYPE);
                self.send(&granted)
            }
            Err(refused) => self.send(&refused),
        }
    }

    /// The protocol has no refusal here: who asks too often alone is dropped, and where all
    /// together do, the answer waits. Who asks while there is nothing to declare is dropped too, so that
    /// their own fallback can act.
    fn on_allocate(&mut self, message: &AllocateMiningJobToken) -> Result<(), EndReason> {
        if self.shared.rules.node.is_stale() {
            return Err(EndReason::NoWork);
        }
        let account = self.account(&message.user_identifier.as_utf8_or_hex())?;
        self.tokens
            .count(Instant::now())
            .map_err(|_| EndReason::Protocol("too many tokens in a minute"))?;
        let (shared, request_id) = (Arc::clone(&self.shared), message.request_id);
        let pause = match self.full_template {
            true => Duration::ZERO,
            false => FIRST_TOKENS_AFTER.saturating_sub(self.opened.elapsed()),
        };
        if pause.is_zero() && shared.total.take(Instant::now()).is_ok() {
            return self.grant(request_id, account);
        }
        self.take_on(async move {
            tokio::time::sleep(pause).await;
            while let Err(wait) = shared.total.take(Instant::now()) {
                tokio::time::sleep(wait.max(Duration::from_millis(10))).await;
            }
            Outcome::Allowed {
                request_id,
                account,
            }
        })
        .map_err(|_| EndReason::Protocol("too many requests at once"))
    }

    /// The account of an identity. The protocol has no refusal here either: the reason is for the operator, who can
    /// tell the miner.
    fn account(&self, identity: &str) -> Result<String, EndReason> {
        match self.shared.identities.admit(identity) {
            Ok(identity) => Ok(identity.account().to_owned()),
            Err(refusal) => {
                tracing::warn!(identity, %refusal, "a miner's identity was refused");
                Err(EndReason::Protocol(
                    "an identity that nobody can be paid by",
                ))
            }
        }
    }

    fn on_declare(&mut self, message: DeclareMiningJob) -> Result<(), EndReason> {
        let request_id = message.request_id;
        let token = message.mining_job_token.as_bytes();
        if !self.full_template {
            return self.refuse(request_id, &Refusal::CoinbaseOnly);
        }
        if self.shared.rules.node.is_stale() {
            return self.refuse(request_id, &Refusal::SourceAway);
        }
        let Some(account) = self.tokens.spend(token, Instant::now()) else {
            return self.refuse(request_id, &Refusal::Token);
        };
        let wtxids: Vec<[u8; 32]> = message
            .wtxid_list
            .as_slice()
            .iter()
            .map(|wtxid| *wtxid.as_array())
            .collect();
        if wtxids.len() > crate::transactions::TRANSACTIONS_MAX {
            return self.refuse(request_id, &Refusal::List("is too long for a block"));
        }
        if wtxids.iter().collect::<HashSet<_>>().len() != wtxids.len() {
            return self.refuse(request_id, &Refusal::List("repeats a transaction"));
        }
        let shared = Arc::clone(&self.shared);
        let version = message.version;
        let prefix = message.coinbase_tx_prefix.to_owned_bytes();
        let suffix = message.coinbase_tx_suffix.to_owned_bytes();
        let taken = self.take_on(async move {
            let checked = shared.rules.check_message(account, prefix, suffix, version);
            Outcome::Checked {
                request_id,
                wtxids,
                declaration: checked.await.map(Box::new),
            }
        });
        match taken {
            Ok(()) => Ok(()),
            Err(TooMuch) => self.refuse(request_id, &Refusal::Busy),
        }
    }

    fn on_transactions(
        &mut self,
        message: ProvideMissingTransactionsSuccess,
    ) -> Result<(), EndReason> {
        // An answer to nothing, or to a declaration that was replaced and refused.
        let Some(mut assembly) = self.assemblies.take(message.request_id) else {
            return Ok(());
        };
        let given = message
            .transaction_list
            .into_inner()
            .into_iter()
            .map(dovetail_sv2::messages::B016MOwned::into_bytes)
            .collect();
        match assembly.provide(given, &self.shared.transactions) {
            Ok(()) => self.accept(assembly),
            Err(refusal) => self.refuse(message.request_id, &refusal),
        }
    }

    /// Tries the solution on the last jobs: the message names none. The block is submitted whatever
    /// becomes of this connection.
    fn on_solution(&mut self, message: &PushSolution) {
        let solved = self
            .solvable
            .iter()
            .rev()
            .find_map(|job| solve(job, message));
        let Some(block) = solved else {
            return tracing::info!(
                full_template = self.full_template,
                "a solution was pushed that solves no declared job of its connection"
            );
        };
        let block = match block {
            Ok(block) => block,
            Err(broken) => return self.shared.blocks.keep(broken),
        };
        if self.submitted.replace(block.hash()) != Some(block.hash()) {
            tracing::info!(hash = %block.hash(), "a declared block was pushed");
            // The pool notes what comes of it: the share comes to it too.
            self.shared.blocks.publish(block);
        }
    }

    fn on_outcome(&mut self, outcome: Outcome) -> Result<(), EndReason> {
        match outcome {
            Outcome::Allowed {
                request_id,
                account,
            } => self.grant(request_id, account),
            Outcome::Checked {
                request_id,
                wtxids,
                declaration: Ok(declaration),
            } => self.look_up(Assembly::new(
                request_id,
                *declaration,
                wtxids,
                &self.shared.transactions,
            )),
            Outcome::Accepted {
                request_id,
                job: Ok(job),
            } => self.confirm(request_id, *job),
            Outcome::Checked {
                request_id,
                declaration: Err(refusal),
                ..
            }
            | Outcome::Accepted {
                request_id,
                job: Err(refusal),
            } => self.refuse(request_id, &refusal),
        }
    }

    /// A token, and the outputs that jobs under it have: the pool's script for the next block, value 0, which jobs of the
    /// blocks after it may have too; and those of the payout list of now.
    fn grant(&mut self, request_id: u32, account: String) -> Result<(), EndReason> {
        let token = if self.full_template {
            self.tokens.grant(account, Instant::now()).to_vec()
        } else {
            self.shared.rules.coinbase_only_token(&account).to_bytes()
        };
        let outputs = self.shared.rules.outputs(self.has_extension);
        self.send(&AllocateMiningJobTokenSuccess {
            request_id,
            mining_job_token: field::<B0255Owned>(token)?,
            coinbase_outputs: field::<B064KOwned>(serialize(&outputs))?,
        })
    }

    /// Asks for the transactions that nobody has shown yet.
    fn look_up(&mut self, assembly: Assembly) -> Result<(), EndReason> {
        let missing = assembly.missing();
        if missing.is_empty() {
            return self.accept(assembly);
        }
        let request_id = assembly.request_id;
        if let Some(replaced) = self.assemblies.put(assembly) {
            self.refuse(replaced, &Refusal::Replaced)?;
        }
        self.send(&ProvideMissingTransactions {
            request_id,
            unknown_tx_position_list: Seq064KOwned::new(missing).map_err(EndReason::encode)?,
        })
    }

    fn accept(&mut self, assembly: Assembly) -> Result<(), EndReason> {
        let request_id = assembly.request_id;
        let (declaration, transactions) = match assembly.complete() {
            Ok(complete) => complete,
            Err(refusal) => return self.refuse(request_id, &refusal),
        };
        let (shared, turn) = (Arc::clone(&self.shared), Arc::clone(&self.turn));
        let taken = self.take_on(async move {
            let accepted = shared.rules.accept(declaration, transactions, &turn);
            Outcome::Accepted {
                request_id,
                job: accepted.await.map(Box::new),
            }
        });
        match taken {
            Ok(()) => Ok(()),
            Err(TooMuch) => self.refuse(request_id, &Refusal::Busy),
        }
    }

    fn confirm(&mut self, request_id: u32, whole: WholeJob) -> Result<(), EndReason> {
        let job = &whole.job;
        tracing::info!(
            account = job.identity,
            root = ?job.batch_root,
            transactions = job.txids.len(),
            "job declared"
        );
        // A job that the node takes for a block cannot be had without a node.
        self.place.prove();
        let token = job.token.clone();
        if self.solvable.len() >= SOLVABLE_MAX {
            self.solvable.pop_front();
        }
        self.solvable.push_back(Arc::new(whole));
        self.send(&DeclareMiningJobSuccess {
            request_id,
            new_mining_job_token: field::<B0255Owned>(token)?,
        })
    }

    fn refuse(&self, request_id: u32, refusal: &Refusal) -> Result<(), EndReason> {
        let (code, details) = (refusal.code(), refusal.to_string());
        if refusal.is_ours() {
            tracing::error!(code, details, "declaration not checked");
        } else {
            tracing::info!(code, details, "declaration refused");
        }
        self.send(&DeclareMiningJobError {
            request_id,
            error_code: field::<Str0255Owned>(code.as_bytes().to_vec())?,
            error_details: field::<B064KOwned>(details.into_bytes())?,
        })
    }

    fn send<M: Message>(&self, message: &M) -> Result<(), EndReason> {
        Ok(self.outbox.send(message)?)
    }
}

fn field<T: TryFrom<Vec<u8>, Error: Display>>(bytes: Vec<u8>) -> Result<T, EndReason> {
    T::try_from(bytes).map_err(EndReason::encode)
}
