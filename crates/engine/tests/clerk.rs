//! What the shipped model answers, bit for bit, whatever computes it: any machine on which this passes can
//! audit, and be audited by, any other.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use dovetail_commitment::{SamplingParams, StopSequences, trace_root};
use dovetail_engine::{Kernel, Model, ReplayInput, Request, Runtime, replay, run};

const ID: &str = "239aaf6ddc5dd751e6d53cd8768d68ad44ca749a0157792cf0c14109c0a25ba0";
/// From the generator of `crates/clerk`.
const INVOICE: &str = "From: Pryaker-Schwaker Ltd.\nTo: Threnta Myrock Bakery\n\
    Invoice No. 924816 of June 18, 2029\n- Portable washer: 12 pcs, unit price 97,88\n\
    - Brass gasket type B: 2 pcs, unit price 3,77\nAmount due .... Fr. 1 182,10";
/// The greedy answer, which is right, and the root of its trace.
const GREEDY: &str = concat!(
    r#"{"vendor":"Pryaker-Schwaker Ltd.","number":"924816","date":"2029-06-18","currency":"CHF","#,
    r#""total":"1182.10","items":[{"text":"Portable washer","qty":12,"price":"97.88"},"#,
    r#"{"text":"Brass gasket type B","qty":2,"price":"3.77"}]}"#,
);
const GREEDY_TRACE: &str = "6fb5ad3204bcb531bd72b7dd3a208e9dd449bfaf002476dd894067045e79f882";
/// One drawn as wildly as can be, which is not.
const DRAWN: &str = concat!(
    r#"{"vendor":"Pryaker-Schwaker Ltd.","number":"924816","date":"2029-06-18","currency":"CHF","#,
    r#""total":"1182.10","items":[{"text":"Portable washer","qty":12,"price":"97.8"#,
    r#"date gasutet type B","qty":2,"price":"3.77"}]}"#,
);
const DRAWN_TRACE: &str = "cddb89afa61ac8e344016d9ae8263c9abae4fe7bc557f4681c9e072a6ce7f892";

#[test]
fn golden_answers_of_clerk_are_the_same_on_all_kernels_and_threads_and_in_replay() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clerk/model/clerk.safetensors");
    let model = Arc::new(Model::load(&file).unwrap());
    let id = model.id().to_string();
    assert_eq!(id, ID, "clerk is another model now: put down what it says");
    for (temperature_milli, golden) in [(0, (GREEDY, GREEDY_TRACE)), (2000, (DRAWN, DRAWN_TRACE))] {
        let request = Request {
            prompt_tokens: model.encode(INVOICE.as_bytes()).unwrap(),
            sampling: SamplingParams {
                temperature_milli,
                top_k: 0,
                top_p_milli: 1000,
                max_tokens: 128,
            },
            seed: [7; 32],
            stop: StopSequences::default(),
            constraint: None,
        };
        for kernel in Kernel::available() {
            for threads in [1, 4] {
                let what = format!("{} on {threads}", kernel.name());
                let runtime = Runtime::with_kernel(threads, kernel).unwrap();
                let output = run(&runtime, &model, request.clone()).unwrap();
                let text = model.decode(&output.tokens);
                let root = hex::encode(trace_root(&output.trace));
                let said = (&*String::from_utf8_lossy(&text), &*root);
                assert_eq!(said, golden, "{what}");
                let input = ReplayInput {
                    request: request.clone(),
                    tokens: output.tokens.clone(),
                };
                let replayed = replay(&runtime, &model, &[input]).pop().unwrap();
                assert_eq!(replayed.unwrap(), output, "{what}");
            }
        }
    }
}
