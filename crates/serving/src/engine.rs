//! What tasks run on: the models, and the threads that compute.

use dovetail_engine::Runtime;

use crate::models::Models;

/// What tasks run on.
#[derive(Debug)]
pub struct Engine {
    /// The models that are served; more may arrive.
    pub models: Models,
    /// Kernel and threads.
    pub runtime: Runtime,
    /// How much of earlier prompts is kept for later ones that begin the same, in bytes.
    pub prefix_bytes_max: usize,
}
