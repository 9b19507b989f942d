//! The steps from a template to a job that the declarator and the pool accepted, one after the other.
//! Each owns what it works with, so that dropping it is all it takes to give a declaration up.

use std::sync::Arc;

use dovetail_commitment::WorkerKey;
use dovetail_sv2::Outbox;
use dovetail_templates::{TemplateError, TemplateHandle, TransactionData, WorkSnapshot};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::JobError;
use crate::coinbase::JobCoinbase;
use crate::declarator_client::{
    Declaration, Declarator, DeclaratorOptions, DeclareError, JobToken,
};

/// Where a declaration is.
pub(super) enum Step {
    /// Nothing is being declared.
    Idle,
    /// The template's transactions and a token are being fetched.
    Preparing(BoxFuture<'static, Result<Prepared, JobError>>),
    /// The declarator looks at the job.
    Declaring(BoxFuture<'static, Declared>),
    /// The pool looks at it.
    Handing {
        /// Of the request.
        request_id: u32,
        /// When it is given up.
        until: Instant,
        /// Where the declarator takes the job's blocks.
        declarator: Outbox,
    },
}

/// The result of a step.
pub(super) enum Done {
    Prepared(Result<Prepared, JobError>),
    Declared(Declared),
}

/// All that is needed to declare.
pub(super) struct Prepared {
    pub(super) declarator: Declarator,
    pub(super) token: JobToken,
    pub(super) data: TransactionData,
}

/// The declarator's answer.
pub(super) struct Declared {
    pub(super) declarator: Declarator,
    /// The token for the pool.
    pub(super) token: Result<Vec<u8>, DeclareError>,
}

impl Step {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// Waits for the end of what we do ourselves; the pool's answer comes as an event.
    pub(super) async fn done(&mut self) -> Done {
        match self {
            Self::Preparing(step) => Done::Prepared(step.await),
            Self::Declaring(step) => Done::Declared(step.await),
            Self::Idle | Self::Handing { .. } => std::future::pending().await,
        }
    }

    /// Fetches the transactions of a template, and a token over the connection that there is or another.
    pub(super) fn prepare(
        connection: Option<Declarator>,
        options: DeclaratorOptions,
        name: WorkerKey,
        templates: TemplateHandle,
        template_id: u64,
    ) -> Self {
        let prepare = async move {
            let data = templates.transaction_data(template_id).await;
            let data = data.map_err(|error| match error {
                TemplateError::StaleTemplate(_) | TemplateError::UnknownTemplate(_) => {
                    JobError::TemplateGone
                }
                error => JobError::Templates(error.to_string()),
            })?;
            // A connection that is left over may have ended long ago: that is no reason to fail.
            if let Some(mut declarator) = connection
                && let Ok(token) = declarator.allocate().await
            {
                return Ok(Prepared {
                    declarator,
                    token,
                    data,
                });
            }
            let mut declarator = Declarator::open(&options, name).await?;
            let token = declarator.allocate().await?;
            Ok(Prepared {
                declarator,
                token,
                data,
            })
        };
        Self::Preparing(prepare.boxed())
    }

    /// Declares the job.
    pub(super) fn declare(
        prepared: Prepared,
        work: Arc<WorkSnapshot>,
        coinbase: Arc<JobCoinbase>,
    ) -> Self {
        let declare = async move {
            let Prepared {
                mut declarator,
                token,
                data,
            } = prepared;
            let declaration = Declaration {
                version: work.template.version,
                coinbase: &coinbase,
                transactions: &data.transactions,
                excess_data: &data.excess_data,
            };
            let token = declarator.declare(&token, &declaration).await;
            Declared { declarator, token }
        };
        Self::Declaring(declare.boxed())
    }
}
