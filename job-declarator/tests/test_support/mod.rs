//! A declarator in this process on the embedded chain and a real Postgres, and the miner's side of
//! its protocol.

#![allow(clippy::unwrap_used, dead_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness, transaction,
};
use dovetail_jd::config::Limits;
use dovetail_jd::node::Node;
use dovetail_jd::token::TokenKey;
use dovetail_jd::transactions::TransactionStore;
use dovetail_jd::{Declarator, Parts};
use dovetail_ledger::Ledger;
use dovetail_sv2::messages::{
    AllocateMiningJobToken, AllocateMiningJobTokenSuccess, B016MOwned, DeclareMiningJob,
    DeclareMiningJobError, DeclareMiningJobSuccess, ProvideMissingTransactions,
    ProvideMissingTransactionsSuccess, PushSolution, Seq064KOwned,
};
use dovetail_sv2::setup::{SetupProtocol, declaration_flags};
use dovetail_sv2::{
    AuthorityKeys, AuthoritySecretKey, Frame, FrameReader, FrameWriter, Message, connect, setup,
};
use dovetail_templates::block_publisher::{BlockPublisher, PublisherOptions};
use dovetail_templates::{Payout, SourceConfig, TemplateHandle, WorkSnapshot};
use dovetail_tests::postgres::Postgres;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const TIME_MAX: Duration = Duration::from_secs(20);
/// Half of all hashes are blocks.
const EASY_BITS: u32 = 0x207f_ffff;
pub(crate) const EXTRANONCE_LEN: usize = 16;

/// What differs from one test to the next.
pub(crate) struct Setting {
    pub(crate) limits: Limits,
    pub(crate) coinbase_only: bool,
    pub(crate) payout: Payout,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            coinbase_only: true,
            payout: payout(),
        }
    }
}

/// A declarator that serves.
pub(crate) struct Fixture {
    pub(crate) address: String,
    pub(crate) keys: AuthorityKeys,
    pub(crate) ledger: Ledger,
    pub(crate) templates: TemplateHandle,
    pub(crate) token_key: TokenKey,
    postgres: Postgres,
    database: String,
    _stop: DropGuard,
}

impl Fixture {
    pub(crate) async fn start(setting: Setting) -> Self {
        Self::start_with(setting, |templates| Arc::new(templates.clone())).await
    }

    /// With another node in front of the embedded chain.
    pub(crate) async fn start_with(
        setting: Setting,
        node: impl FnOnce(&TemplateHandle) -> Arc<dyn Node>,
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let home = dovetail_tests::root().join(".data").join("postgres");
        let postgres = Postgres::start(&home).unwrap();
        let database = format!("dovetail_jd_test_{}_{number}", std::process::id());
        let url = postgres.fresh_database(&database).unwrap();
        let ledger = Ledger::connect(&url, 8).await.unwrap();
        ledger.migrate().await.unwrap();
        let stop = CancellationToken::new();
        let config = SourceConfig::embedded_with_bits(EASY_BITS);
        let templates = dovetail_templates::start(config, stop.clone()).unwrap();
        let (blocks, _) = BlockPublisher::start(PublisherOptions {
            templates: templates.clone(),
            sinks: Vec::new(),
            dir: None,
            solves_templates: false,
            shutdown: stop.clone(),
        })
        .await;
        let keys = AuthorityKeys::from_secret(AuthoritySecretKey::generate());
        let token_key = TokenKey::from_bytes([7; 32]);
        let declarator = Declarator::new(Parts {
            keys,
            cert_validity_s: 3_600,
            identities: dovetail_sv2::IdentityRules {
                network: bitcoin::Network::Regtest,
                plain_names: true,
            },
            payout: setting.payout.clone(),
            token_key: token_key.clone(),
            coinbase_only: setting.coinbase_only,
            limits: setting.limits,
            ledger: ledger.clone(),
            node: node(&templates),
            blocks,
            transactions: TransactionStore::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(declarator.serve(listener, stop.clone()));
        Self {
            address,
            keys,
            ledger,
            templates,
            token_key,
            postgres,
            database,
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) async fn miner(&self) -> Miner {
        Miner::open(self, declaration_flags::DECLARE_TX_DATA).await
    }

    pub(crate) async fn coinbase_only_miner(&self) -> Miner {
        Miner::open(self, 0).await
    }

    pub(crate) fn work(&self) -> Arc<WorkSnapshot> {
        self.templates.current().unwrap()
    }

    pub(crate) fn query(&self, sql: &str) -> String {
        self.postgres.query(&self.database, sql).unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.postgres.drop_database(&self.database);
    }
}

pub(crate) fn payout_script() -> ScriptBuf {
    ScriptBuf::from(vec![0x51])
}

pub(crate) fn payout() -> Payout {
    Payout::one(payout_script())
}

/// A job as a miner builds it.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) work: Arc<WorkSnapshot>,
    pub(crate) coinbase: Transaction,
    pub(crate) version: u32,
    pub(crate) transactions: Vec<Vec<u8>>,
}

impl Job {
    /// The template's job, which pays the pool everything.
    pub(crate) fn of(work: Arc<WorkSnapshot>) -> Self {
        let mut script = work.template.coinbase_prefix.as_bytes().to_vec();
        script.extend_from_slice(&[0; EXTRANONCE_LEN]);
        let mut output = vec![TxOut {
            value: Amount::from_sat(work.coinbase_value_remaining_sat()),
            script_pubkey: payout_script(),
        }];
        output.extend(work.required_outputs());
        let coinbase = Transaction {
            version: transaction::Version(2),
            lock_time: LockTime::from_consensus(work.template.coinbase_tx_locktime),
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: ScriptBuf::from_bytes(script),
                sequence: Sequence(work.template.coinbase_tx_input_sequence),
                witness: Witness::from_slice(&[[0_u8; 32]]),
            }],
            output,
        };
        Self {
            version: work.version(),
            work,
            coinbase,
            transactions: Vec::new(),
        }
    }

