//! Tables for terminals: rows of words in columns that line up.
//!
//! Owns the widths and the words for absent values. Refuses to know what the columns mean.

use serde_json::Value;

pub(crate) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// The items of a JSON array; none of anything else.
pub(crate) fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

pub(crate) fn number(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string())
}

pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_line_up() {
        let rows = [row(["A", "B"]), row(["long", "x"])];
        assert_eq!(aligned(&rows), "A     B\nlong  x\n");
        assert_eq!(aligned(&[]), "");
    }

    #[test]
    fn what_is_absent_is_a_dash() {
        assert_eq!((text(&json!("demo")), number(&json!(7))), ("demo".to_owned(), "7".to_owned()));
        assert_eq!((text(&json!(null)), number(&json!("7"))), ("-".to_owned(), "-".to_owned()));
        assert_eq!((array(&json!([1, 2])).count(), array(&json!({"a": 1})).count()), (2, 0));
    }
}
