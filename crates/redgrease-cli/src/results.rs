//! Printing results of functions: as a table, raw, or as JSON.

use std::io::{IsTerminal, stderr, stdout};
use std::time::Duration;

use anyhow::Result;
use redgrease::{PythonError, Record, Results};
use serde_json::json;

use crate::failure::{Class, Failure};
use crate::output::{print, print_bytes, say};
use crate::table::Table;
use crate::values::Value;

/// Errors of records that are printed with their lines; of the others only the number is told.
const ERRORS_SHOWN: usize = 3;

/// How results are printed.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Format {
    /// Print one line of JSON: {"results": [...], "errors": [...]}
    #[arg(long, conflicts_with_all = ["raw", "table"])]
    pub json: bool,
    /// Print the bytes of each result on its line [default, unless stdout is a terminal]
    #[arg(long, conflicts_with = "table")]
    pub raw: bool,
    /// Print a table [default, if stdout is a terminal]
    #[arg(long)]
    pub table: bool,
}

impl Format {
    fn is_table(self) -> bool {
        self.table || !(self.json || self.raw) && stdout().is_terminal()
    }

    /// Prints results on stdout and errors on stderr; fails if there are errors.
    pub fn print(self, results: &Results, took: Duration) -> Result<()> {
        let values: Vec<Value> = results.records.iter().map(Value::of).collect();
        if self.json {
            let errors: Vec<&str> = results.errors.iter().map(PythonError::text).collect();
            let values: Vec<_> = values.iter().map(Value::json).collect();
            print(&format!("{}\n", json!({ "results": values, "errors": errors })))?;
        } else if self.is_table() {
            print(&table(&values))?;
        } else {
            let line = |value: &Value| [value.raw(), b"\n".to_vec()].concat();
            print_bytes(&values.iter().flat_map(line).collect::<Vec<u8>>())?;
        }
        if self.is_table() && stderr().is_terminal() {
            let count = values.len();
            say(format_args!(
                "{count} {} in {:.2} s",
                if count == 1 { "record" } else { "records" },
                took.as_secs_f64()
            ));
        }
        fail_with(&results.errors)
    }
}

/// An error if there are errors of records; their tracebacks are printed before.
fn fail_with(errors: &[PythonError]) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    for error in &errors[..errors.len().min(ERRORS_SHOWN)] {
        say(error);
    }
    let what = match errors.len() {
        1 => "one record failed".to_owned(),
        count if count > ERRORS_SHOWN => format!("{count} records failed; the first {ERRORS_SHOWN} errors are shown"),
        count => format!("{count} records failed"),
    };
    Err(Failure::plain(Class::Failed, what).into())
}

/// Columns for the keys of dicts, also of dicts that a text script made texts of; other values are one column.
fn table(values: &[Value]) -> String {
    let read: Vec<Value> = values.iter().map(as_dict).collect();
    let mut keys: Vec<String> = Vec::new();
    for value in &read {
        let Value::Dict(pairs) = value else { return one_column(values) };
        for (key, _) in pairs {
            let key = key.text();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    if keys.is_empty() {
        return one_column(values);
    }
    let is_number =
        |key: &str| read.iter().all(|value| matches!(field(value, key), None | Some(Value::Int(_) | Value::Float(_))));
    let numbers: Vec<usize> = (0..keys.len()).filter(|&index| is_number(&keys[index])).collect();
    let mut table = Table::new(&keys.iter().map(String::as_str).collect::<Vec<_>>(), &numbers);
    for value in &read {
        table.add(keys.iter().map(|key| field(value, key).map_or(String::new(), Value::text)).collect());
    }
    table.text()
}

fn as_dict(value: &Value) -> Value {
    match value {
        Value::Text(text) if text.starts_with('{') => match Record::from_repr(text).map(|record| Value::of(&record)) {
            Some(read @ Value::Dict(_)) => read,
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let Value::Dict(pairs) = value else { return None };
    pairs.iter().find(|(key, _)| key.text() == name).map(|(_, value)| value)
}

fn one_column(values: &[Value]) -> String {
    values.iter().map(|value| value.text() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(json: &str) -> Vec<Value> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn dicts_have_a_column_for_each_key() {
        let words = values(r#"[{"key": "fig", "value": 2}, {"key": "apple", "value": 10}, {"key": "x"}]"#);
        assert_eq!(table(&words), "key    value\nfig        2\napple     10\nx\n");
    }

    #[test]
    fn texts_that_are_dicts_have_columns_too() {
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(table(&[text("{'key': b'a', 'value': None}")]), "key  value\na    None\n");
        assert_eq!(table(&[text("{'key': b'\\xff'}")]), "key\n0xff\n");
        for other in ["{'open': ", "{1, 2}"] {
            assert_eq!(table(&[text(other)]), format!("{other}\n"));
        }
    }

    #[test]
    fn other_values_are_lines() {
        assert_eq!(table(&values(r#"[1, "two", [3], {"four": 4}]"#)), "1\ntwo\n[3]\n{\"four\":4}\n");
        assert_eq!(table(&[]), "");
        assert_eq!(table(&values("[{}]")), "{}\n");
    }
}
