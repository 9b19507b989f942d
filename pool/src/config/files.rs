//! What the configuration names besides itself, as `--check-config` looks at it. Nothing is connected to, made or
//! changed, and of a model only its head is read.

use anyhow::{Context, anyhow, ensure};
use dovetail_daemon::Secret;
use dovetail_engine::Head;
use dovetail_ledger::Ledger;
use dovetail_lnurl::Lnurl;

use super::Config;
use crate::keys::Keys;
use crate::validation::RemoteValidator;

impl Config {
    /// The secrets, by their keys.
    pub fn secrets(&self) -> Vec<(&'static str, &Secret)> {
        let mut secrets = vec![
            (
                "mining.authority_secret_key",
                &self.mining.authority_secret_key,
            ),
            ("job_declarator.token_key", &self.job_declarator.token_key),
            ("ledger.url", &self.ledger.url),
            ("inference.receipt_key", &self.inference.receipt_key),
            ("inference.vrf_key", &self.inference.vrf_key),
        ];
        let content_key = self.inference.content_key.as_ref();
        secrets.extend(content_key.map(|secret| ("inference.content_key", secret)));
        let tls_key = self.api.tls_key.as_ref();
        secrets.extend(tls_key.map(|secret| ("api.tls_key", secret)));
        let of_validators = self.audit.validators_secret.as_ref();
        secrets.extend(of_validators.map(|secret| ("audit.validators_secret", secret)));
        if let Some(onchain) = &self.onchain {
            secrets.push(("onchain.descriptor", &onchain.descriptor));
            let password = onchain.user_password.as_ref();
            secrets.extend(password.map(|secret| ("onchain.user_password", secret)));
        }
        secrets
    }

    /// Opens and reads the files that it names. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The first that the pool could not start with.
    pub fn check_files(&self) -> anyhow::Result<()> {
        Keys::check(self)?;
        let url = self.ledger.url.read().context("ledger.url")?;
        Ledger::check_url(&url).context("ledger.url")?;
        if let Some(options) = self.destinations.lnurl_options() {
            Lnurl::new(options).context("destinations.lightning_addresses")?;
        }
        let dir = &self.ledger.dir;
        ensure!(
            !dir.exists() || dir.is_dir(),
            "ledger.dir: {} is no folder",
            dir.display()
        );
        for path in &self.inference.models {
            Head::of_file(path).with_context(|| format!("inference.models: {}", path.display()))?;
        }
        if let Some(secret) = &self.audit.validators_secret {
            secret.look_at_key().context("audit.validators_secret")?;
        }
        if let Some(onchain) = &self.onchain {
            onchain.credentials().map_err(|reason| anyhow!(reason))?;
        }
        for url in &self.audit.validators {
            RemoteValidator::new(url, None)
                .map_err(|reason| anyhow!("audit.validators: {reason}"))?;
        }
        Ok(())
    }
}
