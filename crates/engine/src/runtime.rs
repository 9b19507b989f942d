//! What the computation runs on: a kernel and threads. Neither changes a bit of the result.

use rayon::prelude::*;

use crate::EngineError;
use crate::kernels::Kernel;

/// Below this many products a second thread costs more than it brings.
const PRODUCTS_PER_PART_MIN: usize = 1 << 16;

/// A kernel and a pool of threads.
#[derive(Debug)]
pub struct Runtime {
    pub(crate) kernel: Kernel,
    threads: rayon::ThreadPool,
}

impl Runtime {
    /// The machine's fastest kernel on this many threads; 0 takes one per core.
    ///
    /// # Errors
    /// [`EngineError::Threads`] if the system starts no threads.
    pub fn new(threads: usize) -> Result<Self, EngineError> {
        Self::with_kernel(threads, Kernel::best())
    }

    /// The same with a given kernel.
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn with_kernel(threads: usize, kernel: Kernel) -> Result<Self, EngineError> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("engine-{index}"))
            .build()
            .map_err(|_| EngineError::Threads)?;
        Ok(Self { kernel, threads })
    }

    /// How many threads compute.
    pub fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// The kernel in use.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Runs `work` on the pool's threads: what it spawns stays there.
    pub(crate) fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.threads.install(work)
    }

    /// What `work` makes of each item, side by side. What it does with [`Runtime::each`] splits further.
    pub(crate) fn map<T: Sync, R: Send>(
        &self,
        items: &[T],
        work: impl Fn(&T) -> R + Send + Sync,
    ) -> Vec<R> {
        self.run(|| items.par_iter().map(work).collect())
    }

    /// What `work` makes of each number below `count`, side by side, in order. For work that runs on the pool already.
    pub(crate) fn collect<R: Send>(
        &self,
        count: usize,
        work: impl Fn(usize) -> R + Send + Sync,
    ) -> Vec<R> {
        (0..count).into_par_iter().map(work).collect()
    }

    /// Into how many parts work of this many products is worth splitting.
    pub(crate) fn parts(&self, products: usize) -> usize {
        (products / PRODUCTS_PER_PART_MIN).clamp(1, self.threads())
    }

    /// Calls `work` for each item, side by side where there are `products` enough.
    pub(crate) fn each<T: Send>(
        &self,
        products: usize,
        items: Vec<T>,
        work: impl Fn(T) + Send + Sync,
    ) {
        if self.parts(products) == 1 {
            items.into_iter().for_each(work);
        } else {
            items.into_par_iter().for_each(work);
        }
    }
}
