//! Makes an authority key pair for a pool or a job declarator: writes the secret key to a new file that only its
//! owner may read, and prints the public key, by which miners recognise the server.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use dovetail_sv2::AuthorityKeys;

fn main() -> io::Result<()> {
    let Some(path) = std::env::args_os().nth(1) else {
        return Err(io::Error::other("usage: authority_key FILE"));
    };
    let keys = AuthorityKeys::generate();
    // A file that is there already may hold a key that a pool runs with: it is never overwritten.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{}", keys.secret().reveal())?;
    file.sync_all()?;
    writeln!(io::stdout(), "{}", keys.public())
}
