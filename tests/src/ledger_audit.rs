//! What an operator asks of the ledger, as a test asks it.

use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::postgres::DAEMONS_ROLE;
use crate::process::output;
use crate::program;
use crate::scenario::{Layout, Scenario};

impl Layout<'_> {
    /// Makes the ledger's tables as their owner, and gives daemons what they need.
    pub(crate) fn migrate(&self, config: &str, owner_url: &str) -> anyhow::Result<()> {
        let owner = self.write("owner.url", owner_url)?;
        let mut command = Command::new(program("dovetail-pool"));
        command.args(["--config", config, "ledger", "migrate"]);
        command.args(["--owner-url-file", &owner, "--role", DAEMONS_ROLE]);
        output(&mut command)?;
        Ok(())
    }
}

impl Scenario {
    /// What `dovetail-pool ledger audit` prints, if every rule of the ledger holds.
    ///
    /// # Errors
    /// If one does not: what the command says.
    pub fn ledger_audit(&self) -> anyhow::Result<Value> {
        self.pool_says(&["ledger", "audit", "--json"])
            .context("the ledger's audit")
    }

    /// What a command of the pool's program prints as JSON.
    ///
    /// # Errors
    /// If it fails, or prints something else.
    pub fn pool_says(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut command = Command::new(program("dovetail-pool"));
        command.arg("--config").arg(self.file("pool.toml"));
        command.args(arguments);
        Ok(serde_json::from_str(output(&mut command)?.trim())?)
    }

    /// Makes a key of the operator's with this budget; its secret.
    ///
    /// # Errors
    /// If the pool's program refuses.
    pub fn new_key(&self, name: &str, budget_msat: i64) -> anyhow::Result<String> {
        let budget = budget_msat.to_string();
        let add = [
            "keys",
            "add",
            "--json",
            "--name",
            name,
            "--budget-msat",
            &budget,
        ];
        let made = self.pool_says(&add)?;
        let secret = made["secret"].as_str().context("no secret is shown")?;
        Ok(secret.to_owned())
    }
}
