//! Logging, the ready line, and shutdown; and the same in the words of systemd, where it asks for them.

use std::io::Write;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Logs to standard error; `RUST_LOG` chooses what (default: `info`).
pub fn init_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Logging is a convenience: a second subscriber (in tests) is no reason to fail.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
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
