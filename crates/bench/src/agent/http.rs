//! A client of the HTTP API: one connection of HTTP/1.1, and answers as streams of server-sent events.

use std::time::Instant;

use anyhow::{Context, bail, ensure};
use dovetail_commitment::SamplingParams;
use dovetail_engine::Model;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{Clock, Timed};

/// A connection.
pub(super) struct Client {
    host: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Opens one to the pool with this `http://` address.
    pub(super) async fn connect(pool: &str) -> anyhow::Result<Self> {
        let host = pool.strip_prefix("http://").unwrap_or(pool);
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self {
            host: host.to_owned(),
            sender,
        })
    }

    /// Asks for a stream. Returns once its head has come.
    pub(super) async fn stream(&mut self, body: &Value) -> anyhow::Result<Response<Incoming>> {
        let request = Request::post("/v1/completions")
            .header("host", &self.host)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        if status != StatusCode::OK {
            let body = response.into_body().collect().await?.to_bytes();
            bail!(
                "the pool answers {status}: {}",
                String::from_utf8_lossy(&body)
            );
        }
        Ok(response)
    }

    /// Asks for a prompt to be gone on with; when text came, and all of it.
    pub(super) async fn ask(
        &mut self,
        model: &Model,
        prompt: &str,
        sampling: SamplingParams,
    ) -> anyhow::Result<(Timed, String)> {
        let mut clock = Clock::start(Instant::now());
        let body = request(model, prompt, sampling.max_tokens);
        let mut stream = self.stream(&body).await?.into_body();
        let (mut held, mut text, mut tokens) = (String::new(), String::new(), None);
        while let Some(frame) = stream.frame().await {
            let Ok(bytes) = frame?.into_data() else {
                continue;
            };
            held += std::str::from_utf8(&bytes).context("a stream is no text")?;
            while let Some((event, rest)) = held.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                held = rest;
                let Some(chunk) = chunk(&event)? else {
                    continue;
                };
                if let Some(piece) = chunk["choices"][0]["text"]
                    .as_str()
                    .filter(|piece| !piece.is_empty())
                {
                    text += piece;
                    clock.token();
                }
                tokens = chunk["usage"]["completion_tokens"].as_u64().or(tokens);
            }
        }
        let tokens = tokens.context("a stream has no usage")?;
        // Which ones, the text says.
        let tokens = vec![0; usize::try_from(tokens)?];
        Ok((clock.stop(tokens)?, text))
    }
}

/// A request whose prompt has the tokens that it has over gRPC.
pub(super) fn request(model: &Model, prompt: &str, max_tokens: u32) -> Value {
    json!({
        "model": model.id().to_string(),
        "prompt": prompt,
        "control_tokens": true,
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": true,
        "stream_options": { "include_usage": true },
    })
}

/// The chunk of an event; none of a comment and of the end mark.
fn chunk(event: &str) -> anyhow::Result<Option<Value>> {
    let Some(data) = event
        .strip_prefix("data: ")
        .filter(|data| *data != "[DONE]")
    else {
        return Ok(None);
    };
    let chunk: Value = serde_json::from_str(data)?;
    ensure!(
        chunk.get("error").is_none(),
        "the stream failed: {}",
        chunk["error"]
    );
    Ok(Some(chunk))
}
