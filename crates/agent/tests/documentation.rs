//! What the documentation shows is what compiles.

const PAGE: &str = include_str!("../../../docs/api.md");
const EXAMPLE: &str = include_str!("../examples/ask.rs");

#[test]
fn the_page_shows_the_example_program_to_the_letter() {
    let shown = format!("```rust\n{EXAMPLE}```\n");
    assert!(
        PAGE.contains(&shown),
        "copy crates/agent/examples/ask.rs to docs/api.md"
    );
}
