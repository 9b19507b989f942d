//! Runs models for tasks, and knows no Bitcoin: [`tasks`] takes them and gives events back, [`transcripts`] keeps
//! what was finished until it is claimed, [`models`] and [`fetch`] get the model files.
//!
//! Who gives the tasks, and what a batch of transcripts earns, is the affair of the program that uses this crate.

pub mod fetch;
pub mod models;
mod scheduler;
pub mod tasks;
pub mod transcripts;
