//! Columns of text.

use comfy_table::{CellAlignment, ContentArrangement, TableStyle};

use crate::output::one_line;

/// Rows with aligned columns, separated by two blanks. The last column is not padded.
pub struct Table(comfy_table::Table);

impl Table {
    /// A table with a heading; the columns in `numbers` are aligned at their right.
    pub fn new(heading: &[&str], numbers: &[usize]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled).set_header(heading);
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if numbers.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self(table)
    }

    /// Adds a row. Control characters, which could change the terminal, become blanks.
    pub fn add(&mut self, row: Vec<String>) {
        self.0.add_row(row.iter().map(|cell| one_line(cell)));
    }

    /// The lines, each ending in a newline.
    pub fn text(&self) -> String {
        self.0.trim_fmt() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_one_line_without_control_characters() {
        let mut table = Table::new(&["A", "B"], &[]);
        table.add(vec!["a\nb".to_owned(), "\x1b[2Jc".to_owned()]);
        assert_eq!(table.text(), "A    B\na b   [2Jc\n");
    }

    #[test]
    fn numbers_are_aligned_at_their_right_and_lines_end_without_blanks() {
        let mut table = Table::new(&["SIZE", "KEY"], &[0]);
        table.add(vec!["7".to_owned(), "é".to_owned()]);
        table.add(vec!["12345".to_owned(), "long key".to_owned()]);
        assert_eq!(table.text(), " SIZE  KEY\n    7  é\n12345  long key\n");
    }

    #[test]
    fn wide_characters_take_two_columns_and_long_cells_are_not_broken() {
        let (long, pad) = ("x".repeat(500), " ".repeat(498));
        let mut table = Table::new(&["KEY", "SIZE"], &[]);
        table.add(vec!["東京".to_owned(), "1".to_owned()]);
        table.add(vec![long.clone(), String::new()]);
        assert_eq!(table.text(), format!("KEY {pad}SIZE\n東京{pad}1\n{long}\n"));
    }

    #[test]
    fn a_table_without_rows_is_its_heading() {
        assert_eq!(Table::new(&["A", "B"], &[]).text(), "A  B\n");
    }
}
