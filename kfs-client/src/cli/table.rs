//! Tables: columns as wide as what is in them, or, on a terminal that is too narrow for that, a block of lines a row.

/// On which side the shorter values of a column leave room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// What stands between two columns.
const GAP: &str = "  ";

/// Rows below the names of their columns.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    heads: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heads: &[(&'static str, Side)]) -> Self {
        Self {
            heads: heads.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, a value for each column.
    pub(crate) fn row<const N: usize>(&mut self, values: [String; N]) {
        assert_eq!(N, self.heads.len(), "a row has a value for each column");
        self.rows.push(values.into());
    }

    /// Its lines, on a terminal of so many columns, or in a pipe.
    pub(crate) fn lines(&self, columns: Option<usize>) -> Vec<String> {
        let widths: Vec<usize> = (0..self.heads.len())
            .map(|column| {
                let values = self.rows.iter().map(|row| width(&row[column]));
                values.max().unwrap_or(0).max(width(self.heads[column].0))
            })
            .collect();
        let needed = widths.iter().sum::<usize>() + GAP.len() * (widths.len() - 1);
        if columns.is_some_and(|columns| needed > columns) {
            return self.blocks();
        }
        let heads: Vec<&str> = self.heads.iter().map(|(head, _)| *head).collect();
        let rows = self
            .rows
            .iter()
            .map(|row| row.iter().map(String::as_str).collect());
        std::iter::once(heads)
            .chain(rows)
            .map(|row: Vec<&str>| {
                let mut line = String::new();
                for ((value, width), (_, side)) in row.iter().zip(&widths).zip(&self.heads) {
                    if !line.is_empty() {
                        line.push_str(GAP);
                    }
                    line.push_str(&match side {
                        Side::Left => format!("{value:<width$}"),
                        Side::Right => format!("{value:>width$}"),
                    });
                }
                line.trim_end().to_owned()
            })
            .collect()
    }

    fn blocks(&self) -> Vec<String> {
        let widest = self.heads.iter().map(|(head, _)| width(head)).max();
        let widest = widest.unwrap_or(0);
        let mut lines = Vec::new();
        for row in &self.rows {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            for ((head, _), value) in self.heads.iter().zip(row) {
                lines.push(format!("{head:>widest$}: {value}"));
            }
        }
        lines
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[("SERVER", Side::Left), ("FREE", Side::Right)]);
        table.row(["127.0.0.1:1".into(), "7 B".into()]);
        table.row(["h:22000".into(), "1.5 GiB".into()]);
        table
    }

    #[test]
    fn columns_stand_below_one_another() {
        let expected = [
            "SERVER          FREE",
            "127.0.0.1:1      7 B",
            "h:22000      1.5 GiB",
        ];
        for columns in [None, Some(20), Some(200)] {
            assert_eq!(table().lines(columns), expected, "{columns:?}");
        }
    }

    #[test]
    fn a_narrow_terminal_gets_every_value_on_a_line_of_its_own() {
        let expected = [
            "SERVER: 127.0.0.1:1",
            "  FREE: 7 B",
            "",
            "SERVER: h:22000",
            "  FREE: 1.5 GiB",
        ];
        assert_eq!(table().lines(Some(19)), expected);
    }

    #[test]
    fn a_table_without_rows_has_its_heads() {
        let table = Table::new(&[("A", Side::Left), ("B", Side::Left)]);
        assert_eq!(table.lines(None), ["A  B"]);
    }
}
