//! Work of the library on a stack of its own, so that how deep it may go does not depend on who calls.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Enough for what the bounds of a grammar let it recurse, in a build without optimisation too.
const STACK_BYTES: usize = 32 << 20;

/// Why work gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoResult {
    /// It panicked, as it does everywhere.
    Panicked,
    /// The system starts no thread, or has no memory for its stack. That is this machine's matter, and may pass.
    NoThread,
}

/// What `work` gives. The memory is taken page by page as it is used.
pub(crate) fn on_a_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NoResult> {
    on_a_stack_of(STACK_BYTES, work)
}

fn on_a_stack_of<T: Send>(bytes: usize, work: impl FnOnce() -> T + Send) -> Result<T, NoResult> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("guide".to_owned())
            .stack_size(bytes)
            .spawn_scoped(scope, || catch_unwind(AssertUnwindSafe(work)));
        let thread = thread.map_err(|_| NoResult::NoThread)?;
        let done = thread.join().map_err(|_| NoResult::Panicked)?;
        done.map_err(|_| NoResult::Panicked)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_from_a_thread_that_does_not_start() {
        assert_eq!(on_a_stack(|| 7), Ok(7));
        let panicked = on_a_stack(|| assert!(std::hint::black_box(false)));
        assert_eq!(panicked, Err(NoResult::Panicked));
        // More than an address space has.
        let impossible = on_a_stack_of(1 << 60, || 7);
        assert_eq!(impossible, Err(NoResult::NoThread));
    }
}
