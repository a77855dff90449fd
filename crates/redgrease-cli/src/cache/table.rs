//! Columns of text.

/// Rows with aligned columns, two blanks between them. The last column is as wide as it likes.
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Columns that are aligned at their right.
    numbers: &'static [usize],
}

impl Table {
    pub fn new(heading: &[&str], numbers: &'static [usize]) -> Self {
        Self { rows: vec![heading.iter().map(|&text| text.to_owned()).collect()], numbers }
    }

    pub fn add(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// The lines, each ending in a newline.
    pub fn text(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[column] - cell.chars().count());
                if self.numbers.contains(&column) {
                    line += &format!("{pad}{cell}  ");
                } else {
                    line += &format!("{cell}{pad}  ");
                }
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_aligned_at_their_right_and_lines_end_without_blanks() {
        let mut table = Table::new(&["SIZE", "KEY"], &[0]);
        table.add(vec!["7".to_owned(), "é".to_owned()]);
        table.add(vec!["12345".to_owned(), "long key".to_owned()]);
        assert_eq!(table.text(), " SIZE  KEY\n    7  é\n12345  long key\n");
    }
}
