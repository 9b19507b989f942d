//! The migrations are compiled in, and lie outside this crate.

fn main() {
    println!("cargo::rerun-if-changed=../../migrations");
}
