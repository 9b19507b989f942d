//! A miner that selects its own work, played by the tests: one connection to the declarator, one to
//! the pool.

#![allow(clippy::unwrap_used, dead_code)]

pub(crate) mod coins;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::{CompactTarget, Target, Transaction, TxOut};
use dovetail_miner::coinbase::{JobCoinbase, job_outputs};
use dovetail_miner::declared_jobs::custom_job;
use dovetail_miner::pool_session::Channel;
use dovetail_miner::search::{Found, Search, SearchJob, meets};
use dovetail_miner::template_job::min_ntime;
use dovetail_sv2::messages::{
    AllocateMiningJobToken, AllocateMiningJobTokenSuccess, B016MOwned, B064KOwned,
    DeclareMiningJob, DeclareMiningJobError, DeclareMiningJobSuccess, OpenExtendedMiningChannel,
    OpenExtendedMiningChannelSuccess, ProvideMissingTransactions,
    ProvideMissingTransactionsSuccess, PushSolution, Seq064KOwned, SetCustomMiningJob,
    SetCustomMiningJobError, SetCustomMiningJobSuccess, Str0255Owned, SubmitSharesError,
    SubmitSharesExtended, SubmitSharesSuccess, U256Owned,
};
use dovetail_sv2::setup::{SetupProtocol, declaration_flags, mining_flags};
use dovetail_sv2::{
    AuthorityPublicKey, Frame, FrameReader, FrameWriter, Message, connect, negotiation, setup,
};
use dovetail_templates::WorkSnapshot;
use dovetail_tests::scenario::AUTHORITY_PUBLIC;
use tokio::time::timeout;

pub(crate) const TIME_MAX: Duration = Duration::from_secs(60);

/// A connection past its set-up.
pub(crate) struct Peer {
    reader: FrameReader,
    writer: FrameWriter,
    /// The numbers of the protocol's messages that have come.
    pub(crate) seen: BTreeSet<u8>,
}

impl Peer {
    pub(crate) async fn open(address: &str, protocol: SetupProtocol, flags: u32) -> Self {
        let authority: AuthorityPublicKey = AUTHORITY_PUBLIC.parse().unwrap();
        let (mut reader, mut writer) = connect(address, Some(authority)).await.unwrap();
        reader.set_payload_bytes_max(8 << 20);
        let request = setup::request(protocol, flags, address, "test").unwrap();
        setup::open(&mut reader, &mut writer, &request)
            .await
            .unwrap();
        Self {
            reader,
            writer,
            seen: BTreeSet::new(),
        }
    }

    /// Asks for an extension; whether it is granted.
    pub(crate) async fn negotiate(&mut self, extension_type: u16) -> bool {
        let asked = [extension_type];
        let granted = negotiation::request(&mut self.reader, &mut self.writer, &asked).await;
        granted.is_ok_and(|granted| granted == asked)
    }

    pub(crate) async fn send<M: Message>(&mut self, message: &M) {
        self.send_frame(&Frame::new(message).unwrap()).await;
    }

    pub(crate) async fn send_frame(&mut self, frame: &Frame) {
        self.writer.write(frame).await.unwrap();
    }

    pub(crate) async fn frame(&mut self) -> Frame {
        let frame = timeout(TIME_MAX, self.reader.read()).await.unwrap();
        let frame = frame.unwrap();
        if frame.extension_type == 0 {
            self.seen.insert(frame.message_type);
        }
        frame
    }

    /// The next message of this kind; others are passed over.
    pub(crate) async fn receive<M: Message>(&mut self) -> M {
        let searched = async {
            loop {
                let frame = self.frame().await;
                if frame.is::<M>() {
                    return frame.decode::<M>().unwrap().0;
                }
            }
        };
        // Others may come for ever.
        let found = timeout(TIME_MAX, searched).await;
        found.unwrap_or_else(|_| panic!("no message {:#04x} came", M::MESSAGE_TYPE))
    }
}

