//! What else stands on papers, and is no answer to anything.

use super::paper::Paper;
use super::parties::one_of;
use crate::rng::Rng;

impl Paper<'_> {
    /// A remark: terms, thanks, the page.
    pub(super) fn remark(&mut self, rng: &mut Rng) -> String {
        let labels = self.bill.labels;
        let text = match rng.below(5) {
            0 | 1 => one_of(rng, labels.terms).replace(
                "{n}",
                [7, 8, 10, 14, 21, 30, 60][rng.index(7)]
                    .to_string()
                    .as_str(),
            ),
            2 | 3 => one_of(rng, labels.thanks).to_owned(),
            _ => {
                let page = one_of(rng, labels.page);
                let (at, of) = (rng.between(1, 2), rng.between(2, 4));
                match rng.below(3) {
                    0 => format!("{page} {at} / {of}"),
                    1 => format!("{page} {at}"),
                    _ => format!("- {at} -"),
                }
            }
        };
        self.pen.scanned(rng, text)
    }

    /// The paper's foot: remarks, and ways to reach and to pay the vendor, in lines or in columns.
    pub(super) fn foot(&mut self, rng: &mut Rng) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..rng.below(4) {
            lines.push(self.remark(rng));
        }
        let vendor_here = self.plan.header == 6;
        let mut reach: Vec<String> = (0..rng.below(5)).map(|_| self.reach(rng)).collect();
        if vendor_here {
            let block = self.vendor_block(rng);
            reach.splice(0..0, block);
        } else if rng.chance(15) {
            reach.insert(0, self.bill.vendor.clone());
        }
        if reach.is_empty() {
            return lines;
        }
        lines.push(String::new());
        if rng.chance(50) {
            lines.extend(reach);
        } else {
            let mark = rng.pick(&[" · ", " | ", "   ", " - "]);
            lines.extend(reach.chunks(3).map(|chunk| chunk.join(mark)));
        }
        lines
    }
}
