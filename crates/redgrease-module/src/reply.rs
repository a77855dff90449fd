//! Writing replies.

use redgrease_core::render::Reply;
use redgrease_ffi::Replier;

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
        Reply::Array(items) => {
            client.array(items.len());
            for item in items {
                write(client, item);
            }
        }
        Reply::Map(pairs) => {
            client.map(pairs.len());
            for (key, value) in pairs {
                write(client, key);
                write(client, value);
            }
        }
    }
}