/// The declarator's side.
pub(crate) struct DeclaratorClient {
    pub(crate) peer: Peer,
    next_request_id: u32,
}

/// A token and the outputs that came with it.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) bytes: Vec<u8>,
    pub(crate) outputs: Vec<u8>,
}

impl DeclaratorClient {
    pub(crate) async fn full_template(address: &str) -> Self {
        Self::open(address, declaration_flags::DECLARE_TX_DATA).await
    }

    pub(crate) async fn coinbase_only(address: &str) -> Self {
        Self::open(address, 0).await
    }

    async fn open(address: &str, flags: u32) -> Self {
        let protocol = SetupProtocol::JobDeclarationProtocol;
        Self {
            peer: Peer::open(address, protocol, flags).await,
            next_request_id: 1,
        }
    }

    pub(crate) async fn token(&mut self, identity: &str) -> Token {
        let request_id = self.next_request_id;
        self.next_request_id += 1;
        let request = AllocateMiningJobToken {
            user_identifier: Str0255Owned::try_from(identity).unwrap(),
            request_id,
        };
        self.peer.send(&request).await;
        let success: AllocateMiningJobTokenSuccess = self.peer.receive().await;
        assert_eq!(success.request_id, request_id);
        Token {
            bytes: success.mining_job_token.into_bytes(),
            outputs: success.coinbase_outputs.into_bytes(),
        }
    }

    /// Declares a job; the token for the pool, or the code.
    pub(crate) async fn declare(&mut self, token: &Token, job: &Job) -> Result<Vec<u8>, String> {
        let request_id = self.next_request_id;
        self.next_request_id += 1;
        self.peer.send(&job.declaration(request_id, token)).await;
        loop {
            let frame = self.peer.frame().await;
            if frame.is::<ProvideMissingTransactions>() {
                let (missing, _) = frame.decode::<ProvideMissingTransactions>().unwrap();
                let list = missing
                    .unknown_tx_position_list
                    .as_slice()
                    .iter()
                    .map(|at| B016MOwned::new(job.transactions[usize::from(*at)].clone()).unwrap())
                    .collect();
                let answer = ProvideMissingTransactionsSuccess {
                    request_id,
                    transaction_list: Seq064KOwned::new(list).unwrap(),
                };
                self.peer.send(&answer).await;
            } else if frame.is::<DeclareMiningJobSuccess>() {
                let (success, _) = frame.decode::<DeclareMiningJobSuccess>().unwrap();
                return Ok(success.new_mining_job_token.into_bytes());
            } else {
                let (error, _) = frame.decode::<DeclareMiningJobError>().unwrap();
                return Err(format!(
                    "{} ({})",
                    error.error_code.as_utf8_or_hex(),
                    String::from_utf8_lossy(error.error_details.as_bytes())
                ));
            }
        }
    }
}

/// The pool's side: one extended channel.
pub(crate) struct Mining {
    pub(crate) peer: Peer,
    pub(crate) channel: Channel,
}

impl Mining {
    pub(crate) async fn open(address: &str, identity: &str) -> Self {
        Self::open_at(address, identity, HASH_RATE).await
    }

    /// The same, of a client that says that it hashes at this rate.
    pub(crate) async fn open_at(address: &str, identity: &str, nominal_hash_rate: f32) -> Self {
        let flags = mining_flags::REQUIRES_WORK_SELECTION;
        let peer = Peer::open(address, SetupProtocol::MiningProtocol, flags).await;
        Self::on(peer, identity, nominal_hash_rate).await
    }

    /// The same, of a client that hashes the pool's jobs.
    pub(crate) async fn open_plain(address: &str, identity: &str, nominal_hash_rate: f32) -> Self {
        let peer = Peer::open(address, SetupProtocol::MiningProtocol, 0).await;
        Self::on(peer, identity, nominal_hash_rate).await
    }

