//! A node that gets solved blocks besides the source of their templates: one that takes whole blocks, or a template
//! provider, which takes a block as the solution of a template of its own with the same transactions.

use crate::block_door::BlockDoor;
use crate::handle::TemplateHandle;

/// A node that gets every solved block.
#[derive(Debug, Clone)]
pub struct Sink {
    /// What the log calls it.
    pub(super) name: String,
    pub(super) way: Way,
}

/// What it takes.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// Whole blocks.
    Blocks(BlockDoor),
    /// Solutions of its own templates.
    Solutions(TemplateHandle),
}

impl Sink {
    /// A node that takes whole blocks.
    pub(crate) fn node(name: String, door: BlockDoor) -> Self {
        Self {
            name,
            way: Way::Blocks(door),
        }
    }

    /// A template source.
    pub(crate) fn source(name: String, handle: TemplateHandle) -> Self {
        Self {
            name,
            way: Way::Solutions(handle),
        }
    }
}
