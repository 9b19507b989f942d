//! The demonstration's agent: a process that asks, and what it tells meanwhile.

use std::io::Read;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use dovetail_tests::scenario::{RECEIPT_PUBLIC, Scenario};

/// What the agent's process tells while the story goes on.
pub(crate) enum AgentNews {
    /// The first token came after this time.
    First(Duration),
    /// The process has ended with this answer; its receipt is there if it succeeded.
    Ended(Duration, ExitStatus, String),
}

/// Starts the agent; its news arrive on the channel.
pub(crate) fn ask(
    scenario: &Scenario,
    prompt: &str,
) -> anyhow::Result<(Agent, Receiver<AgentNews>)> {
    let begun = Instant::now();
    let mut child = scenario
        .agent()
        .args(["ask", "--max-tokens", "320", "--wait", "120"])
        .arg("--receipt")
        .arg(scenario.file("receipt.json"))
        .args(["--pool-key", RECEIPT_PUBLIC, "--", prompt])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(
            scenario.file("logs").join("agent.log"),
        )?)
        .spawn()
        .context("cannot start the agent")?;
    let mut stdout = child.stdout.take().context("standard output is piped")?;
    let child = Arc::new(Mutex::new(child));
    let agent = Agent(Arc::clone(&child));
    let (sender, news) = channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut bytes = [0; 256];
        while let Ok(read @ 1..) = stdout.read(&mut bytes) {
            if text.is_empty() {
                let _ = sender.send(AgentNews::First(begun.elapsed()));
            }
            text.extend_from_slice(&bytes[..read]);
        }
        let status = child.lock().unwrap_or_else(PoisonError::into_inner).wait();
        if let Ok(status) = status {
            let answer = String::from_utf8_lossy(&text).trim().to_owned();
            let _ = sender.send(AgentNews::Ended(begun.elapsed(), status, answer));
        }
    });
    Ok((agent, news))
}

/// The agent's process; never outlives the story.
pub(crate) struct Agent(Arc<Mutex<Child>>);

impl Drop for Agent {
    fn drop(&mut self) {
        // The reader holds the lock only while it waits for a process that has closed its output.
        if let Ok(mut child) = self.0.try_lock() {
            let _ = child.kill();
        }
    }
}