    /// Opens a channel on a connection.
    pub(crate) async fn on(mut peer: Peer, identity: &str, nominal_hash_rate: f32) -> Self {
        let channel = open_channel(&mut peer, identity, nominal_hash_rate).await;
        Self { peer, channel }
    }

    /// Opens another channel beside the one that there is.
    pub(crate) async fn another_channel(&mut self, identity: &str) -> Channel {
        open_channel(&mut self.peer, identity, HASH_RATE).await
    }

    /// The pool's number for the job, or the code.
    pub(crate) async fn set_custom_job(
        &mut self,
        message: &SetCustomMiningJob,
    ) -> Result<u32, String> {
        self.peer.send(message).await;
        loop {
            let frame = self.peer.frame().await;
            let asked = (message.channel_id, message.request_id);
            if frame.is::<SetCustomMiningJobSuccess>() {
                let (success, _) = frame.decode::<SetCustomMiningJobSuccess>().unwrap();
                assert_eq!((success.channel_id, success.request_id), asked);
                return Ok(success.job_id);
            }
            if frame.is::<SetCustomMiningJobError>() {
                let (error, _) = frame.decode::<SetCustomMiningJobError>().unwrap();
                assert_eq!((error.channel_id, error.request_id), asked);
                return Err(error.error_code.as_utf8_or_hex());
            }
        }
    }

    /// Hands in a share; the code if it is refused.
    pub(crate) async fn submit(
        &mut self,
        job_id: u32,
        job: &Job,
        found: &Found,
    ) -> Result<(), String> {
        let share = job.share(&self.channel, job_id, found);
        self.peer.send(&share).await;
        self.answer().await
    }

    /// The pool's answer to a share; the code if it is refused.
    pub(crate) async fn answer(&mut self) -> Result<(), String> {
        loop {
            let frame = self.peer.frame().await;
            if frame.is::<SubmitSharesSuccess>() {
                return Ok(());
            }
            if frame.is::<SubmitSharesError>() {
                let (error, _) = frame.decode::<SubmitSharesError>().unwrap();
                return Err(error.error_code.as_utf8_or_hex());
            }
        }
    }
}

/// What a client says that it hashes.
const HASH_RATE: f32 = 100_000.0;

async fn open_channel(peer: &mut Peer, identity: &str, nominal_hash_rate: f32) -> Channel {
    let request = OpenExtendedMiningChannel {
        request_id: 1,
        user_identity: Str0255Owned::try_from(identity).unwrap(),
        nominal_hash_rate,
        max_target: U256Owned::from([0xff; 32]),
        min_extranonce_size: 8,
    };
    peer.send(&request).await;
    let success: OpenExtendedMiningChannelSuccess = peer.receive().await;
    Channel {
        id: success.channel_id,
        target: *success.target.as_array(),
        extranonce_prefix: success.extranonce_prefix.into_bytes(),
        extranonce_size: usize::from(success.extranonce_size),
        group_id: success.group_channel_id,
    }
}

/// A job of the miner's own template.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) work: Arc<WorkSnapshot>,
    pub(crate) coinbase: JobCoinbase,
    pub(crate) transactions: Vec<Vec<u8>>,
}

impl Job {
    /// Pays the pool what the template is worth, after `change`.
    pub(crate) fn new(
        work: Arc<WorkSnapshot>,
        transactions: Vec<Vec<u8>>,
        token: &Token,
        channel: &Channel,
        change: impl FnOnce(&mut Vec<TxOut>),
    ) -> Self {
        let mut outputs = job_outputs(&work.template, &token.outputs, None).unwrap();
        change(&mut outputs);
        let size = channel.full_extranonce_size();
        Self {
            coinbase: JobCoinbase::new(&work.template, outputs, size).unwrap(),
            work,
            transactions,
        }
    }

