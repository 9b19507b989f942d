//! Whether a source gives work, and of the right network: what a daemon waits for before it calls itself ready, and
//! what it says meanwhile.

use std::path::PathBuf;
use std::time::Duration;

use bitcoin::Network;
use tokio::time::{Instant, timeout};

use crate::error::TemplateError;
use crate::handle::TemplateHandle;
use crate::source::{NodeInfo, ask};

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

/// What stands behind a handle.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// A chain of our own.
    Chain,
    /// A Bitcoin Core behind this socket.
    Node(PathBuf),
    /// A template provider, whose protocol has no word for its network.
    Provider,
}

/// Whether there is work that is worth something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness<'a> {
    /// There is.
    Ready,
    /// There is none, for this reason.
    NotReady(&'a str),
}

/// How a source stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not tried yet, or just lost.
    Connecting,
    /// The last attempt failed for this reason.
    Unreachable(String),
    /// It is of another network than the configured one: none of its work is taken.
    WrongNetwork {
        configured: Network,
        /// What the source said, or what its template shows.
        node: String,
    },
    Connected,
}

impl TemplateHandle {
    /// Returns once the source has given work. `not_ready` hears why it has not yet: soon after the start, when the reason
    /// changes, and every minute. Cancellation-safe.
    ///
    /// # Errors
    /// [`TemplateError::WrongNetwork`] if the source is of another network than [`start_on`](crate::start_on) was told,
    /// [`TemplateError::Stopped`].
    pub async fn ready(&self, not_ready: impl FnMut(&str)) -> Result<(), TemplateError> {
        self.ready_at(PACE, not_ready).await
    }

