//! `[pool.job_declarator]`: jobs on templates of our own.

use std::time::Duration;

use dovetail_sv2::AuthorityPublicKey;
use serde::Deserialize;

/// Where jobs on our own templates are declared, and which.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobDeclarator {
    /// host:port.
    pub address: String,
    /// The authority key that its certificate must be signed with. Without it the server is not
    /// authenticated, which is for tests.
    pub authority_public_key: Option<AuthorityPublicKey>,
    /// What devices hash between batches.
    #[serde(default)]
    pub between_batches: BetweenBatches,
    /// The least time between two declared jobs on one tip of which the second only has better fees, or
    /// follows a batch that is settled, in s. A new tip and a new batch never wait.
    #[serde(default = "renew_interval_s")]
    pub renew_interval_s: u64,
}

/// What devices hash between batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BetweenBatches {
    /// Jobs on our own templates.
    #[default]
    OwnTemplates,
    /// The pool's jobs.
    PoolJobs,
}

impl JobDeclarator {
    /// Whether the values are within their bounds.
    pub(super) fn is_valid(&self) -> bool {
        (1..=3_600).contains(&self.renew_interval_s)
    }

    /// [`JobDeclarator::renew_interval_s`] as a duration.
    pub fn renew_interval(&self) -> Duration {
        Duration::from_secs(self.renew_interval_s)
    }
}

fn renew_interval_s() -> u64 {
    // Fees grow by little in it, and a full list of transactions is over 100 KiB.
    30
}

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigRefused};
    use super::*;

    fn parse(more: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(&format!(
            "[worker]\nkey_file = \"k\"\nmodels = [\"m\"]\n[pool]\naddress = \"a:1\"\n\
             authority_public_key = \"9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72\"\n\
             [pool.job_declarator]\naddress = \"a:2\"\n{more}\n[templates]\nkind = \"embedded\"\n"
        ))
    }

    fn declarator(config: &Config) -> JobDeclarator {
        config.pool[0].job_declarator.clone().unwrap()
    }

    #[test]
    fn our_own_templates_are_hashed_unless_the_miner_says_otherwise() {
        let default = declarator(&parse("").unwrap());
        assert_eq!(default.between_batches, BetweenBatches::OwnTemplates);
        assert_eq!(default.renew_interval(), Duration::from_secs(30));
        let pools = declarator(&parse("between_batches = \"pool-jobs\"").unwrap());
        assert_eq!(pools.between_batches, BetweenBatches::PoolJobs);
        assert!(parse("between_batches = \"none\"").is_err());
    }

    #[test]
    fn a_renewal_at_every_moment_is_refused() {
        for (seconds, expected) in [
            (0, Err(ConfigRefused::RenewInterval)),
            (1, Ok(())),
            (3_600, Ok(())),
            (3_601, Err(ConfigRefused::RenewInterval)),
        ] {
            let config = parse(&format!("renew_interval_s = {seconds}")).unwrap();
            assert_eq!(config.validate(), expected);
        }
    }
}