    fn declaration(&self, request_id: u32, token: &Token) -> DeclareMiningJob {
        let wtxids = self
            .transactions
            .iter()
            .map(|raw| {
                let transaction: Transaction = deserialize(raw).unwrap();
                U256Owned::from(transaction.compute_wtxid().to_byte_array())
            })
            .collect();
        DeclareMiningJob {
            request_id,
            mining_job_token: token.bytes.clone().try_into().unwrap(),
            version: self.work.version(),
            coinbase_tx_prefix: B064KOwned::new(self.coinbase.prefix.clone()).unwrap(),
            coinbase_tx_suffix: B064KOwned::new(self.coinbase.suffix.clone()).unwrap(),
            wtxid_list: Seq064KOwned::new(wtxids).unwrap(),
            excess_data: B064KOwned::new(Vec::new()).unwrap(),
        }
    }

    /// The message for the pool.
    pub(crate) fn custom(&self, channel: &Channel, token: &[u8]) -> SetCustomMiningJob {
        let start = min_ntime(&self.work);
        let coinbase = &self.coinbase;
        custom_job(&self.work, channel, coinbase, token.to_vec(), 7, start).unwrap()
    }

    /// Hashes the job until a header meets the target.
    pub(crate) async fn search(&self, channel: &Channel, target: [u8; 32]) -> Found {
        let start = min_ntime(&self.work);
        self.search_from(channel, target, start).await
    }

    /// Hashes the job until a header meets the channel's target and does not solve the block: a block that is found by
    /// chance would move the chain's tip, and make the job stale.
    pub(crate) async fn search_share(&self, channel: &Channel) -> Found {
        self.search_no_block(channel, min_ntime(&self.work)).await
    }

    /// Hashes the job, from this time on, until a header meets the channel's target and does not solve the block.
    pub(crate) async fn search_no_block(&self, channel: &Channel, mut start: u32) -> Found {
        loop {
            let found = self.search_from(channel, channel.target, start).await;
            if !meets(&found.hash, &self.block_target()) {
                return found;
            }
            start = found.ntime + 1;
        }
    }

    /// The target of blocks.
    pub(crate) fn block_target(&self) -> [u8; 32] {
        let bits = CompactTarget::from_consensus(self.work.nbits());
        Target::from_compact(bits).to_le_bytes()
    }

    async fn search_from(&self, channel: &Channel, target: [u8; 32], start: u32) -> Found {
        let (prefix, suffix) = self.coinbase.stripped_parts();
        let search = SearchJob {
            version: self.work.version(),
            prev_hash: self.work.prev_hash(),
            min_ntime: start,
            nbits: self.work.nbits(),
            coinbase_prefix: [prefix, &channel.extranonce_prefix].concat(),
            coinbase_suffix: suffix.to_vec(),
            extranonce_size: channel.extranonce_size,
            merkle_path: self.work.merkle_path(),
            target,
        };
        let mut search = Search::start(search);
        timeout(TIME_MAX, search.found()).await.unwrap().unwrap()
    }

    /// The message that hands in a header.
    pub(crate) fn share(
        &self,
        channel: &Channel,
        job_id: u32,
        found: &Found,
    ) -> SubmitSharesExtended {
        SubmitSharesExtended {
            channel_id: channel.id,
            sequence_number: 1,
            job_id,
            nonce: found.nonce,
            ntime: found.ntime,
            version: self.work.version(),
            extranonce: found.extranonce.clone().try_into().unwrap(),
        }
    }

    /// What is pushed for a header that solves the block.
    pub(crate) fn solution(&self, channel: &Channel, found: &Found) -> PushSolution {
        let extranonce = [&channel.extranonce_prefix[..], &found.extranonce].concat();
        PushSolution {
            extranonce: extranonce.try_into().unwrap(),
            prev_hash: self.work.prev_hash().into(),
            nonce: found.nonce,
            ntime: found.ntime,
            nbits: self.work.nbits(),
            version: self.work.version(),
        }
    }
}
