//! The check on wrong answers that a model really gave to papers of kinds that it had not learned. The papers are
//! written here after what was reported of them; each wrong field is the reported one.

use super::*;

const NET: &str = r#"{"vendor":"Kelmor Ltd","number":"117","date":"2026-05-07","currency":"GBP","total":"50.00","items":[{"text":"rope","qty":5,"price":"10.00"}]}"#;
const PAPER: &str =
    "Kelmor Ltd\nInvoice no. 117   7 May 2026\nrope  5  10.00  50.00\nTotal due GBP 50.00";

fn doubted(text: &str, answer: &str) -> Vec<String> {
    let report = check(text, answer);
    let fields = report.fields.into_iter().filter(Field::is_doubtful);
    fields.map(|field| field.name).collect()
}

#[test]
fn a_right_answer_is_not_doubted() {
    assert_eq!(doubted(PAPER, NET), [""; 0]);
    let report = check(PAPER, NET);
    assert!(report.valid && !report.is_doubtful());
    assert_eq!(report.sum, Sum::Agrees);
}

/// 1: one-digit days were answered with days that are none, or with another day.
#[test]
fn a_day_that_is_none_or_another_is_doubted() {
    for (printed, answered) in [
        ("7 May 2026", "2026-05-90"),
        ("5/21/2026", "2026-11-50"),
        ("09/05/2026", "2021-05-09"),
        ("May 9, 2026", "2026-05-26"),
        ("9.5.2026", "2026-05-20"),
    ] {
        let paper = PAPER.replace("7 May 2026", printed);
        let answer = NET.replace("2026-05-07", answered);
        assert_eq!(
            doubted(&paper, &answer),
            ["date"],
            "{printed} as {answered}"
        );
    }
}