    /// The message of the job.
    pub(crate) fn message(&self, request_id: u32, token: &[u8]) -> DeclareMiningJob {
        let bytes = serialize(&self.coinbase);
        let script = self.coinbase.input[0].script_sig.len();
        let at = 4 + 2 + 1 + 36 + 1 + script - EXTRANONCE_LEN;
        let wtxids = self
            .transactions
            .iter()
            .map(|raw| {
                let parsed: Transaction = bitcoin::consensus::deserialize(raw).unwrap();
                parsed.compute_wtxid().to_byte_array().into()
            })
            .collect();
        DeclareMiningJob {
            request_id,
            mining_job_token: token.to_vec().try_into().unwrap(),
            version: self.version,
            coinbase_tx_prefix: bytes[..at].to_vec().try_into().unwrap(),
            coinbase_tx_suffix: bytes[at + EXTRANONCE_LEN..].to_vec().try_into().unwrap(),
            wtxid_list: Seq064KOwned::new(wtxids).unwrap(),
            excess_data: vec![].try_into().unwrap(),
        }
    }

    /// A solution of the job, found by hashing.
    pub(crate) fn solve(&self) -> PushSolution {
        let extranonce = [9; EXTRANONCE_LEN];
        let mut coinbase = self.coinbase.clone();
        let mut script = coinbase.input[0].script_sig.to_bytes();
        let at = script.len() - EXTRANONCE_LEN;
        script[at..].copy_from_slice(&extranonce);
        coinbase.input[0].script_sig = script.into();
        let root = self
            .work
            .merkle_root(coinbase.compute_txid().to_byte_array());
        let mut header = Header {
            version: Version::from_consensus(self.version.cast_signed()),
            prev_blockhash: BlockHash::from_byte_array(self.work.prev_hash()),
            merkle_root: TxMerkleNode::from_byte_array(root),
            time: self.work.min_ntime(),
            bits: CompactTarget::from_consensus(self.work.nbits()),
            nonce: 0,
        };
        while header.validate_pow(header.target()).is_err() {
            header.nonce += 1;
        }
        PushSolution {
            extranonce: extranonce.to_vec().try_into().unwrap(),
            prev_hash: self.work.prev_hash().into(),
            nonce: header.nonce,
            ntime: header.time,
            nbits: self.work.nbits(),
            version: self.version,
        }
    }
}

/// A miner's connection, past its set-up.
pub(crate) struct Miner {
    pub(crate) reader: FrameReader,
    pub(crate) writer: FrameWriter,
    next_request_id: u32,
}

