//! Streams that wait: what memory of the pool's each takes, over HTTP and over gRPC.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use dovetail_agent::{AgentClient, Answer, Question};
use dovetail_engine::Model;
use hyper::Response;
use hyper::body::Incoming;
use serde::Serialize;
use tokio::time::sleep;

use super::http::{self, Client};
use super::likeliest;

/// Streams that are opened before anything is measured: the first ones pay for what all share.
const FIRST: usize = 50;
/// After which a pool that was told nothing new does nothing any more.
const SETTLING: Duration = Duration::from_secs(3);
/// Nobody gives them tokens: their tasks wait for a worker that has no room.
const PROMPT: &str = "An invoice that has to wait.";
const TOKENS_MAX: u32 = 64;

/// What waits.
#[derive(Debug, Args)]
pub(crate) struct Streams {
    /// The address of a pool with one model. Its workers are busy, and its limits let one host have as many tasks as this.
    #[arg(long)]
    pool: String,
    /// The pool's process.
    #[arg(long)]
    pid: u32,
    /// How many of each kind.
    #[arg(long, default_value_t = 1_000)]
    streams: usize,
}

/// What each took of the pool's resident memory.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    idle_streams: usize,
    /// A connection of HTTP/1.1 with a stream of its own, whose task waits.
    http_idle_stream_bytes: u64,
    /// The same over gRPC.
    grpc_idle_stream_bytes: u64,
}

/// Opens them all.
///
/// # Errors
/// A stream that is refused.
pub(crate) fn measure(model: &Model, streams: &Streams) -> anyhow::Result<Measured> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let over_http = of_each(streams, || over_http(model, streams)).await?;
        let over_grpc = of_each(streams, || over_grpc(model, streams)).await?;
        Ok(Measured {
            idle_streams: streams.streams,
            http_idle_stream_bytes: over_http,
            grpc_idle_stream_bytes: over_grpc,
        })
    })
}

async fn of_each<S>(
    streams: &Streams,
    open: impl AsyncFn() -> anyhow::Result<S>,
) -> anyhow::Result<u64> {
    let mut held = Vec::with_capacity(FIRST + streams.streams);
    for _ in 0..FIRST {
        held.push(open().await?);
    }
    sleep(SETTLING).await;
    let before = resident_bytes(streams.pid)?;
    for _ in 0..streams.streams {
        held.push(open().await?);
    }
    sleep(SETTLING).await;
    let taken = resident_bytes(streams.pid)?.saturating_sub(before);
    drop(held);
    sleep(SETTLING).await;
    Ok(taken / streams.streams.max(1) as u64)
}

async fn over_http(
    model: &Model,
    streams: &Streams,
) -> anyhow::Result<(Client, Response<Incoming>)> {
    let mut client = Client::connect(&streams.pool).await?;
    let response = client
        .stream(&http::request(model, PROMPT, TOKENS_MAX))
        .await?;
    Ok((client, response))
}

async fn over_grpc(model: &Model, streams: &Streams) -> anyhow::Result<Answer> {
    let client = AgentClient::connect(&streams.pool).await?;
    let prompt = PROMPT.as_bytes().to_vec();
    let question = Question::new(model.id(), prompt, likeliest(TOKENS_MAX));
    Ok(client.ask(question).await?)
}

fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .context("the pool's process has ended")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kib: u64 = kib.context("there is no VmRSS")?.trim().parse()?;
    ensure!(kib > 0, "the pool has no memory");
    Ok(kib * 1024)
}
