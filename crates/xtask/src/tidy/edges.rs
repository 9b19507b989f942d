//! Which crate may depend on which: the manifests say what is, the table in docs/architecture.md says
//! what may be. Both must say the same.

use std::collections::BTreeSet;

use super::crates::Crate;

/// Where the table stands, and the line that it begins with.
pub(crate) const PAGE: &str = "docs/architecture.md";
const HEAD: &str = "| crate | depends on | only its tests depend on |";

/// A line of the table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    folder: String,
    edges: BTreeSet<String>,
    test_edges: BTreeSet<String>,
}

/// What the table and the manifests do not agree on.
pub(crate) fn problems(page: &str, crates: &[Crate]) -> Vec<String> {
    let rows = rows(page);
    if rows.is_empty() {
        return vec![format!("{PAGE} has no table that begins with `{HEAD}`")];
    }
    let mut problems = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        if rows[..index].iter().any(|above| above.folder == row.folder) {
            problems.push(format!("{PAGE}: `{}` has two rows", row.folder));
        }
        if !crates.iter().any(|member| member.folder == row.folder) {
            let folder = &row.folder;
            problems.push(format!(
                "{PAGE}: there is no crate `{folder}`; delete its row"
            ));
        }
        // Rows that depend only on rows above them have no circle.
        let above: BTreeSet<&str> = rows[..index]
            .iter()
            .map(|row| row.folder.as_str())
            .collect();
        for edge in row
            .edges
            .iter()
            .filter(|edge| !above.contains(edge.as_str()))
        {
            problems.push(format!(
                "{PAGE}: the row of `{}` must stand below that of `{edge}`, on which it depends",
                row.folder
            ));
        }
    }
    for member in crates {
        match rows.iter().find(|row| row.folder == member.folder) {
            Some(row) => problems.extend(differences(row, member)),
            None => problems.push(format!(
                "{PAGE}: the crate `{}` has no row; add\n    {}",
                member.folder,
                line(member)
            )),
        }
    }
    problems
}

fn differences(row: &Row, member: &Crate) -> Option<String> {
    let folder = &member.folder;
    let mut said = Vec::new();
    for (from, table, manifest) in [
        (format!("`{folder}`"), &row.edges, &member.edges),
        (
            format!("the tests of `{folder}`"),
            &row.test_edges,
            &member.test_edges,
        ),
    ] {
        for edge in manifest.difference(table) {
            said.push(format!(
                "{from} may not depend on `{edge}`: the table in {PAGE} lacks this edge. Take the dependency \
                 out of {folder}/Cargo.toml, or, if the structure is to change, add it to the table"
            ));
        }
        for edge in table.difference(manifest) {
            said.push(format!(
                "{from} does not depend on `{edge}`, but the table in {PAGE} says so. Take it out of the table"
            ));
        }
    }
    let row = format!("the row would be\n    {}", line(member));
    (!said.is_empty()).then(|| format!("{}; {row}", said.join("\n  ")))
}

fn line(member: &Crate) -> String {
    let cell = |edges: &BTreeSet<String>| -> String {
        let names: Vec<String> = edges.iter().map(|edge| format!("`{edge}`")).collect();
        names.join(", ")
    };
    let (edges, test_edges) = (cell(&member.edges), cell(&member.test_edges));
    format!("| `{}` | {edges} | {test_edges} |", member.folder)
}

fn rows(page: &str) -> Vec<Row> {
    page.lines()
        .skip_while(|line| line.trim() != HEAD)
        .skip(2)
        .map_while(|line| line.trim().strip_prefix('|')?.strip_suffix('|'))
        .map(|line| {
            let mut cells = line.split('|').map(names);
            Row {
                folder: cells
                    .next()
                    .and_then(|mut names| names.pop_first())
                    .unwrap_or_default(),
                edges: cells.next().unwrap_or_default(),
                test_edges: cells.next().unwrap_or_default(),
            }
        })
        .collect()
}

/// What stands between backticks.
fn names(cell: &str) -> BTreeSet<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_TEXT: &str = "words\n
| crate | depends on | only its tests depend on |
|---|---|---|
| `a` | | |
| `b` | `a` | `c` |
| `c` | `a`, `b` | |

| another | table |
|---|---|
| `d` | |
";

    fn member(folder: &str, edges: &[&str], test_edges: &[&str]) -> Crate {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Crate {
            folder: folder.to_owned(),
            edges: set(edges),
            test_edges: set(test_edges),
            ..Crate::default()
        }
    }

    fn as_in_the_table() -> Vec<Crate> {
        vec![
            member("a", &[], &[]),
            member("b", &["a"], &["c"]),
            member("c", &["a", "b"], &[]),
        ]
    }

    #[track_caller]
    fn says(page: &str, crates: &[Crate], expected: &[&str]) {
        let problems = problems(page, crates);
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn a_table_that_says_what_the_manifests_say_is_right() {
        says(PAGE_TEXT, &as_in_the_table(), &[]);
    }

    #[test]
    fn an_edge_that_the_table_lacks_is_a_problem() {
        let mut crates = as_in_the_table();
        crates[0] = member("a", &[], &["b"]);
        crates[2] = member("c", &["a", "b", "d"], &[]);
        let expected = [
            "the tests of `a` may not depend on `b`",
            "`c` may not depend on `d`",
        ];
        says(PAGE_TEXT, &crates, &expected);
    }

    #[test]
    fn an_edge_that_no_manifest_has_is_a_problem() {
        let mut crates = as_in_the_table();
        crates[2] = member("c", &["a"], &[]);
        says(PAGE_TEXT, &crates, &["`c` does not depend on `b`"]);
    }

    #[test]
    fn a_crate_without_a_row_and_a_row_without_a_crate_are_problems() {
        let mut crates = as_in_the_table();
        crates[0] = member("new", &["b"], &[]);
        let expected = [
            "no crate `a`",
            "`new` has no row; add\n    | `new` | `b` |  |",
        ];
        says(PAGE_TEXT, &crates, &expected);
    }

    #[test]
    fn a_row_depends_only_on_rows_above_it() {
        let page = PAGE_TEXT.replace("| `a` | | |", "| `a` | `c` | |");
        let mut crates = as_in_the_table();
        crates[0] = member("a", &["c"], &[]);
        let expected = ["the row of `a` must stand below that of `c`"];
        says(&page, &crates, &expected);
    }

    #[test]
    fn a_page_without_the_table_is_a_problem() {
        says("words", &as_in_the_table(), &["has no table"]);
    }
}
