//! Papers that other people wrote, with their truth: an honest measure of a model, beside the documents of our own
//! generators. They are fetched when they are measured, lie in no folder of this source, and nothing here is
//! made after them. A folder holds `NAME.txt` and `NAME.json` for each paper.

use std::path::Path;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check::check;

/// Papers of a folder at most, and bytes of each file.
const PAPERS_MAX: usize = 1_000;
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A paper and what it says.
#[derive(Clone, Debug)]
pub struct Paper {
    /// Its file's name.
    pub name: String,
    /// Its text.
    pub text: String,
    /// The truth.
    pub truth: Truth,
}

/// The truth as the set has it; what else it knows is passed over.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Truth {
    /// Who sends it.
    pub vendor_name: Option<String>,
    /// Its number.
    pub invoice_number: Option<String>,
    /// `YYYY-MM-DD`.
    pub invoice_date: Option<String>,
    /// ISO 4217.
    pub currency: Option<String>,
    /// With a point and two decimals.
    pub gross_total: Option<String>,
}

impl Truth {
    /// The fields by the names that answers have.
    fn fields(&self) -> [(&'static str, Option<&str>); 5] {
        [
            ("vendor", self.vendor_name.as_deref()),
            ("number", self.invoice_number.as_deref()),
            ("date", self.invoice_date.as_deref()),
            ("currency", self.currency.as_deref()),
            ("total", self.gross_total.as_deref()),
        ]
    }
}

/// How often a field is right, and of the wrong ones how often the check marks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Figure {
    /// The field.
    pub field: &'static str,
    /// Equal to the truth, blanks folded.
    pub right: usize,
    /// Right ones that the check marks all the same.
    pub right_marked: usize,
    /// Not equal, or no answer at all.
    pub wrong: usize,
    /// Wrong ones that the check marks.
    pub wrong_marked: usize,
}

/// Figures over papers.
#[derive(Clone, Debug, Serialize)]
pub struct Tally {
    /// Papers.
    pub papers: usize,
    /// Those whose answer is of the schema.
    pub valid: usize,
    /// Those with all fields right.
    pub all_right: usize,
    /// Field by field.
    pub fields: Vec<Figure>,
}

impl Default for Tally {
    fn default() -> Self {
        let fields = ["vendor", "number", "date", "currency", "total"];
        Self {
            papers: 0,
            valid: 0,
            all_right: 0,
            fields: fields
                .map(|field| Figure {
                    field,
                    right: 0,
                    right_marked: 0,
                    wrong: 0,
                    wrong_marked: 0,
                })
                .to_vec(),
        }
    }
}

impl Tally {
    /// Counts an answer to a paper; none, if the model could not take the paper in.
    pub fn count(&mut self, paper: &Paper, answer: Option<&str>) {
        let report = check(&paper.text, answer.unwrap_or_default());
        let given: Value = answer
            .and_then(|answer| serde_json::from_str(answer).ok())
            .unwrap_or_default();
        self.papers += 1;
        self.valid += usize::from(report.valid);
        let mut all_right = true;
        for (figure, (field, truth)) in self.fields.iter_mut().zip(paper.truth.fields()) {
            let marked = report.doubts(field);
            let right = same(field, truth, given[field].as_str());
            all_right &= right;
            *match right {
                true => &mut figure.right,
                false => &mut figure.wrong,
            } += 1;
            if marked {
                *match right {
                    true => &mut figure.right_marked,
                    false => &mut figure.wrong_marked,
                } += 1;
            }
        }
        self.all_right += usize::from(all_right);
    }
}

/// Whether the field is right: the same words, whatever blanks are between them; of amounts the same value. (A credit
/// note's total may be printed with its sign or without.)
fn same(field: &str, truth: Option<&str>, given: Option<&str>) -> bool {
    match (truth, given) {
        (Some(truth), Some(given)) if field == "total" => {
            let cents = |text: &str| {
                text.trim_start_matches('-')
                    .parse::<f64>()
                    .ok()
                    .map(|value| (value * 100.0).round())
            };
            cents(truth).is_some() && cents(truth) == cents(given)
        }
        (Some(truth), Some(given)) => truth.split_whitespace().eq(given.split_whitespace()),
        (None, None) => true,
        _ => false,
    }
}

/// The papers of a folder, by name.
///
/// # Errors
/// If a file cannot be read, is larger than any paper, or a truth is not as the set has it.
pub fn papers(folder: &Path) -> anyhow::Result<Vec<Paper>> {
    let mut papers = Vec::new();
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries {
        let path = entry
            .with_context(|| format!("read {}", folder.display()))?
            .path();
        if path.extension().is_none_or(|ending| ending != "txt") {
            continue;
        }
        ensure!(
            papers.len() < PAPERS_MAX,
            "{} has more than {PAPERS_MAX} papers",
            folder.display()
        );
        let truth = read(&path.with_extension("json"))?;
        papers.push(Paper {
            name: path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            // A form feed ends each page.
            text: read(&path)?.replace('\u{c}', "\n"),
            truth: serde_json::from_str(&truth)
                .with_context(|| format!("the truth of {}", path.display()))?,
        });
    }
    ensure!(!papers.is_empty(), "{} has no .txt", folder.display());
    papers.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(papers)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let size = std::fs::metadata(path)
        .with_context(|| format!("read {}", path.display()))?
        .len();
    ensure!(
        size <= FILE_BYTES_MAX,
        "{} has {size} bytes, more than a paper has",
        path.display()
    );
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paper() -> Paper {
        Paper {
            name: "a".to_owned(),
            text: "Kelmor  Ltd\nInvoice no. 117   7 May 2026\nrope  5  10.00  50.00\nTotal due GBP 50.00".to_owned(),
            truth: serde_json::from_str(
                r#"{"vendor_name":"Kelmor Ltd","invoice_number":"117","invoice_date":"2026-05-07","currency":"GBP","gross_total":"50.00","iban":null}"#,
            )
            .unwrap(),
        }
    }

    #[test]
    fn right_and_wrong_fields_are_counted_with_their_marks() {
        let mut tally = Tally::default();
        let answer = r#"{"vendor":"Kelmor Ltd","number":"118","date":"2026-05-07","currency":"GBP","total":"50.00","items":[]}"#;
        tally.count(&paper(), Some(answer));
        tally.count(&paper(), Some("nonsense"));
        tally.count(&paper(), None);
        assert_eq!((tally.papers, tally.valid, tally.all_right), (3, 1, 0));
        let number = &tally.fields[1];
        assert_eq!((number.right, number.wrong, number.wrong_marked), (0, 3, 3));
        let vendor = &tally.fields[0];
        assert_eq!(
            (
                vendor.right,
                vendor.right_marked,
                vendor.wrong,
                vendor.wrong_marked
            ),
            (1, 0, 2, 2)
        );
        tally.count(&paper(), Some(&answer.replace("118", "117")));
        assert_eq!(tally.all_right, 1);
    }

    #[test]
    fn a_folder_gives_its_papers_in_order() {
        let folder = std::env::temp_dir().join(format!("dovetail-papers-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["b", "a"] {
            std::fs::write(folder.join(format!("{name}.txt")), "one\u{c}two").unwrap();
            std::fs::write(folder.join(format!("{name}.json")), r#"{"currency":"EUR"}"#).unwrap();
        }
        let read = papers(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            read.iter().map(|paper| &*paper.name).collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(read[0].text, "one\ntwo");
        assert!(papers(&folder).is_err());
    }
}
