//! What a pool tells programs that watch it: events, and the sinks that take them. For people there is the log;
//! for money there is the ledger.
//!
//! It knows neither the pool's parts nor where a sink's output ends up. A new consumer (metrics, a message bus) is
//! a [`Sink`] of its own, and no place that emits events changes for it.

mod event;
mod json_lines;

use std::fmt;
use std::sync::Arc;

pub use event::{Event, Holding};
pub use json_lines::JsonLines;

/// Something that takes events. It is called on the path of a share, so it must neither block for long nor fail:
/// what it cannot take, it drops.
pub trait Sink: fmt::Debug + Send + Sync {
    /// Takes one event.
    fn take(&self, event: &Event<'_>);
}

/// Where a pool's events go: any number of sinks, in their order. Without one they go nowhere, which is what
/// tests of a part want. Clones share the sinks.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    sinks: Vec<Arc<dyn Sink>>,
}

impl Telemetry {
    /// Events go nowhere.
    pub const fn none() -> Self {
        Self { sinks: Vec::new() }
    }

    /// As before, and to this sink.
    #[must_use]
    pub fn and(mut self, sink: impl Sink + 'static) -> Self {
        self.sinks.push(Arc::new(sink));
        self
    }

    /// Hands the event to every sink.
    pub fn emit(&self, event: &Event<'_>) {
        for sink in &self.sinks {
            sink.take(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl Sink for Kept {
        fn take(&self, event: &Event<'_>) {
            self.0.lock().unwrap().push(event.to_json());
        }
    }

    #[test]
    fn every_sink_takes_every_event_in_order() {
        let (first, second) = (Kept::default(), Kept::default());
        let telemetry = Telemetry::none().and(first.clone()).and(second.clone());
        for task in ["aa", "bb"] {
            telemetry.emit(&Event::TaskFinished {
                task,
                output_tokens: 1,
            });
        }
        let taken = first.0.lock().unwrap();
        assert!(taken.len() == 2 && taken[0].contains("aa") && taken[1].contains("bb"));
        assert_eq!(*taken, *second.0.lock().unwrap());
    }
}
