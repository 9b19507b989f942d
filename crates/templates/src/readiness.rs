//! Whether a source gives work, and of the right network: what a daemon waits for before it calls itself ready, and
//! what it says meanwhile.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bitcoin::{CompactTarget, Network, Target};
use tokio::time::{Instant, timeout};

use crate::error::TemplateError;
use crate::handle::TemplateHandle;
use crate::snapshot::WorkSnapshot;
use crate::source::{NodeInfo, node_info};

/// When it is said why a source gives no work.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// This long after the start, or after a change of the reason that may be gone in a moment.
    first: Duration,
    /// And again this often.
    interval: Duration,
}

/// A local node connects in far less than three seconds.
const PACE: Pace = Pace {
    first: Duration::from_secs(3),
    interval: Duration::from_secs(60),
};

/// How often a node is asked what it is before it counts as one that does not say, and the pause in between.
const QUESTIONS_MAX: u32 = 3;
const QUESTION_PAUSE: Duration = Duration::from_millis(500);

/// What stands behind a handle.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// A chain of our own, of this network.
    Chain(Network),
    /// A Bitcoin Core behind this socket.
    Node(PathBuf),
    /// A template provider, whose protocol has no word for its network.
    Provider,
}

/// How a source stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not tried yet, or just lost.
    Connecting,
    /// The last attempt failed for this reason.
    Unreachable(String),
    Connected,
}

impl TemplateHandle {
    /// Returns once the source has given work and everything that can be compared says that it is of `network`.
    /// `not_ready` hears why it is not so yet: soon after the start, when the reason changes, and every minute.
    /// Cancellation-safe.
    ///
    /// # Errors
    /// [`TemplateError::WrongNetwork`], [`TemplateError::Stopped`].
    pub async fn ready(
        &self,
        network: Network,
        not_ready: impl FnMut(&str),
    ) -> Result<(), TemplateError> {
        self.ready_at(PACE, network, not_ready).await
    }

    async fn ready_at(
        &self,
        pace: Pace,
        network: Network,
        mut not_ready: impl FnMut(&str),
    ) -> Result<(), TemplateError> {
        let mut is_compared = false;
        let mut words = Words::new(pace);
        loop {
            let standing = self.standing().borrow().clone();
            let work = self.current();
            if standing == Standing::Connected && !is_compared {
                is_compared = self.compare(network).await?;
            }
            if let Some(work) = &work {
                compare_target(network, work)?;
                if !is_compared {
                    tracing::warn!(
                        %network,
                        "the template source does not say which network it is on: only the target of its blocks was \
                         compared with the configured one"
                    );
                }
                return Ok(());
            }
            if words.are_due(&standing, Instant::now()) {
                let reason = self.why_not(&standing).await;
                if standing == Standing::Connected {
                    tracing::warn!(reason, "the template source gives no work");
                }
                not_ready(&reason);
            }
            self.change(&standing, words.due_in()).await?;
        }
    }

    /// Whether the node has said that it is on `network`.
    async fn compare(&self, network: Network) -> Result<bool, TemplateError> {
        let node = match self.origin() {
            Origin::Chain(own) => Some(*own),
            Origin::Provider => return Ok(false),
            Origin::Node(socket) => match ask(socket).await {
                // All that the node said is that it is a test network.
                Ok(info) if info.network.is_none() && network == Network::Bitcoin => {
                    return Err(wrong(network, "the node is on a test network"));
                }
                Ok(info) => info.network,
                Err(_) => return Ok(false),
            },
        };
        match node {
            Some(node) if node != network => Err(wrong(network, &format!("the node is on {node}"))),
            said => Ok(said.is_some()),
        }
    }

    async fn why_not(&self, standing: &Standing) -> String {
        match (standing, self.origin()) {
            (Standing::Unreachable(reason), _) => reason.clone(),
            (Standing::Connecting, _) => "the template source is being connected to".to_owned(),
            (Standing::Connected, Origin::Node(socket)) => match ask(socket).await {
                Ok(info) => without_template(&info),
                Err(_) => no_template("its node is probably in initial block download"),
            },
            (Standing::Connected, _) => {
                no_template("its node is probably in initial block download")
            }
        }
    }

