//! Logging, the ready line, and shutdown.

use std::io::Write;

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
/// that the daemon listens, and where.
pub fn announce_ready(fields: serde_json::Value) {
    let mut line = serde_json::json!({ "ready": true });
    if let (Some(line), serde_json::Value::Object(fields)) = (line.as_object_mut(), fields) {
        line.extend(fields);
    }
    print(&line);
}

/// Prints `{"ready":false,"reason":".."}` as one line on standard output: why there is no ready line yet.
pub fn announce_not_ready(reason: &str) {
    print(&serde_json::json!({ "ready": false, "reason": reason }));
}

fn print(line: &serde_json::Value) {
    let mut out = std::io::stdout().lock();
    // Nobody may be reading: that is the supervisor's affair.
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// A token that is cancelled on SIGINT or SIGTERM. Must be called inside a tokio runtime.
pub fn shutdown_on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        wait_for_signal().await;
        tracing::info!("stopping");
        cancel.cancel();
    });
    token
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