/// 2: apostrophes, quotes and commas.
#[test]
fn a_name_that_is_not_printed_is_doubted_and_so_is_a_quantity_that_breaks_the_sum() {
    let paper = PAPER.replace("Kelmor Ltd", "O'Brien & Sons");
    assert_eq!(
        doubted(&paper, &NET.replace("Kelmor Ltd", "OKBrien & Sons")),
        ["vendor"]
    );
    let paper = PAPER.replace("Kelmor Ltd", "The \"Forge\" Ltd\n12 Station Road");
    let answer = NET.replace("Kelmor Ltd", "The areF 12 Station Road");
    assert_eq!(doubted(&paper, &answer), ["vendor"]);
    let paper = PAPER.replace("rope  5", "rope, 12 mm  5");
    let answer = NET.replace(r#""qty":5"#, r#""qty":12"#);
    assert_eq!(
        doubted(&paper, &answer),
        ["total", "items[0].qty", "items[0].price"]
    );
}

/// 3: thousands, long quantities, long numbers.
#[test]
fn an_amount_a_quantity_and_a_number_that_were_cut_short_are_doubted() {
    for printed in ["1,250.00", "1'250.00"] {
        let paper = format!(
            "Kelmor Ltd\nInvoice no. 117   7 May 2026\nrope  4  {printed}  5,000.00\nTotal due GBP 5,000.00"
        );
        let answer = NET
            .replace("50.00", "5000.00")
            .replace(r#""qty":5"#, r#""qty":4"#)
            .replace("10.00", "1.25");
        assert!(
            doubted(&paper, &answer).contains(&"items[0].price".to_owned()),
            "{printed}"
        );
    }
    let paper = PAPER
        .replace("rope  5", "rope  120")
        .replace("50.00", "1200.00");
    let answer = NET
        .replace(r#""qty":5"#, r#""qty":12"#)
        .replace("50.00", "1200.00");
    assert!(doubted(&paper, &answer).contains(&"items[0].qty".to_owned()));
    let paper = PAPER.replace("117", "RE-2026-0815");
    assert_eq!(
        doubted(&paper, &NET.replace("117", "RE-2026-08")),
        ["number"]
    );
    let sheet = "Stock sheet\nItem: rope\nTarget: 500\n2026-05-07 in 0 out 3 left 120";
    let answer = r#"{"item":"rope","on_hand":12,"target":50,"order":38}"#;
    assert_eq!(doubted(sheet, answer), ["on_hand", "target"]);
    let answer = r#"{"item":"rope","on_hand":120,"target":500,"order":38}"#;
    assert_eq!(doubted(sheet, answer), ["on_hand", "target", "order"]);
}

/// 4: currencies that the model did not know.
#[test]
fn a_currency_that_is_not_printed_is_doubted() {
    for code in ["AUD", "CAD", "DKK"] {
        let paper = PAPER.replace("GBP", code);
        let answer = NET.replace("GBP", "USD");
        assert_eq!(doubted(&paper, &answer), ["currency"]);
        let answer = answer.replace(r#""total":"50.00""#, &format!(r#""total":"{code} 50.00""#));
        assert_eq!(doubted(&paper, &answer), ["currency", "total"]);
        assert!(!check(&paper, &answer).valid);
    }
    assert_eq!(
        doubted(&PAPER.replace("GBP ", "A$"), &NET.replace("GBP", "USD")),
        ["currency"]
    );
    assert_eq!(
        doubted(&PAPER.replace("GBP ", "$"), &NET.replace("GBP", "USD")),
        [""; 0]
    );
}

/// 5: the total without its tax.
#[test]
fn a_total_that_the_text_has_with_a_tax_too_is_doubted() {
    let paper = format!(
        "{}\nVAT 20 % 10.00\nTotal due GBP 60.00",
        PAPER.replace("Total due", "Total")
    );
    assert_eq!(doubted(&paper, NET), ["total"]);
    let answer = NET.replace(r#""total":"50.00""#, r#""total":"60.00""#);
    assert_eq!(
        doubted(&paper, &answer),
        ["total", "items[0].qty", "items[0].price"],
        "60 is right, but without its tax the sums do not agree"
    );
    let answer = answer.replace(r#","items""#, r#","tax":"10.00","items""#);
    assert_eq!(doubted(&paper, &answer), [""; 0]);
}

/// 6: rows that vanish, discounts that change a quantity, JSON that breaks or says a key twice.
#[test]
fn a_row_that_is_missing_and_json_that_is_broken_are_doubted() {
    let paper = PAPER
        .replace(
            "rope  5  10.00  50.00",
            "rope  5  10.00  50.00\nhook  1  8.00  8.00",
        )
        .replace("GBP 50.00", "GBP 58.00");
    let answer = NET.replace("50.00", "58.00");
    assert_eq!(check(&paper, &answer).sum, Sum::Differs);
    let paper = PAPER.replace(
        "Total due GBP 50.00",
        "Discount 10 %  5.00\nTotal due GBP 45.00",
    );
    let answer = NET
        .replace("50.00", "45.00")
        .replace(r#""qty":5"#, r#""qty":10"#);
    assert!(doubted(&paper, &answer).contains(&"items[0].qty".to_owned()));
    for broken in [
        r#"{"number":"3,"price":"1.00"}"#,
        r#"{"vendor":"A","vendor":"B"}"#,
        &NET[..NET.len() - 1],
        "The total is 50.00.",
        "[]",
        "",
    ] {
        let report = check(PAPER, broken);
        assert!(!report.valid && report.is_doubtful(), "{broken}");
        assert!(report.doubts("total"));
    }
}

/// 7: a text that is no invoice.
#[test]
fn an_answer_to_a_letter_is_doubted_unless_it_says_that_nothing_was_found() {
    let letter =
        "Dear all,\ncould we move the meeting to Tuesday? Room 12 is free.\nKind regards, Anna";
    let report = check(letter, NET);
    for field in ["vendor", "number", "date", "currency", "total"] {
        assert!(report.doubts(field), "{field}");
    }
    let nothing =
        r#"{"vendor":null,"number":null,"date":null,"currency":null,"total":null,"items":[]}"#;
    let report = check(letter, nothing);
    assert!(report.valid);
    assert!(
        report
            .fields
            .iter()
            .all(|field| field.doubts == [Doubt::NotFound])
    );
}

/// What no look at text and sums can find: another word of the text in a field of words.
#[test]
fn a_label_taken_for_a_name_is_not_found_out() {
    let paper = PAPER.replace("Kelmor Ltd", "From: Kelmor Ltd\nTo: Halner");
    assert_eq!(doubted(&paper, &NET.replace("Kelmor Ltd", "To")), [""; 0]);
}

#[test]
fn a_field_is_asked_for_by_its_name_and_by_its_column() {
    let answer = NET.replace(r#""price":"10.00""#, r#""price":"11.00""#);
    let report = check(PAPER, &answer);
    assert!(
        report.doubts("items[0].price") && report.doubts("items.price") && report.doubts("items")
    );
    assert!(!report.doubts("vendor") && report.doubts("nonsense"));
}

#[test]
fn the_table_names_each_field_and_its_doubt() {
    let table = check(PAPER, &NET.replace("2026-05-07", "2026-05-90")).to_string();
    assert!(
        table.contains(
            "date            \"2026-05-90\"  DOUBTFUL: not written as it has to be, is no day"
        ),
        "{table}"
    );
    assert!(table.ends_with("The sums agree."));
}