    /// Returns when something has changed, or after this time.
    async fn change(&self, before: &Standing, time_max: Duration) -> Result<(), TemplateError> {
        let (mut standing, mut work) = (self.standing(), self.subscribe());
        let changed = async {
            tokio::select! {
                moved = standing.wait_for(|now| now != before) => moved.is_ok(),
                given = work.wait_for(Option::is_some) => given.is_ok(),
            }
        };
        match timeout(time_max, changed).await {
            // The source's end of the channels is gone.
            Ok(false) => Err(TemplateError::Stopped),
            _ => Ok(()),
        }
    }
}

/// Asks the node a few times: one that has just started may not answer the first.
async fn ask(socket: &Path) -> Result<NodeInfo, TemplateError> {
    for _ in 1..QUESTIONS_MAX {
        if let Ok(info) = node_info(socket.to_owned()).await {
            return Ok(info);
        }
        tokio::time::sleep(QUESTION_PAUSE).await;
    }
    node_info(socket.to_owned()).await
}

/// When a reason is due to be said.
struct Words {
    pace: Pace,
    due: Instant,
    said: Option<Standing>,
}

impl Words {
    fn new(pace: Pace) -> Self {
        Self {
            pace,
            due: Instant::now() + pace.first,
            said: None,
        }
    }

    fn are_due(&mut self, standing: &Standing, now: Instant) -> bool {
        // A reason that is new is said at once, but what lasts a moment only is not.
        let is_new = self.said.as_ref().is_some_and(|said| said != standing);
        if is_new && *standing == Standing::Connected {
            self.due = self.due.min(now + self.pace.first);
        }
        let is_due = now >= self.due || (is_new && matches!(standing, Standing::Unreachable(_)));
        if is_due {
            self.due = now + self.pace.interval;
            self.said = Some(standing.clone());
        }
        is_due
    }

    fn due_in(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }
}

fn no_template(why: &str) -> String {
    format!("the template source is connected to and has given no template yet: {why}")
}

fn without_template(info: &NodeInfo) -> String {
    let so_far = info.heights.map_or(String::new(), |(blocks, headers)| {
        format!(" (block {blocks} of {headers} known headers)")
    });
    match info.is_in_initial_block_download {
        true => no_template(&format!("its node is in initial block download{so_far}")),
        false => no_template(&format!(
            "its node has caught up{so_far}, so it should come soon"
        )),
    }
}

fn wrong(configured: Network, node: &str) -> TemplateError {
    TemplateError::WrongNetwork {
        configured,
        node: node.to_owned(),
    }
}

/// The easiest target of each network's blocks.
fn target_max(network: Network) -> Target {
    match network {
        Network::Bitcoin | Network::Testnet | Network::Testnet4 => Target::MAX_ATTAINABLE_MAINNET,
        Network::Signet => Target::MAX_ATTAINABLE_SIGNET,
        Network::Regtest => Target::MAX_ATTAINABLE_REGTEST,
    }
}

