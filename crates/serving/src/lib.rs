//! Runs models for tasks, and knows no Bitcoin: [`task_runner`] takes them and gives events back, [`transcripts`] keeps
//! what was finished until it is claimed, [`models`] are served, and [`downloads`] and [`fetch`] get their files.
//!
//! The program that uses this crate knows who gives the tasks and what a batch of transcripts earns.

pub mod downloads;
pub mod engine;
pub mod fetch;
pub mod models;
mod scheduler;
pub mod task;
pub mod task_runner;
pub mod transcripts;
