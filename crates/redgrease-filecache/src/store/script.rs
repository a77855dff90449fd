//! The scripts of the operations, extracted from `index.lua`.
//!
//! Lua creates all functions of a script each time it runs, so an operation is sent with only those that it calls,
//! directly or indirectly. The source is formatted for this: functions begin with `local function`, `function ops.` or
//! `function fast.` at the beginning of a line, and end with an `end` there. The `fast` variant of an operation is
//! tried first, before anything below it is created; it calls none of the helpers.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

/// One operation.
#[derive(Debug)]
pub(crate) struct Script {
    pub body: String,
    /// Its name in the server.
    pub sha: String,
}

/// The script of an operation, by the name that is its first argument.
pub(crate) fn of(operation: &str) -> &'static Script {
    static SCRIPTS: LazyLock<HashMap<&'static str, Script>> = LazyLock::new(|| cut(include_str!("index.lua")));
    SCRIPTS.get(operation).unwrap_or_else(|| panic!("index.lua has no operation {operation:?}"))
}

enum Part<'a> {
    Statement(&'a str),
    Helper { name: &'a str, text: String },
    Fast { name: &'a str, text: String },
    Operation { name: &'a str, text: String },
}

fn parts(source: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let helper = line.strip_prefix("local function ");
        let operation = line.strip_prefix("function ops.");
        let fast = line.strip_prefix("function fast.");
        let Some(rest) = helper.or(operation).or(fast) else {
            if !line.trim_start().starts_with("--") && !line.trim().is_empty() {
                parts.push(Part::Statement(line));
            }
            continue;
        };
        let name = rest.split('(').next().unwrap_or(rest);
        let mut text = line.to_owned();
        if !line.ends_with(" end") {
            for line in lines.by_ref().take_while(|line| *line != "end") {
                if !line.trim_start().starts_with("--") {
                    text.push('\n');
                    text.push_str(line);
                }
            }
            text.push_str("\nend");
        }
        parts.push(match (helper, fast) {
            (Some(_), _) => Part::Helper { name, text },
            (None, Some(_)) => Part::Fast { name, text },
            (None, None) => Part::Operation { name, text },
        });
    }
    parts
}

/// Whether a text mentions a function.
fn names(text: &str, function: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(function).any(|(at, _)| {
        !text[..at].ends_with(|c| is_word(c) || c == '.') && !text[at + function.len()..].starts_with(is_word)
    })
}

fn cut(source: &'static str) -> HashMap<&'static str, Script> {
    let parts = parts(source);
    let operations = parts.iter().filter_map(|part| match part {
        Part::Operation { name, text } => Some((*name, text)),
        _ => None,
    });
    operations.map(|(name, text)| (name, script(&parts, name, text))).collect()
}

fn script(parts: &[Part<'_>], operation: &str, text: &str) -> Script {
    let statements: Vec<&str> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Statement(statement) => Some(*statement),
            _ => None,
        })
        .collect();
    let mut needed = BTreeSet::new();
    let mut open = vec![statements.join("\n"), text.to_owned()];
    while let Some(text) = open.pop() {
        for part in parts {
            if let Part::Helper { name, text: helper } = part
                && names(&text, name)
                && needed.insert(*name)
            {
                // The steps after an operation depend on what it called.
                match *name {
                    "look_for_damage" => open.push("after_damage".to_owned()),
                    "get" => open.push("write_numbers".to_owned()),
                    _ => {}
                }
                open.push(helper.clone());
            }
        }
    }
    let mut body = String::new();
    for part in parts {
        match part {
            Part::Statement(statement) => body.push_str(statement),
            Part::Helper { name, text } if needed.contains(name) => body.push_str(text),
            Part::Fast { name, text } if *name == operation => {
                body.push_str(&text.replacen(&format!("function fast.{operation}()"), "local function fast()", 1));
                body.push_str("\nlocal at_once = fast()\nif at_once then return at_once end");
            }
            _ => continue,
        }
        body.push('\n');
    }
    body.push_str(&text.replacen(&format!("function ops.{operation}()"), "local function run()", 1));
    body.push_str("\nlocal given = run()\n");
    if needed.contains("look_for_damage") {
        body.push_str("given = after_damage(given)\n");
    }
    if needed.contains("get") {
        body.push_str("write_numbers()\n");
    }
    body.push_str("return given\n");
    let sha = redis::Script::new(&body).get_hash().to_owned();
    Script { body, sha }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_takes_along_what_it_calls_and_nothing_else() {
        let source = "local call = redis.call\nlocal function a() return 1 end\nlocal function b(x)\n  -- a\n  return a() + x\nend\nlocal function ab() end\n\
                      function fast.two()\n  return 3\nend\nfunction ops.one()\n  return b(2)\nend\nfunction ops.two()\n  return t.ab\nend\n";
        let scripts = cut(source);
        assert_eq!(
            scripts["one"].body,
            "local call = redis.call\nlocal function a() return 1 end\nlocal function b(x)\n  return a() + x\nend\n\
             local function run()\n  return b(2)\nend\nlocal given = run()\nreturn given\n"
        );
        assert_eq!(
            scripts["two"].body,
            "local call = redis.call\nlocal function fast()\n  return 3\nend\nlocal at_once = fast()\nif at_once then return at_once end\n\
             local function run()\n  return t.ab\nend\nlocal given = run()\nreturn given\n"
        );
    }
}
