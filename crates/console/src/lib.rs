//! What the command lines for people share, such as `dovetail ask` and `dovetail-worker chat`: the options that
//! choose tokens, answers printed as they come in. It runs no model and
//! knows no pool.

mod printer;
mod sampling;

pub use printer::Printer;
pub use sampling::{SamplingArguments, Seed};
