//! Plain firmware of a scenario: programs that hash for an account and know nothing of models.

use serde_json::Value;

use crate::process::Daemon;
use crate::scenario::{AUTHORITY_PUBLIC, START_TIME_MAX, Scenario};

impl Scenario {
    /// Starts one that hashes on one thread for this `user_identity`; it stops when what is returned is dropped. `name` is that
    /// of its log.
    ///
    /// # Errors
    /// If it does not start.
    pub fn spawn_hasher(&self, name: &str, user: &str) -> anyhow::Result<(Daemon, Value)> {
        let arguments = [
            "hash",
            "--pool",
            &self.mining,
            "--authority-key",
            AUTHORITY_PUBLIC,
            "--user",
            user,
        ];
        let mut hasher = self.layout().spawn(name, "dovetail-worker", &arguments)?;
        let ready = hasher.ready(START_TIME_MAX)?;
        Ok((hasher, ready))
    }

    pub(crate) fn start_hasher(
        &mut self,
        tell: &mut impl FnMut(&str, &Value),
    ) -> anyhow::Result<()> {
        let (hasher, ready) = self.spawn_hasher("hasher", "hasher.cpu")?;
        tell("hasher", &ready);
        self.hasher = Some(hasher);
        Ok(())
    }
}
