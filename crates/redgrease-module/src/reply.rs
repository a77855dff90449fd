//! Writing replies.

use redgrease_core::render::{Answers, Reply, Style, one_line, records};
use redgrease_ffi::Replier;

use crate::runs::Outcome;

/// Writes a reply to a client.
pub fn write(client: &Replier<'_>, reply: &Reply) {
    match reply {
        Reply::Simple(text) => client.simple(text),
        Reply::Error(text) => client.error(text),
        Reply::Bulk(bytes) => client.bulk(bytes),
        Reply::Int(number) => client.int(*number),
        Reply::Double(number) => client.double(*number),
        Reply::Bool(flag) => client.bool(*flag),
        Reply::Null => client.null(),
        Reply::Array(items) => array(client, items),
        Reply::Map(pairs) => {
            client.map(pairs.len());
            for (key, value) in pairs {
                write(client, key);
                write(client, value);
            }
        }
    }
}

fn array(client: &Replier<'_>, items: &[Reply]) {
    client.array(items.len());
    for item in items {
        write(client, item);
    }
}

/// Writes an array of the results of an execution.
pub fn results(client: &Replier<'_>, encoded: &[u8], style: Style, answers: Answers) {
    match records(encoded, style, answers) {
        Ok(replies) => array(client, &replies),
        Err(error) => client.error(&format!("INTERNAL results are not readable: {error}")),
    }
}

/// Writes `[results, errors]`.
pub fn outcome(client: &Replier<'_>, outcome: &Outcome) {
    client.array(2);
    results(client, &outcome.results, outcome.style, Answers::Run);
    client.array(outcome.errors.len());
    for error in &outcome.errors {
        client.bulk(error);
    }
}

/// Writes what a triggered execution is answered with: the results, or the first error.
pub fn triggered(client: &Replier<'_>, outcome: &Outcome) {
    match outcome.errors.first() {
        Some(error) => user_error(client, error),
        None => results(client, &outcome.results, outcome.style, Answers::Trigger),
    }
}

/// Writes an error of user code, whose text may hold anything.
pub fn user_error(client: &Replier<'_>, text: &[u8]) {
    client.error(&one_line(text));
}
