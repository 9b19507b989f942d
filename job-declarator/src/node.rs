//! What the declarator wants of a node: the tip, and judgement on whole blocks.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use dovetail_templates::{TemplateError, TemplateHandle, WorkSnapshot};
use tokio::sync::watch;

/// An answer that is on its way. Dropping it gives up on it.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<(), TemplateError>> + Send + 'a>>;

/// A node: any template source, in practice.
pub trait Node: Send + Sync {
    /// The newest work, and every change of it.
    fn work(&self) -> watch::Receiver<Option<Arc<WorkSnapshot>>>;

    /// Whether that work is worth nothing any more, because the source has been away for too long.
    fn is_stale(&self) -> bool;

    /// Whether a serialised block that lacks only its proof of work would be valid on the tip.
    fn check_block(&self, block: Vec<u8>) -> Answer<'_>;
}

impl Node for TemplateHandle {
    fn work(&self) -> watch::Receiver<Option<Arc<WorkSnapshot>>> {
        self.subscribe()
    }

    fn is_stale(&self) -> bool {
        Self::is_stale(self)
    }

    fn check_block(&self, block: Vec<u8>) -> Answer<'_> {
        Box::pin(Self::check_block(self, block))
    }
}