impl Miner {
    pub(crate) async fn open(fixture: &Fixture, flags: u32) -> Self {
        Self::try_open(fixture, flags).await.unwrap()
    }

    pub(crate) async fn try_open(fixture: &Fixture, flags: u32) -> Result<Self, setup::SetupError> {
        let authority = Some(fixture.keys.public());
        let (mut reader, mut writer) = connect(&fixture.address, authority).await?;
        let protocol = SetupProtocol::JobDeclarationProtocol;
        let request = setup::request(protocol, flags, &fixture.address, "test")?;
        setup::open(&mut reader, &mut writer, &request).await?;
        Ok(Self {
            reader,
            writer,
            next_request_id: 1,
        })
    }

    pub(crate) async fn send<M: Message>(&mut self, message: &M) {
        self.writer
            .write(&Frame::new(message).unwrap())
            .await
            .unwrap();
    }

    pub(crate) async fn frame(&mut self) -> Frame {
        timeout(TIME_MAX, self.reader.read())
            .await
            .unwrap()
            .unwrap()
    }

    pub(crate) async fn receive<M: Message>(&mut self) -> M {
        let frame = self.frame().await;
        frame.decode::<M>().unwrap().0
    }

    pub(crate) async fn ask_for_token(&mut self, identity: &str) -> u32 {
        let request_id = self.request_id();
        self.send(&AllocateMiningJobToken {
            user_identifier: identity.try_into().unwrap(),
            request_id,
        })
        .await;
        request_id
    }

    pub(crate) async fn token(&mut self, identity: &str) -> Vec<u8> {
        let request_id = self.ask_for_token(identity).await;
        let success: AllocateMiningJobTokenSuccess = self.receive().await;
        assert_eq!(success.request_id, request_id);
        success.mining_job_token.into_bytes()
    }

    /// Declares a job with a fresh token and answers what it is asked; the new token, or the code.
    pub(crate) async fn declare(&mut self, identity: &str, job: &Job) -> Result<Vec<u8>, String> {
        let token = self.token(identity).await;
        self.declare_with(&token, job).await
    }

    pub(crate) async fn declare_with(
        &mut self,
        token: &[u8],
        job: &Job,
    ) -> Result<Vec<u8>, String> {
        let request_id = self.request_id();
        self.send(&job.message(request_id, token)).await;
        self.outcome(request_id, job).await
    }

    pub(crate) async fn outcome(&mut self, request_id: u32, job: &Job) -> Result<Vec<u8>, String> {
        loop {
            let frame = self.frame().await;
            if frame.is::<ProvideMissingTransactions>() {
                let (missing, _) = frame.decode::<ProvideMissingTransactions>().unwrap();
                assert_eq!(missing.request_id, request_id);
                self.provide(request_id, job, missing.unknown_tx_position_list.as_slice())
                    .await;
            } else if frame.is::<DeclareMiningJobSuccess>() {
                let (success, _) = frame.decode::<DeclareMiningJobSuccess>().unwrap();
                assert_eq!(success.request_id, request_id);
                return Ok(success.new_mining_job_token.into_bytes());
            } else {
                let (error, _) = frame.decode::<DeclareMiningJobError>().unwrap();
                assert_eq!(error.request_id, request_id);
                return Err(error.error_code.as_utf8_or_hex());
            }
        }
    }

    async fn provide(&mut self, request_id: u32, job: &Job, positions: &[u16]) {
        let list = positions
            .iter()
            .map(|position| {
                B016MOwned::new(job.transactions[usize::from(*position)].clone()).unwrap()
            })
            .collect();
        self.send(&ProvideMissingTransactionsSuccess {
            request_id,
            transaction_list: Seq064KOwned::new(list).unwrap(),
        })
        .await;
    }

    /// Waits until the other side hangs up.
    pub(crate) async fn hung_up(&mut self) {
        let drain = async { while self.reader.read().await.is_ok() {} };
        timeout(TIME_MAX, drain).await.unwrap();
    }

    pub(crate) fn request_id(&mut self) -> u32 {
        let id = self.next_request_id;
        self.next_request_id += 1;
        id
    }
}

/// A transaction that spends what nobody has.
pub(crate) fn spend(number: u32) -> Vec<u8> {
    serialize(&Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(bitcoin::Txid::from_byte_array([7; 32]), number),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(1),
            script_pubkey: payout_script(),
        }],
    })
}
