//! `dovetail-worker run`: the inference worker.

use anyhow::Context;
use clap::Args;
use dovetail_console::print_line;
use dovetail_daemon::{announce_not_ready, announce_ready, load, shutdown_on_signal};
use dovetail_templates::Readiness;
use dovetail_worker::config::Config;
use dovetail_worker::worker::Worker;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often the same reason is said again.
const INTERVAL: Duration = Duration::from_secs(60);

/// Run the inference worker.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Check the configuration and the files that it names, and exit. Nothing is connected to or made.
    #[arg(long)]
    check_config: bool,
}

/// Runs until it is told to stop.
pub(crate) async fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    let config: Config = load(&arguments.config, "DOVETAIL_WORKER")?;
    config.validate()?;
    if arguments.check_config {
        config.check_files()?;
        print_line("the configuration is valid")?;
        return Ok(());
    }
    let shutdown = shutdown_on_signal();
    let started = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        started = Worker::start(config, &shutdown) => started,
    };
    let worker = started.context("the worker did not start")?;
    let mut announcer = Announcer::default();
    let ended = worker
        .run(shutdown, |worker, readiness| {
            announcer.tell(worker, readiness)
        })
        .await;
    ended.context("the worker stopped")
}

fn ready_line(worker: &Worker) -> serde_json::Value {
    let mut ready = serde_json::json!({ "worker": worker.keys().name });
    if let Some((address, key)) = worker.firmware_port() {
        ready["downstream"] = address.to_string().into();
        ready["authority_public_key"] = key.to_string().into();
    }
    if let Some(address) = worker.page() {
        ready["page"] = address.to_string().into();
    }
    ready
}

/// Says what has changed, and what keeps the worker from being ready every minute.
#[derive(Default)]
struct Announcer {
    /// The reason why it was not ready, and when that was said; or that it was.
    said: Option<(Option<String>, Instant)>,
}

impl Announcer {
    fn tell(&mut self, worker: &Worker, readiness: Readiness<'_>) {
        let reason = match readiness {
            Readiness::Ready => None,
            Readiness::NotReady(reason) => Some(reason.to_owned()),
        };
        if !self.is_due(reason.as_ref(), Instant::now()) {
            return;
        }
        match reason {
            None => announce_ready(ready_line(worker)),
            Some(reason) => announce_not_ready(&reason),
        }
    }

    fn is_due(&mut self, reason: Option<&String>, now: Instant) -> bool {
        let is_said = self.said.as_ref().is_some_and(|(said, when)| {
            said.as_ref() == reason && (reason.is_none() || now - *when < INTERVAL)
        });
        if !is_said {
            self.said = Some((reason.cloned(), now));
        }
        !is_said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_changed_is_said_again_every_minute_only_while_it_is_not_ready() {
        let (mut announcer, start) = (Announcer::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let (away, refused) = ("it is away".to_owned(), "it refuses us".to_owned());
        for (reason, seconds, is_due) in [
            (Some(&away), 0, true),
            (Some(&away), 59, false),
            (Some(&away), 60, true),
            (Some(&refused), 61, true),
            (None, 62, true),
            (None, 10_000, false),
            (Some(&refused), 10_001, true),
            (None, 10_002, true),
        ] {
            assert_eq!(announcer.is_due(reason, at(seconds)), is_due, "{seconds}");
        }
    }
}
