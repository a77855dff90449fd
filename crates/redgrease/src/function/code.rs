//! Python code of functions.

use redgrease_core::codec::Value;

use super::constant::Constant;
use crate::error::{Error, Result};

/// A Python function: its source, or where it is found in a module of the server. [`py!`](crate::py) makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct PyCode {
    code: Code,
    names: Vec<(String, Constant)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Code {
    Source(String),
    Path(String),
}

impl PyCode {
    /// The source of a function: an expression such as `lambda record: record['key']`, or statements that define functions,
    /// of which the last one is meant. It can use what scripts can use without an import, such as `execute` and `log`.
    #[must_use]
    pub fn source(source: impl Into<String>) -> PyCode {
        PyCode { code: Code::Source(source.into()), names: Vec::new() }
    }

    /// A function of a module that the server can import, such as `math:sqrt` or `shop.prices:Price.of`.
    #[must_use]
    pub fn path(path: impl Into<String>) -> PyCode {
        PyCode { code: Code::Path(path.into()), names: Vec::new() }
    }

    /// A name that the source can use for a value, so that no value has to be written into the source.
    ///
    /// ```
    /// let warm = redgrease::py!("lambda day: float(day['temp_max']) >= degrees").with("degrees", 20.0);
    /// ```
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Constant>) -> PyCode {
        self.names.push((name.into(), value.into()));
        self
    }

    /// How a worker gets it.
    pub(super) fn encoded(&self) -> Result<Value> {
        match &self.code {
            Code::Path(path) if !is_path(path) => Err(Error::argument(
                format!("'{path}' does not name a function of a module"),
                "Write module:function, such as math:sqrt.",
            )),
            Code::Path(_) if !self.names.is_empty() => Err(Error::argument(
                "names are given to a function of a module",
                "Give them to source: py!(\"lambda ...\").with(name, value).",
            )),
            Code::Path(path) => Ok(Value::Dict(vec![(Value::text("path"), Value::text(path.as_str()))])),
            Code::Source(source) => {
                let names = self.names.iter().map(|(name, value)| match is_identifier(name) {
                    true => Ok((Value::text(name.as_str()), value.clone().into_value())),
                    false => Err(Error::argument(
                        format!("'{name}' is not a name of Python"),
                        "Use letters, digits and underscores.",
                    )),
                });
                Ok(Value::Dict(vec![
                    (Value::text("source"), Value::text(source.as_str())),
                    (Value::text("names"), Value::Dict(names.collect::<Result<_>>()?)),
                ]))
            }
        }
    }
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|first: char| first.is_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

fn is_path(path: &str) -> bool {
    let dotted = |names: &str| names.split('.').all(is_identifier);
    path.split_once(':').is_some_and(|(module, attribute)| dotted(module) && dotted(attribute))
}

/// A Python function for a step: source, or with `path` the place of a function in a module of the server.
///
/// The server checks the syntax when the function is sent, before anything runs.
///
/// ```
/// use redgrease::py;
///
/// let name = py!("lambda record: record['value']['name']");
/// let root = py!(path "math:sqrt");
/// let long = py!(
///     "
///     def is_adult(record):
///         return int(record['value']['age']) >= limit
///     "
/// )
/// .with("limit", 18);
/// ```
#[macro_export]
macro_rules! py {
    (path $path:expr) => {
        $crate::PyCode::path($path)
    };
    ($source:expr) => {
        $crate::PyCode::source($source)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sent_is_refused_with_the_fix() {
        for path in ["math", "math:", ":sqrt", "math:sqrt()", "a b:c", "a..b:c", "lambda r: r"] {
            assert!(PyCode::path(path).encoded().is_err(), "{path}");
        }
        assert!(PyCode::path("a.b:C.d").encoded().is_ok());
        assert!(PyCode::path("a:b").with("x", 1).encoded().is_err());
        let error = PyCode::source("x").with("1x", 1).encoded().unwrap_err();
        assert_eq!(error.to_string(), "'1x' is not a name of Python\nUse letters, digits and underscores.");
    }
}