    /// Says from the first work on whether the work is worth something: when it goes [stale](Self::is_stale), with the
    /// reason, then when the reason changes and every minute, and when there is good work again. Returns when the source
    /// has stopped. Cancellation-safe.
    pub async fn tell_readiness(&self, told: impl FnMut(Readiness<'_>)) {
        self.tell_readiness_at(PACE, told).await;
    }

    async fn ready_at(
        &self,
        pace: Pace,
        mut not_ready: impl FnMut(&str),
    ) -> Result<(), TemplateError> {
        let mut words = Words::new(pace, pace.first);
        loop {
            if self.current().is_some() {
                if let (Origin::Provider, Some(network)) = (self.origin(), self.network()) {
                    tracing::warn!(
                        %network,
                        "the template source does not say which network it is on: only the target of its blocks was \
                         compared with the configured one"
                    );
                }
                return Ok(());
            }
            if let Standing::WrongNetwork { configured, node } = &*self.standing().borrow() {
                return Err(TemplateError::WrongNetwork {
                    configured: *configured,
                    node: node.clone(),
                });
            }
            let standing = self.say_why_not(&mut words, &mut not_ready).await;
            let mut work = self.subscribe();
            let given = async { work.wait_for(Option::is_some).await.is_ok() };
            self.change(&standing, words.due_in(), given).await?;
        }
    }

    async fn tell_readiness_at(&self, pace: Pace, mut told: impl FnMut(Readiness<'_>)) {
        let mut staleness = self.staleness();
        while staleness.wait_for(|is_stale| *is_stale).await.is_ok() {
            let mut not_ready = |reason: &str| told(Readiness::NotReady(reason));
            let is_back = tokio::select! {
                biased;
                fresh = staleness.wait_for(|is_stale| !is_stale) => fresh.is_ok(),
                () = self.keep_saying_why_not(pace, &mut not_ready) => false,
            };
            if !is_back {
                return;
            }
            told(Readiness::Ready);
        }
    }

    /// Returns when the source has stopped.
    async fn keep_saying_why_not(&self, pace: Pace, not_ready: &mut impl FnMut(&str)) {
        let mut words = Words::new(pace, Duration::ZERO);
        loop {
            let standing = self.say_why_not(&mut words, not_ready).await;
            let never = std::future::pending();
            let changed = self.change(&standing, words.due_in(), never).await;
            if changed.is_err() {
                return;
            }
        }
    }

    /// Says why there is no work, if that is due; how the source stands.
    async fn say_why_not(&self, words: &mut Words, not_ready: &mut impl FnMut(&str)) -> Standing {
        let standing = self.standing().borrow().clone();
        if words.are_due(&standing, Instant::now()) {
            let reason = self.why_not(&standing).await;
            if standing == Standing::Connected {
                tracing::warn!(reason, "the template source gives no work");
            }
            not_ready(&reason);
        }
        standing
    }

    async fn why_not(&self, standing: &Standing) -> String {
        match (standing, self.origin()) {
            (Standing::Unreachable(reason), _) => reason.clone(),
            (Standing::WrongNetwork { configured, node }, _) => TemplateError::WrongNetwork {
                configured: *configured,
                node: node.clone(),
            }
            .to_string(),
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

    /// Returns when the standing has changed, when `given` has come, or after this time.
    async fn change(
        &self,
        before: &Standing,
        time_max: Duration,
        given: impl Future<Output = bool>,
    ) -> Result<(), TemplateError> {
        let mut standing = self.standing();
        let changed = async {
            tokio::select! {
                moved = standing.wait_for(|now| now != before) => moved.is_ok(),
                is_given = given => is_given,
            }
        };
        match timeout(time_max, changed).await {
            // The source's end of the channels is gone.
            Ok(false) => Err(TemplateError::Stopped),
            _ => Ok(()),
        }
    }
}

/// When a reason is due to be said.
struct Words {
    pace: Pace,
    /// When it is to be said next, whether it has changed or not.
    due: Instant,
    /// When a reason that may be gone in a moment is to be said, if it is still there then.
    due_if_it_lasts: Option<Instant>,
    said: Option<Standing>,
}

impl Words {
    /// The first is due in `first`.
    fn new(pace: Pace, first: Duration) -> Self {
        Self {
            pace,
            due: Instant::now() + first,
            due_if_it_lasts: None,
            said: None,
        }
    }

    fn are_due(&mut self, standing: &Standing, now: Instant) -> bool {
        // A reason that is new is said at once, but what lasts a moment only is not.
        let is_new = self.said.as_ref().is_some_and(|said| said != standing);
        let lasts_a_moment = matches!(standing, Standing::Connected | Standing::Connecting);
        match is_new && *standing == Standing::Connected {
            true => self.due_if_it_lasts = self.due_if_it_lasts.or(Some(now + self.pace.first)),
            false => self.due_if_it_lasts = None,
        }
        let is_due = now >= self.due
            || self.due_if_it_lasts.is_some_and(|due| now >= due)
            || (is_new && !lasts_a_moment);
        if is_due {
            self.due = now + self.pace.interval;
            self.due_if_it_lasts = None;
            self.said = Some(standing.clone());
        }
        is_due
    }

    fn due_in(&self) -> Duration {
        let due = self
            .due_if_it_lasts
            .map_or(self.due, |due| due.min(self.due));
        due.saturating_duration_since(Instant::now())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::chain::RegtestChain;
    use crate::handle::{Port, channel};

    /// Longer than anything takes on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(20);

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
        let ready = handle.ready_at(pace, |reason| said.push(reason.to_owned()));
        let _ = timeout(time, ready).await;
        said
    }

    fn away() -> TemplateError {
        TemplateError::Protocol("it is away".into())
    }

    #[tokio::test]
    async fn a_source_that_is_away_is_named_soon_and_again_and_again_until_it_gives_work() {
        let second = Duration::from_secs(1);
        let pace = Pace {
            first: second / 20,
            interval: second / 10,
        };
        let (handle, mut port) = channel();
        port.publisher.set_lost(&away());
        let words = said(&handle, pace, second).await;
        assert!(words.len() >= 3, "{words:?}");
        let reason = away().to_string();
        assert!(words.iter().all(|word| *word == reason), "{words:?}");
        port.publisher.set_connected(true);
        let words = said(&handle, pace, second).await;
        assert!(
            words.len() >= 3 && words[0].contains("initial block download"),
            "{words:?}"
        );
        give_work(&mut port, 0x1e00_ffff);
        let ready = handle.ready_at(pace, |reason| panic!("{reason}"));
        ready.await.unwrap();
    }

    #[tokio::test]
    async fn a_source_that_goes_stale_is_not_ready_with_its_reason_until_it_gives_work_again() {
        let pace = Pace {
            first: Duration::from_secs(60),
            interval: Duration::from_millis(50),
        };
        let (handle, mut port) = channel();
        give_work(&mut port, 0x1e00_ffff);
        let freshness = Arc::clone(&port.publisher.freshness);
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let telling = handle.tell_readiness_at(pace, |readiness| {
            let reason = match readiness {
                Readiness::Ready => None,
                Readiness::NotReady(reason) => Some(reason.to_owned()),
            };
            tell.send(reason).unwrap();
        });
        let played = async {
            let away = away();
            port.publisher.set_connected(false);
            port.publisher.set_lost(&away);
            // At once, and again and again.
            for _ in 0..3 {
                assert_eq!(told.recv().await.unwrap(), Some(away.to_string()));
            }
            port.publisher.set_lost(&TemplateError::WrongNetwork {
                configured: Network::Regtest,
                node: "the node is on signet".into(),
            });
            let words = "network = \"regtest\" is configured, but the node is on signet";
            while told.recv().await.unwrap().as_deref() != Some(words) {}
            give_work(&mut port, 0x1e00_ffff);
            while told.recv().await.unwrap().is_some() {}
        };
        tokio::select! {
            played = timeout(PATIENCE, played) => played.expect("it says nothing more"),
            () = telling => unreachable!(),
            () = freshness.watch("a test", Duration::from_millis(100)) => unreachable!(),
        }
    }

    #[test]
    fn a_reason_is_said_soon_then_every_minute_and_another_one_at_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut words = Words {
            pace: PACE,
            due: at(3),
            due_if_it_lasts: None,
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
        // A provider of another network is connected to for a moment again and again.
        let elsewhere = Standing::WrongNetwork {
            configured: Network::Regtest,
            node: "it is on signet".into(),
        };
        assert!(words.are_due(&elsewhere, at(220)));
        let due: Vec<u64> = (221..=340)
            .filter(|now| {
                let connected = words.are_due(&Standing::Connected, at(*now));
                words.are_due(&elsewhere, at(*now)) || connected
            })
            .collect();
        assert_eq!(due, [280, 340]);
    }

    #[tokio::test]
    async fn a_source_of_another_network_is_refused() {
        let embedded = crate::SourceConfig::embedded();
        let stop = tokio_util::sync::CancellationToken::new();
        let refused = crate::start_on(Network::Bitcoin, embedded, stop).unwrap_err();
        assert!(
            matches!(refused, TemplateError::WrongNetwork { .. }),
            "{refused:?}"
        );
        let (handle, port) = channel();
        port.publisher.set_lost(&refused);
        let refused = timeout(PATIENCE, handle.ready(|_| ())).await;
        let refused = refused.expect("it is waited for");
        assert!(
            matches!(refused, Err(TemplateError::WrongNetwork { .. })),
            "{refused:?}"
        );
    }

    async fn why_unreachable(config: crate::SourceConfig) -> String {
        let stop = tokio_util::sync::CancellationToken::new();
        let handle = crate::start(config, stop.clone()).unwrap();
        let mut standing = handle.standing();
        let unreachable = standing.wait_for(|now| matches!(now, Standing::Unreachable(_)));
        let standing = timeout(PATIENCE, unreachable)
            .await
            .unwrap()
            .unwrap()
            .clone();
        stop.cancel();
        match standing {
            Standing::Unreachable(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_socket_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("node.sock");
        let config = crate::SourceConfig::bitcoin_core(&place);
        assert!(
            why_unreachable(config.clone())
                .await
                .starts_with("there is no ")
        );
        // A socket that nobody listens on any more.
        drop(std::os::unix::net::UnixListener::bind(&place).unwrap());
        assert!(
            why_unreachable(config)
                .await
                .contains("refuses connections")
        );
    }

    /// Root may open everything: then the test runs once more, as nobody.
    #[tokio::test]
    async fn a_socket_that_may_not_be_opened_is_told() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        use std::os::unix::process::CommandExt;
        let mode = std::fs::Permissions::from_mode;
        let dir = tempfile::tempdir().unwrap();
        if std::fs::metadata(dir.path()).unwrap().uid() == 0 {
            std::fs::set_permissions(dir.path(), mode(0o755)).unwrap();
            let program = dir.path().join("test");
            std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
            let test = "readiness::tests::a_socket_that_may_not_be_opened_is_told";
            let run = std::process::Command::new(program)
                .args(["--exact", test])
                .current_dir("/")
                .env("TMPDIR", "/tmp")
                .uid(65_534)
                .gid(65_534)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&run.stdout);
            assert!(run.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let place = dir.path().join("node.sock");
        let _node = std::os::unix::net::UnixListener::bind(&place).unwrap();
        std::fs::set_permissions(&place, mode(0o000)).unwrap();
        let said = why_unreachable(crate::SourceConfig::bitcoin_core(&place)).await;
        assert!(said.starts_with("the permission to open "), "{said}");
    }
}
