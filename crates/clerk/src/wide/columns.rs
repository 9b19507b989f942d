//! Text in columns, as `pdftotext -layout` leaves it: what stood side by side stands side by side.

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// How many places a text takes.
pub(super) fn width(text: &str) -> usize {
    text.chars().count()
}

/// The text with spaces up to `width` places.
pub(super) fn padded(text: &str, to: usize, side: Side) -> String {
    let spaces = " ".repeat(to.saturating_sub(width(text)));
    match side {
        Side::Left => format!("{text}{spaces}"),
        Side::Right => format!("{spaces}{text}"),
    }
}

/// Two blocks beside each other; the second begins at `at`, or two spaces behind what is longer.
pub(super) fn beside(left: &[String], right: &[String], at: usize) -> Vec<String> {
    let longest = left.iter().map(|line| width(line)).max().unwrap_or(0);
    let at = at.max(longest + 2);
    (0..left.len().max(right.len()))
        .map(|row| {
            let (left, right) = (left.get(row), right.get(row));
            let left = left.map_or("", String::as_str);
            match right {
                Some(right) if !right.is_empty() => {
                    format!("{}{right}", padded(left, at, Side::Left))
                }
                _ => left.to_owned(),
            }
        })
        .collect()
}

/// Rows of cells in columns as wide as their widest cell, with `gap` between them.
pub(super) fn table(rows: &[Vec<String>], sides: &[Side], gap: usize) -> Vec<String> {
    let widths = widths(rows, sides.len());
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for ((cell, &to), &side) in row.iter().zip(&widths).zip(sides) {
                if !line.is_empty() {
                    line.push_str(&" ".repeat(gap));
                }
                line.push_str(&padded(cell, to, side));
            }
            line.trim_end().to_owned()
        })
        .collect()
}

/// How wide each column is.
pub(super) fn widths(rows: &[Vec<String>], columns: usize) -> Vec<usize> {
    (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| width(cell)).max().unwrap_or(0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_stand_beside_each_other() {
        let left = ["Kelmor".to_owned(), "12345 Ulm".to_owned()];
        let right = ["Date: 1".to_owned()];
        assert_eq!(
            beside(&left, &right, 4),
            ["Kelmor     Date: 1", "12345 Ulm"]
        );
    }

    #[test]
    fn figures_end_below_each_other() {
        let rows = [
            vec!["a".to_owned(), "9.00".to_owned()],
            vec!["bolt".to_owned(), "12.50".to_owned()],
        ];
        assert_eq!(
            table(&rows, &[Side::Left, Side::Right], 2),
            ["a      9.00", "bolt  12.50"]
        );
    }
}
