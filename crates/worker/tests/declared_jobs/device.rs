//! The device that the tests play.

use std::net::SocketAddr;

use dovetail_miner::search::{Search, SearchJob};
use dovetail_sv2::AuthorityPublicKey;
use dovetail_sv2::messages::{
    B032Owned, NewExtendedMiningJob, OpenExtendedMiningChannel, OpenExtendedMiningChannelSuccess,
    SetNewPrevHash, Str0255Owned, SubmitSharesExtended, SubmitSharesSuccess, U256Owned,
};
use dovetail_sv2::setup::SetupProtocol;
use tokio::time::timeout;

use crate::support::declarator::payout_script;
use crate::support::fixture::TIME_MAX;
use crate::support::pool::POOLS;
use crate::support::{Played, easy_target};

/// A device that opens a channel and looks at its jobs.
pub(crate) struct Device {
    played: Played,
    channel: OpenExtendedMiningChannelSuccess,
    future: Option<NewExtendedMiningJob>,
    tip: Option<SetNewPrevHash>,
}

impl Device {
    pub(crate) async fn connect((address, key): (SocketAddr, AuthorityPublicKey)) -> Self {
        let address = address.to_string();
        let connected = dovetail_sv2::connect(&address, Some(key)).await;
        let (mut reader, mut writer) = connected.unwrap();
        let protocol = SetupProtocol::MiningProtocol;
        let request = dovetail_sv2::setup::request(protocol, 0, &address, "test").unwrap();
        dovetail_sv2::setup::open(&mut reader, &mut writer, &request)
            .await
            .unwrap();
        let mut played = Played {
            authority: key,
            reader,
            writer,
        };
        let open = OpenExtendedMiningChannel {
            request_id: 1,
            user_identity: Str0255Owned::try_from("device").unwrap(),
            nominal_hash_rate: 1_000.0,
            max_target: U256Owned::from([0xff; 32]),
            min_extranonce_size: 4,
        };
        played.send(&open).await;
        let channel = played.expect().await;
        Self {
            played,
            channel,
            future: None,
            tip: None,
        }
    }

    /// The next job that it is to hash.
    pub(crate) async fn job(&mut self) -> NewExtendedMiningJob {
        let next = async {
            loop {
                let frame = self.played.reader.read().await.unwrap();
                if frame.is::<NewExtendedMiningJob>() {
                    let (job, _) = frame.decode::<NewExtendedMiningJob>().unwrap();
                    match job.min_ntime.as_ref().is_some() {
                        true => return job,
                        false => self.future = Some(job),
                    }
                } else if frame.is::<SetNewPrevHash>() {
                    self.tip = Some(frame.decode().unwrap().0);
                    return self.future.take().unwrap();
                }
            }
        };
        timeout(TIME_MAX, next)
            .await
            .expect("the device got no job")
    }

    pub(crate) async fn our_job(&mut self) -> NewExtendedMiningJob {
        let job = self.job().await;
        let suffix = hex::encode(job.coinbase_tx_suffix.as_bytes());
        assert!(suffix.contains(&payout_script().to_hex_string()), "{job:?}");
        job
    }

    pub(crate) async fn pools_job(&mut self) {
        let job = self.job().await;
        assert!(
            job.coinbase_tx_suffix.as_bytes().ends_with(&POOLS),
            "{job:?}"
        );
    }

    pub(crate) fn tip(&self) -> [u8; 32] {
        self.tip.as_ref().unwrap().prev_hash.to_array()
    }

    /// Finds a share that is worth the pool's while, and hands it in.
    pub(crate) async fn find_share(&mut self, job: &NewExtendedMiningJob) -> u32 {
        let tip = self.tip.as_ref().unwrap();
        let prefix = job.coinbase_tx_prefix.as_bytes();
        let mut search = Search::start(SearchJob {
            version: job.version,
            prev_hash: tip.prev_hash.to_array(),
            min_ntime: job.min_ntime.as_ref().copied().unwrap_or(tip.min_ntime),
            nbits: tip.nbits,
            coinbase_prefix: [prefix, self.channel.extranonce_prefix.as_bytes()].concat(),
            coinbase_suffix: job.coinbase_tx_suffix.to_owned_bytes(),
            extranonce_size: usize::from(self.channel.extranonce_size),
            merkle_path: job.merkle_path.iter().map(U256Owned::to_array).collect(),
            target: easy_target(),
        });
        let found = search.found().await.unwrap();
        let share = SubmitSharesExtended {
            channel_id: self.channel.channel_id,
            sequence_number: 1,
            job_id: job.job_id,
            nonce: found.nonce,
            ntime: found.ntime,
            version: job.version,
            extranonce: B032Owned::new(found.extranonce).unwrap(),
        };
        self.played.send(&share).await;
        let answer = self.played.reader.read().await.unwrap();
        assert!(answer.is::<SubmitSharesSuccess>(), "{answer:?}");
        found.nonce
    }
}
