//! What a test says: the steps that most tests have in common.

use dovetail_commitment::BatchRoot;
use dovetail_sv2::messages::{DeclareMiningJob, NewExtendedMiningJob, SubmitSharesExtended};

use crate::device::Device;
use crate::support::declarator::{accept_declaration, declaration, refuse_declaration};
use crate::support::pool::{accept_job, batch_of, pools_tip};
use crate::support::{Fixture, Played, Setup};

/// A worker with a session, a device behind it and a connection to its declarator.
pub(crate) struct Script {
    pub(crate) fixture: Fixture,
    pub(crate) pool: Played,
    pub(crate) device: Device,
    pub(crate) declarator: Played,
}

impl Script {
    /// Devices are to hash jobs on own templates.
    pub(crate) async fn start() -> Self {
        let setup = Setup::with_devices("own-templates");
        Self::on(Fixture::start(setup).await).await
    }

    pub(crate) async fn on(fixture: Fixture) -> Self {
        let pool = fixture.session().await;
        let device = Device::connect(fixture.firmware()).await;
        let declarator = fixture.declarator().await;
        Self {
            fixture,
            pool,
            device,
            declarator,
        }
    }

    /// Gives a token, and takes the declaration.
    pub(crate) async fn declared(&mut self) -> DeclareMiningJob {
        declaration(&mut self.declarator).await
    }

    /// The declarator accepts the declaration, and the pool the job, by this number.
    pub(crate) async fn accept(&mut self, declared: &DeclareMiningJob, job_id: u32) {
        accept_declaration(&mut self.declarator, declared).await;
        accept_job(&mut self.pool, job_id).await;
    }

    /// The declarator refuses the declaration.
    pub(crate) async fn refuse(&mut self, declared: &DeclareMiningJob, code: &str) {
        refuse_declaration(&mut self.declarator, declared, code).await;
    }

    /// The pool has a job of its own on the tip that the device is on.
    pub(crate) async fn pool_follows(&mut self, job_id: u32) {
        pools_tip(&mut self.pool, job_id, self.device.tip()).await;
    }

    /// The device finds a share of the job, and the pool gets it.
    pub(crate) async fn share_of(&mut self, job: &NewExtendedMiningJob) -> SubmitSharesExtended {
        self.device.find_share(job).await;
        self.pool.expect().await
    }

    /// Has the worker finish a task and register its batch.
    pub(crate) async fn batch(&mut self) -> BatchRoot {
        self.fixture.batch(&mut self.pool).await
    }

    /// The pool takes the batch again, after its claim has failed.
    pub(crate) async fn batch_again(&mut self, root: BatchRoot) {
        batch_of(&mut self.pool, root).await;
    }

    /// The pool ends the session, and takes the worker's next one.
    pub(crate) async fn with_pool_again(self) -> Self {
        drop(self.pool);
        let pool = self.fixture.session().await;
        Self { pool, ..self }
    }

    pub(crate) async fn stop(self) {
        self.fixture.stop().await;
    }
}
