//! What the command lines for people share, such as `dovetail ask` and `dovetail-worker chat`: the options that
//! choose tokens and the form of answers, answers and lines printed for readers that may go, the memory that a measurement took. It runs no model and
//! knows no pool.
//!
//! Everything that a command prints leaves through here, and is made [`harmless`] on its way: a command cannot forget it.
//! `println!` and the like are denied by a lint where a stranger's words are about.

mod constraint;
mod memory;
mod output;
mod printer;
mod sampling;

pub use constraint::{ConstraintArgumentError, ConstraintArguments};
pub use dovetail_units::{harmless, harmless_within};
pub use memory::peak_rss_bytes;
pub use output::{
    CLOSED_EXIT_CODE, OutputError, complain, print_line, print_note, print_notes, print_text,
};
pub use printer::Printer;
pub use sampling::{SamplingArguments, Seed};
