//! The log through its public doors, on real files.

#![allow(clippy::unwrap_used)]

mod behaviour;
mod crash;
mod damage;
mod faults;
mod kill;
mod model;
mod recycled;
mod slow;
mod support;
