//! Logging, the ready line, and shutdown; and the same in the words of systemd, where it asks for them.

use std::fmt::{self, Debug};
use std::io::Write;

use dovetail_units::harmless;
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{self, Writer};

/// Logs to standard error; `RUST_LOG` chooses what (default: `info`).
pub fn init_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Logging is a convenience: a second subscriber (in tests) is no reason to fail.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .fmt_fields(fields())
        .with_writer(std::io::stderr)
        .try_init();
}

/// Writes the fields of events. Some of their words are a stranger's: a pool's codes, a device's name, a node's error.
/// None of them begins a line of its own or steers the terminal that shows the log, whoever logged it and how.
fn fields() -> impl for<'a> FormatFields<'a> + Send + Sync + 'static {
    format::debug_fn(field).delimited(" ")
}

fn field(out: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let value = format!("{value:?}");
    let value = harmless(&value);
    match field.name() {
        "message" => write!(out, "{value}"),
        // What the crate `log` says of itself; the event has it already.
        name if name.starts_with("log.") => Ok(()),
        name => write!(out, "{name}={value}"),
    }
}

/// Prints `{"ready":true, ..fields}` as one line on standard output, so that a supervisor knows
/// that the daemon listens, and where. systemd is told `READY=1`. Each time that it is ready again, it may be said again.
pub fn announce_ready(fields: serde_json::Value) {
    let mut line = serde_json::json!({ "ready": true });
    if let (Some(line), serde_json::Value::Object(fields)) = (line.as_object_mut(), fields) {
        line.extend(fields);
    }
    print(&line);
    notify(&[NotifyState::Ready, NotifyState::Status("ready")]);
}

/// Prints `{"ready":false,"reason":".."}` as one line on standard output: why it is not ready, yet or any longer. systemd
/// shows the reason as the unit's status.
pub fn announce_not_ready(reason: &str) {
    print(&serde_json::json!({ "ready": false, "reason": reason }));
    // A line of its own would be another word to systemd.
    let reason = reason.replace(['\n', '\r'], " ");
    notify(&[NotifyState::Status(&format!("not ready: {reason}"))]);
}

fn print(line: &serde_json::Value) {
    let mut out = std::io::stdout().lock();
    // Nobody may be reading: that is the supervisor's affair.
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Tells systemd, or whoever has set `NOTIFY_SOCKET`.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the service manager how the daemon is: NOTIFY_SOCKET");
    }
}

/// A token that is cancelled on SIGINT or SIGTERM; systemd is told `STOPPING=1` then. Until then the watchdog of systemd
/// hears of us, if the unit has one (`WatchdogSec=`): a runtime that hangs tells it nothing. Must be called inside a
/// tokio runtime.
pub fn shutdown_on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = wait_for_signal() => {}
            () = feed_watchdog() => {}
        }
        tracing::info!("stopping");
        notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
        cancel.cancel();
        // Stopping takes its time too.
        feed_watchdog().await;
    });
    token
}

/// Returns never.
async fn feed_watchdog() {
    let Some(time_max) = sd_notify::watchdog_enabled().filter(|time| !time.is_zero()) else {
        return std::future::pending().await;
    };
    // Twice as often as it must be, as sd_watchdog_enabled(3) recommends.
    let mut ticks = tokio::time::interval(time_max / 2);
    loop {
        ticks.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        // Without a handler the default action ends the process, which is a way to stop too.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            written.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn words_of_a_stranger_stay_on_the_line_of_their_event() {
        let lines = Lines::default();
        let made = lines.clone();
        let log = tracing_subscriber::fmt()
            .fmt_fields(fields())
            .with_ansi(false)
            .with_writer(move || made.clone())
            .finish();
        let forged = "no\n2026-11-26T00:00:00Z  INFO paid out\x1b[2J";
        tracing::subscriber::with_default(log, || {
            let error = io::Error::other(forged);
            tracing::warn!(code = forged, %error, said = %forged, count = 7, "the pool refused: {forged}");
        });
        let written = lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = String::from_utf8_lossy(&written);
        assert_eq!(written.lines().count(), 1, "{written}");
        assert!(!written.contains('\x1b'), "{written}");
        assert!(written.contains("WARN") && written.contains("count=7"));
        assert!(written.contains(r"error=no\n2026"), "{written}");
        assert!(written.contains(r"the pool refused: no\n2026"), "{written}");
    }
}
