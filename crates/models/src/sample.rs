//! What an import lets its model read, to see how large values get. It is part of what an import is, so it never changes
//! without a new import version: the same model gives the same peaks everywhere.

use dovetail_engine::Model;
use dovetail_units::SplitMix64;

/// Texts of several kinds; the largest values of trained models stand at the first position, and at the first
/// punctuation and line breaks.
const TEXT: &str = "Invoice No. 2026-0417\n\nDear Ms. Keller,\n\nThe quick brown fox, 12 of them, jumped over \
    3 lazy dogs. \"Why?\" she asked; nobody answered...\n\n| item | qty | price |\n|---|---|---|\n| Cable | 3 | 1.234,56 |\n\n\
    fn main() {\n    let total: u64 = (1..=10).map(|x| x * x).sum();\n    println!(\"{total}\");\n}\n\n\
    {\"name\": \"J\u{fc}rgen\", \"mail\": \"j@example.org\", \"tags\": [\"a\", null, true]}\n\n\
    Die Rechnung ist bis zum 14.10.2026 zu bezahlen. Le d\u{e9}lai est de trente jours. \u{65e5}\u{672c}\u{8a9e} \u{1f600}\n\n\
    https://example.org/a?b=c&d=%20 <p class=\"x\">text</p> 0x7fff 1e-5 -42 +49 40 1234567\n";
/// Tokens of the text, and of a random one.
const LONG: usize = 256;
/// Sequences that begin with each of some tokens: what the first position holds depends on its token.
const BEGINNINGS: u64 = 32;
/// Tokens of each.
const SHORT: usize = 6;
/// The random tokens come from this.
const SEED: u64 = 0x7065_616b_2074_6f6b;

/// The sequences, each within the context.
pub(crate) fn sequences(model: &Model) -> Vec<Vec<u32>> {
    let arch = &model.manifest().architecture;
    let vocabulary = arch.vocabulary as u64;
    let known = |token: &u32| u64::from(*token) < vocabulary;
    let mut random = SplitMix64::new(SEED);
    let mut draw = move || u32::try_from(random.below(vocabulary)).unwrap_or(0);
    // A tokenizer that refuses the text has none that matters.
    let mut text = model.encode(TEXT.as_bytes()).unwrap_or_default();
    text.retain(known);
    let mut all = vec![text, (0..LONG).map(|_| draw()).collect()];
    // Control tokens, which begin prompts, are the first ones of many vocabularies.
    let control = (0..4).chain(model.manifest().end_tokens.iter().copied());
    let control: Vec<u32> = control.filter(known).collect();
    let others = (0..BEGINNINGS).map(|_| draw()).collect();
    for first in [control, others].concat() {
        let rest = (1..SHORT).map(|_| draw());
        all.push([first].into_iter().chain(rest).collect());
    }
    for tokens in &mut all {
        tokens.truncate(LONG.min(arch.context_tokens));
    }
    all.retain(|tokens| !tokens.is_empty());
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_engine::tiny;

    #[test]
    fn the_texts_fit_the_model_and_begin_with_many_tokens() {
        let model = Model::from_bytes(&tiny::generate(1)).unwrap();
        let sequences = sequences(&model);
        assert_eq!(sequences.len(), 2 + 4 + 1 + 32);
        assert!(sequences.iter().flatten().all(|token| *token < 258));
        assert!(
            sequences
                .iter()
                .all(|tokens| (1..=256).contains(&tokens.len()))
        );
        assert_eq!(sequences, super::sequences(&model));
    }
}
