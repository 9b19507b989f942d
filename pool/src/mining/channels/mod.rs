//! Mining channels: opening, updating and closing them.

mod open;
