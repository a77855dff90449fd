//! Commands and replies of a link: commands are sent without waiting, replies come in their order.

use std::io;

use redgrease_engine::effect::Argv;
use redgrease_engine::input::LinkFailure;
use redgrease_engine::input::LinkReply;
use tokio::io::{AsyncReadExt, AsyncWriteExt, WriteHalf};
use tokio::sync::mpsc::UnboundedReceiver;

use super::connect::{READ_BYTES, Stream};
use super::failure;
use super::wire::{Replies, write_command};

/// Bytes in the form of the protocol that wait for the connection. Further commands wait in the queue.
const OUT_BYTES_MAX: usize = 256 << 10;

/// Sends commands, and reports replies, until the connection is lost; returns why.
pub async fn exchange(
    stream: Box<dyn Stream>,
    mut commands: UnboundedReceiver<Argv>,
    report: impl Fn(Vec<LinkReply>),
) -> LinkFailure {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut replies = Replies::default();
    let mut out = Out::default();
    let mut flushed = true;
    let (mut awaited, mut heard) = (0_u64, false);
    loop {
        replies.bytes.reserve(READ_BYTES);
        tokio::select! {
            read = reader.read_buf(&mut replies.bytes) => {
                match read {
                    Ok(0) => return lost("closed by the other side", heard),
                    Ok(_) => {}
                    Err(error) => return of_error(&error, heard),
                }
                let (found, failure) = take(&mut replies, &mut awaited);
                heard |= !found.is_empty();
                if !found.is_empty() {
                    report(found);
                }
                if let Some(failure) = failure {
                    return failure;
                }
            }
            written = write(&mut writer, out.rest()), if !flushed => match written {
                Ok(count) => flushed = !out.remove(count),
                Err(error) => return of_error(&error, heard),
            },
            // Without a sender the link is being closed, which ends this future.
            Some(command) = commands.recv(), if out.rest().len() < OUT_BYTES_MAX => {
                let mut next = Some(command);
                while let Some(command) = next {
                    write_command(&command.args(), &mut out.bytes);
                    awaited += 1;
                    flushed = false;
                    next = (out.rest().len() < OUT_BYTES_MAX).then(|| commands.try_recv().ok()).flatten();
                }
            }
        }
    }
}

/// Writes some of the bytes; flushes the connection if there are none.
async fn write(writer: &mut WriteHalf<Box<dyn Stream>>, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return writer.flush().await.map(|()| 0);
    }
    match writer.write(bytes).await {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        written => written,
    }
}

/// The replies that have arrived, and why no more can be read.
fn take(replies: &mut Replies, awaited: &mut u64) -> (Vec<LinkReply>, Option<LinkFailure>) {
    let mut found = Vec::new();
    loop {
        let reply = match replies.next() {
            Ok(Some(reply)) => reply,
            Ok(None) => return (found, None),
            Err(unreadable) => return (found, Some(failure::of_bytes(unreadable))),
        };
        if let LinkReply::Error(error) = &reply
            && let Some(failure) = failure::of_reply(error)
        {
            return (found, Some(failure));
        }
        if *awaited == 0 {
            let text = format!("a reply to no command: {}", shown(&reply));
            return (found, Some(LinkFailure::Protocol(text)));
        }
        *awaited -= 1;
        found.push(reply);
    }
}

/// A reply in an error's text.
fn shown(reply: &LinkReply) -> String {
    match reply {
        LinkReply::Status(bytes) | LinkReply::Bulk(bytes) | LinkReply::Error(bytes) => {
            redgrease_core::render::one_line(&bytes[..bytes.len().min(200)])
        }
        LinkReply::Other => "not a string".to_owned(),
    }
}

fn of_error(error: &io::Error, heard: bool) -> LinkFailure {
    match failure::of_connection(error) {
        LinkFailure::Lost(text) => lost(&text, heard),
        other => other,
    }
}

/// The connection was lost. A server that expects TLS says nothing before.
fn lost(text: &str, heard: bool) -> LinkFailure {
    let hint = if heard { "" } else { " before the first reply: it may expect TLS, or have no free connection" };
    LinkFailure::Lost(format!("{text}{hint}"))
}

/// Bytes to be sent.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    sent: usize,
}

impl Out {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Removes bytes that were written; returns whether some are to be written or flushed.
    fn remove(&mut self, count: usize) -> bool {
        self.sent += count;
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(OUT_BYTES_MAX);
            self.sent = 0;
        }
        count > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_without_a_command_and_refusals_end_the_link() {
        let read = |bytes: &[u8], mut awaited: u64| {
            let mut replies = Replies::default();
            replies.bytes.extend_from_slice(bytes);
            take(&mut replies, &mut awaited)
        };
        let ok = LinkReply::Status(b"OK".to_vec());
        assert_eq!(read(b"+OK\r\n-ERR x\r\n", 2), (vec![ok.clone(), LinkReply::Error(b"ERR x".to_vec())], None));
        let (found, failure) = read(b"+OK\r\n-ERR max number of clients reached\r\n", 1);
        assert_eq!(
            (found, failure),
            (
                vec![ok.clone()],
                Some(LinkFailure::Protocol("a reply to no command: ERR max number of clients reached".to_owned()))
            )
        );
        let (found, failure) = read(b"+OK\r\n-NOPERM no\r\n", 2);
        assert_eq!((found, failure), (vec![ok], Some(LinkFailure::Authentication("NOPERM no".to_owned()))));
    }
}
