//! Work of the library on a stack of its own, so that how deep it may go does not depend on who calls.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Enough for what the bounds of a grammar let it recurse, in a build without optimisation too.
const STACK_BYTES: usize = 32 << 20;

/// What `work` gives; nothing if it panics or the system starts no thread. The memory is taken page by page as it is used.
pub(crate) fn on_a_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("guide".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || catch_unwind(AssertUnwindSafe(work)).ok());
        thread.ok()?.join().ok()?
    })
}
