//! The tokens of custom jobs: whose they are, and that each is good once.

use dovetail_jd::token::{JobToken, TokenError};

use dovetail_units::time::unix_now;

use super::codes::BAD_TOKEN;
use super::not_yet;
use crate::mining::connection::Connection;
use crate::mining::fields::StandardCode;

impl Connection {
    /// Whether the token has our MAC over this account and content, and holds now.
    pub(super) fn check_token(
        &self,
        token: &JobToken,
        account: &str,
        content: &[u8; 32],
    ) -> Result<(), StandardCode> {
        self.shared
            .token_key
            .verify(token, account, content, unix_now())
            .map_err(|error| bad_token(account, error))
    }

    /// A token is good once.
    pub(super) async fn spend_token(&self, token: &JobToken) -> Result<(), StandardCode> {
        let ledger = &self.shared.ledger;
        let spent = ledger
            .spend_job_token(token.id, token.expires_at_unix)
            .await
            .map_err(|error| not_yet(&error))?;
        spent.then_some(()).ok_or(BAD_TOKEN)
    }
}

pub(super) fn bad_token(account: &str, error: TokenError) -> StandardCode {
    tracing::info!(account, %error, "a job's token was not taken");
    BAD_TOKEN
}
