//! Runs models for tasks, and knows no Bitcoin: [`tasks`] takes them and gives events back, [`transcripts`] keeps
//! what was finished until it is claimed, [`models`] and [`fetch`] get the model files.
//!
//! The program that uses this crate knows who gives the tasks and what a batch of transcripts earns.

pub mod fetch;
pub mod models;
mod scheduler;
pub mod tasks;
pub mod transcripts;