/// Whether a template can be of `network` at all. An easier block than the network allows cannot; and one that is as hard
/// as mainnet's easiest is not of a regtest, where blocks are to be had for the asking.
fn compare_target(network: Network, work: &WorkSnapshot) -> Result<(), TemplateError> {
    let target = Target::from_compact(CompactTarget::from_consensus(work.nbits()));
    let is_too_easy = target > target_max(network);
    let is_too_hard = network == Network::Regtest && target < Target::MAX_ATTAINABLE_MAINNET;
    match is_too_easy || is_too_hard {
        false => Ok(()),
        true => Err(wrong(
            network,
            &format!(
                "the template source's blocks have the target {:08x}",
                work.nbits()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::RegtestChain;
    use crate::handle::{Port, channel};

    /// Gives the first work, with this target.
    fn give_work(port: &mut Port, bits: u32) {
        let chain = RegtestChain::new(Network::Regtest, bits).unwrap();
        let (template, tip) = chain.template(1, 1_800_000_000);
        port.publisher.set_connected(true);
        port.publisher.publish(template, tip).unwrap();
    }

    /// What is said within this time.
    async fn said(handle: &TemplateHandle, pace: Pace, time: Duration) -> Vec<String> {
        let mut said = Vec::new();
        let ready = handle.ready_at(pace, Network::Regtest, |reason| {
            said.push(reason.to_owned())
        });
        let _ = timeout(time, ready).await;
        said
    }

    #[tokio::test]
    async fn a_source_that_is_away_is_named_soon_and_again_and_again_until_it_gives_work() {
        let second = Duration::from_secs(1);
        let pace = Pace {
            first: second / 20,
            interval: second / 10,
        };
        let (handle, mut port) = channel();
        port.publisher.set_unreachable("no socket".into());
        let words = said(&handle, pace, second).await;
        assert!(words.len() >= 3, "{words:?}");
        assert!(words.iter().all(|word| word == "no socket"), "{words:?}");
        port.publisher.set_connected(true);
        let words = said(&handle, pace, second).await;
        assert!(
            words.len() >= 3 && words[0].contains("initial block download"),
            "{words:?}"
        );
        give_work(&mut port, 0x1e00_ffff);
        let ready = handle.ready_at(pace, Network::Regtest, |reason| panic!("{reason}"));
        ready.await.unwrap();
    }

    #[test]
    fn a_reason_is_said_soon_then_every_minute_and_another_one_at_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut words = Words {
            pace: PACE,
            due: at(3),
            said: None,
        };
        let absent = Standing::Unreachable("absent".into());
        let denied = Standing::Unreachable("denied".into());
        let due: Vec<u64> = (0..=130)
            .filter(|now| words.are_due(&absent, at(*now)))
            .collect();
        assert_eq!(due, [3, 63, 123]);
        assert!(words.are_due(&denied, at(131)));
        assert!(!words.are_due(&denied, at(132)));
        // A node that has just been connected to has a moment to give its first template.
        let due: Vec<u64> = (140..=210)
            .filter(|now| words.are_due(&Standing::Connected, at(*now)))
            .collect();
        assert_eq!(due, [143, 203]);
    }

    #[tokio::test]
    async fn a_source_of_another_network_is_refused() {
        let (handle, mut port) = channel();
        give_work(&mut port, 0x1e00_ffff);
        // Too easy for the network.
        for network in [Network::Bitcoin, Network::Testnet4] {
            let refused = handle.ready(network, |_| ()).await;
            assert!(
                matches!(refused, Err(TemplateError::WrongNetwork { .. })),
                "{refused:?}"
            );
        }
        // Harder than any regtest.
        let (handle, mut port) = channel();
        give_work(&mut port, 0x1900_ffff);
        let refused = handle.ready(Network::Regtest, |_| ()).await;
        assert!(
            matches!(refused, Err(TemplateError::WrongNetwork { .. })),
            "{refused:?}"
        );
        handle.ready(Network::Bitcoin, |_| ()).await.unwrap();
        // It says what it is.
        let handle = handle.of_origin(Origin::Chain(Network::Regtest));
        let refused = handle.ready(Network::Bitcoin, |_| ()).await;
        assert!(
            matches!(refused, Err(TemplateError::WrongNetwork { .. })),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_socket_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("node.sock");
        let config = crate::SourceConfig::bitcoin_core(&place);
        let said = |config: crate::SourceConfig| async move {
            let stop = tokio_util::sync::CancellationToken::new();
            let handle = crate::start(config, stop.clone()).unwrap();
            let mut standing = handle.standing();
            let unreachable = standing.wait_for(|now| matches!(now, Standing::Unreachable(_)));
            let standing = timeout(Duration::from_secs(20), unreachable)
                .await
                .unwrap()
                .unwrap()
                .clone();
            stop.cancel();
            match standing {
                Standing::Unreachable(reason) => reason,
                other => panic!("{other:?}"),
            }
        };
        assert!(said(config.clone()).await.starts_with("there is no "));
        // A socket that nobody listens on any more.
        drop(std::os::unix::net::UnixListener::bind(&place).unwrap());
        assert!(said(config).await.contains("refuses connections"));
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let denied = crate::Unreachable::of("node.sock", &denied).to_string();
        assert!(denied.contains("permission to open node.sock is denied"));
    }
}
