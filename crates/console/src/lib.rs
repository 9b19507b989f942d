//! What the command lines for people share, such as `dovetail ask` and `dovetail-worker chat`: the options that
//! choose tokens, answers printed as they come in, the memory that a measurement took. It runs no model and
//! knows no pool.

mod memory;
mod printer;
mod sampling;

pub use memory::peak_rss_bytes;
pub use printer::Printer;
pub use sampling::{SamplingArguments, Seed};
