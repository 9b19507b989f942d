//! What the pool is told of the devices' hash rate.

use std::time::{Duration, Instant};

use dovetail_sv2::messages::{U256Owned, UpdateChannel};

use dovetail_sv2::OutboxError;

use super::{Session, Worker};

/// The least time between two reports of our hash rate, and the factor that makes one worthwhile. The
/// pool steers by our shares as well; this only helps it where devices come or go.
const HASH_RATE_INTERVAL: Duration = Duration::from_secs(60);
const HASH_RATE_FACTOR: f32 = 1.5;

impl Worker {
    /// Tells the pool what devices hash, when that has changed much.
    pub(super) fn tell_hash_rate(&self, session: &mut Session) -> Result<(), OutboxError> {
        let (told, at) = session.told_hash_rate;
        if at.elapsed() < HASH_RATE_INTERVAL {
            return Ok(());
        }
        let nominal_hash_rate = self.options(session.index).nominal_hash_rate;
        if !differs_much(told, nominal_hash_rate) {
            return Ok(());
        }
        tracing::info!(
            told,
            now = nominal_hash_rate,
            "telling the pool what we hash"
        );
        session.told_hash_rate = (nominal_hash_rate, Instant::now());
        session.pool.send(&UpdateChannel {
            channel_id: session.pool.channel().id,
            nominal_hash_rate,
            maximum_target: U256Owned::from([0xff; 32]),
        })?;
        Ok(())
    }
}

/// Whether a hash rate is worth telling after another was told.
fn differs_much(told: f32, now: f32) -> bool {
    now > told * HASH_RATE_FACTOR || now * HASH_RATE_FACTOR < told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hash_rate_that_changed_much_is_told() {
        assert!(!differs_much(100.0, 149.0));
        assert!(differs_much(100.0, 151.0));
        assert!(!differs_much(100.0, 67.0));
        assert!(differs_much(100.0, 66.0));
        assert!(differs_much(0.0, 1.0));
        assert!(!differs_much(0.0, 0.0));
    }
}
