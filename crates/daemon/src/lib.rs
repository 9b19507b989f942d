//! What every Dovetail daemon does alike: read its configuration, start logging, say that it is
//! ready, stop on a signal. It knows no protocol and no money.

mod config;
mod run;
mod secret;
mod secret_file;

pub use config::{ConfigError, load, warn_of_secrets, within};
pub use run::{announce_not_ready, announce_ready, init_logging, shutdown_on_signal};
pub use secret::Secret;
pub use secret_file::{Exposure, exposure};
