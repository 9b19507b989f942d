//! A source outside this process: connect, keep a session, and connect again, with a pause that
//! grows. Requests that come in between are refused; the last work stands all the while.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use stratum_core::parsers_sv2::TemplateDistributionOwned as Tdp;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::session::{History, Session};
use crate::error::TemplateError;
use crate::handle::Port;
use crate::request::Request;

/// The pause before the first try again, and the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// A session that lasted this long was a good one; the next pause starts short again.
const GOOD_SESSION: Duration = Duration::from_secs(30);
/// A source that stays away is named this often at least.
const WORD_INTERVAL: Duration = Duration::from_secs(60);
/// A source that has said nothing for so long is asked for a template's transactions, and left if it does not answer in
/// as long: it hangs, and its work is not to be trusted. A better template comes every half minute on the main chain.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Time for the source to take a message. It is the size of a block at most.
const SEND_TIME_MAX: Duration = Duration::from_secs(10);

/// A connection to a source that speaks in TDP messages, by whatever transport.
pub(super) trait Link: Send {
    /// Sends a message. Need not be cancellation-safe.
    fn send(&mut self, message: Tdp) -> impl Future<Output = Result<(), TemplateError>> + Send;
    /// The next message. Cancellation-safe.
    fn receive(&mut self) -> impl Future<Output = Result<Tdp, TemplateError>> + Send;
    /// Ends the connection and whatever it started.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// Opens links to one source.
pub(super) trait Connector: Send + 'static {
    type Link: Link;
    /// What the log calls the source.
    fn name(&self) -> &str;
    fn connect(&self) -> impl Future<Output = Result<Self::Link, TemplateError>> + Send;
}

/// Keeps the source until `shutdown` is cancelled or nobody holds a handle any longer. Its work is stale once it has
/// given none for longer than `stale_after`; never, where that is `None`.
pub(super) async fn run(
    connector: impl Connector,
    port: Port,
    stale_after: Option<Duration>,
    shutdown: CancellationToken,
) {
    let Some(stale_after) = stale_after else {
        return keep(connector, port, shutdown).await;
    };
    let freshness = Arc::clone(&port.publisher.freshness);
    let source = connector.name().to_owned();
    tokio::select! {
        () = keep(connector, port, shutdown) => {}
        () = freshness.watch(&source, stale_after) => {}
    }
}

async fn keep(connector: impl Connector, mut port: Port, shutdown: CancellationToken) {
    let mut history = History::default();
    let mut pause = PAUSE_MIN;
    let mut last_word = LastWord::default();
    loop {
        let Some(connected) = refusing(&mut port, &shutdown, connector.connect()).await else {
            return;
        };
        match connected {
            Ok(mut link) => {
                tracing::info!(
                    source = connector.name(),
                    "connected to the template source"
                );
                let started = Instant::now();
                port.publisher.set_connected(true);
                let ended = converse(&mut link, &mut port, &mut history, &shutdown).await;
                port.publisher.set_connected(false);
                link.close().await;
                let Err(error) = ended else { return };
                if started.elapsed() >= GOOD_SESSION {
                    pause = PAUSE_MIN;
                }
                if matches!(error, TemplateError::WrongNetwork { .. }) {
                    last_word.say(connector.name(), &error);
                    port.publisher.set_lost(&error);
                } else {
                    last_word = LastWord::default();
                    tracing::warn!(source = connector.name(), %error, "lost the template source; the last work stands");
                }
            }
            Err(error) => {
                last_word.say(connector.name(), &error);
                port.publisher.set_lost(&error);
            }
        }
        let waiting = tokio::time::sleep(pause);
        if refusing(&mut port, &shutdown, waiting).await.is_none() {
            return;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Why there was no session, and when it was said.
#[derive(Default)]
struct LastWord(Option<(String, Instant)>);

impl LastWord {
    /// Says it, unless it was said within the last minute.
    fn say(&mut self, source: &str, error: &TemplateError) {
        let reason = error.to_string();
        let is_said = self
            .0
            .as_ref()
            .is_some_and(|(said, when)| *said == reason && when.elapsed() < WORD_INTERVAL);
        if is_said {
            return;
        }
        match error {
            TemplateError::WrongNetwork { .. } => tracing::error!(
                source,
                reason,
                "ALARM: the template source is on another network: its work is not taken"
            ),
            _ => tracing::warn!(
                source,
                reason,
                "cannot reach the template source; trying again"
            ),
        }
        self.0 = Some((reason, Instant::now()));
    }
}

/// Awaits `work` and refuses requests meanwhile; `None` when it is time to stop.
async fn refusing<T>(
    port: &mut Port,
    shutdown: &CancellationToken,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return None,
            result = &mut work => return Some(result),
            request = port.requests.recv() => request?.refuse(TemplateError::Unavailable),
        }
    }
}

/// One session, until it fails; `Ok` when it is time to stop.
async fn converse(
    link: &mut impl Link,
    port: &mut Port,
    history: &mut History,
    shutdown: &CancellationToken,
) -> Result<(), TemplateError> {
    let mut session = Session::new(history);
    send(link, Session::constraints()).await?;
    let mut silence = Silence::begin();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            message = link.receive() => {
                silence = Silence::begin();
                session.on_message(message?, &mut port.publisher)?;
            }
            () = sleep_until(silence.until) => {
                let question = session.question();
                silence = silence.goes_on(question.is_some())?;
                if let Some(question) = question {
                    send(link, question).await?;
                }
            }
            () = sleep_until(session.renewal_at()) => session.renew(&mut port.publisher),
            request = port.requests.recv() => match request {
                Some(request) => forward(link, &mut session, request).await?,
                None => return Ok(()),
            },
        }
    }
}

