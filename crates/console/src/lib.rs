//! What the command lines for people share, such as `dovetail ask` and `dovetail-worker chat`: the options that
//! choose tokens, answers and lines printed for readers that may go, the memory that a measurement took. It runs no model and
//! knows no pool.

mod memory;
mod output;
mod printer;
mod sampling;

pub use memory::peak_rss_bytes;
pub use output::{CLOSED_EXIT_CODE, OutputError, print_line};
pub use printer::Printer;
pub use sampling::{SamplingArguments, Seed};