/// A source that says nothing may have nothing to say, or hang: it is asked for something that it has.
struct Silence {
    until: Instant,
    asked: bool,
}

impl Silence {
    /// The source has just said something.
    fn begin() -> Self {
        Self {
            until: Instant::now() + SILENCE_MAX,
            asked: false,
        }
    }

    /// It has lasted until now, and `asks` says whether the source is asked something.
    fn goes_on(self, asks: bool) -> Result<Self, TemplateError> {
        match self.asked {
            true => Err(TemplateError::TimeOut),
            false => Ok(Self {
                asked: asks,
                ..Self::begin()
            }),
        }
    }
}

async fn forward(
    link: &mut impl Link,
    session: &mut Session<'_>,
    request: Request,
) -> Result<(), TemplateError> {
    let (message, reply) = match request {
        Request::TransactionData(id, reply) => {
            return match session.want_transactions(id, reply) {
                Some(message) => send(link, message).await,
                None => Ok(()),
            };
        }
        // The protocol has no question for it.
        Request::IsInChain(_, reply) => {
            let _ = reply.send(Err(TemplateError::Unsupported));
            return Ok(());
        }
        Request::Solution(solution, reply) => (session.solution(solution), reply),
        Request::Block(bytes, reply) => (session.solution_of_block(&bytes), reply),
        Request::Equal(solved, reply) => (session.solution_of(&solved.0, &solved.1), reply),
        // Nor for this.
        Request::Check(_, reply) => (Err(TemplateError::Unsupported), reply),
        Request::Undo(reply) => (Err(TemplateError::Unsupported), reply),
    };
    match message {
        Ok(message) => {
            let sent = send(link, message).await;
            // The asker learns that it was not sent; the session ends with the real reason.
            let answer = match &sent {
                Ok(()) => Ok(()),
                Err(_) => Err(TemplateError::Unavailable),
            };
            let _ = reply.send(answer);
            sent
        }
        Err(error) => {
            let _ = reply.send(Err(error));
            Ok(())
        }
    }
}

async fn send(link: &mut impl Link, message: Tdp) -> Result<(), TemplateError> {
    timeout(SEND_TIME_MAX, link.send(message))
        .await
        .map_err(|_| TemplateError::TimeOut)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_source_is_left_once_it_does_not_answer_and_not_for_having_nothing_to_say() {
        let quiet = Silence::begin().goes_on(false).unwrap();
        let asked = quiet.goes_on(true).unwrap();
        assert!(asked.until > Instant::now());
        assert!(matches!(asked.goes_on(true), Err(TemplateError::TimeOut)));
    }
}
