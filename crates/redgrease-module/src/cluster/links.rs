//! The links to other shards, on the main thread.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use redgrease_engine::Input;
use redgrease_engine::effect::Argv;
use redgrease_engine::id::LinkNo;
use redgrease_engine::input::LinkFailure;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::link::thread::{Opening, Report, Reporter, start};
use super::target::Target;

/// Commands of one link that have no reply yet, in bytes. The engine sends less.
const PENDING_BYTES_MAX: usize = 64 << 20;

/// The links to other shards.
pub struct Links {
    reporter: Reporter,
    reports: Receiver<(LinkNo, Report)>,
    /// The thread, once there was a link.
    thread: OnceCell<UnboundedSender<Opening>>,
    table: RefCell<BTreeMap<LinkNo, Link>>,
}

/// A link that is open, or being opened.
struct Link {
    commands: UnboundedSender<Argv>,
    /// Dropping it closes the link.
    _closed: oneshot::Sender<()>,
    pending: Pending,
}

/// Commands without a reply.
#[derive(Default)]
struct Pending {
    /// The size of each, the oldest first.
    sizes: VecDeque<usize>,
    bytes: usize,
}

impl Links {
    /// No links yet.
    ///
    /// # Errors
    /// The system refuses a descriptor.
    pub fn new() -> Result<Links, String> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let ready = eventfd(0, flags).map_err(|error| format!("eventfd: {error}"))?;
        let (sender, reports) = channel();
        let reporter = Reporter { reports: sender, ready: Arc::new(ready) };
        Ok(Links { reporter, reports, thread: OnceCell::new(), table: RefCell::default() })
    }

    /// Readable when there are reports.
    pub fn ready(&self) -> &OwnedFd {
        &self.reporter.ready
    }

    /// Opens a link.
    pub fn open(&self, link: LinkNo, target: Target) {
        let (commands, receiver) = unbounded_channel();
        let (closed, closing) = oneshot::channel();
        let entry = Link { commands, _closed: closed, pending: Pending::default() };
        self.table.borrow_mut().insert(link, entry);
        match self.thread() {
            Ok(thread) => {
                // The thread ends with the server.
                let _ = thread.send(Opening { link, target, commands: receiver, closed: closing });
            }
            Err(error) => {
                let failure = LinkFailure::Unreachable(format!("the thread for links: {error}"));
                self.reporter.report(link, [Report::Closed(failure)]);
            }
        }
    }

    fn thread(&self) -> Result<&UnboundedSender<Opening>, String> {
        if let Some(thread) = self.thread.get() {
            return Ok(thread);
        }
        let thread = start(self.reporter.clone())?;
        Ok(self.thread.get_or_init(|| thread))
    }

    /// Sends a command on a link.
    pub fn send(&self, link: LinkNo, command: Argv) {
        let mut table = self.table.borrow_mut();
        let Some(entry) = table.get_mut(&link) else { return };
        if entry.pending.add(command.cost_bytes()) {
            // Fails if the link was lost, which is reported.
            let _ = entry.commands.send(command);
        } else {
            let text = format!("more than {PENDING_BYTES_MAX} bytes wait for replies");
            self.reporter.report(link, [Report::Closed(LinkFailure::Lost(text))]);
        }
    }

    /// Closes a link: nothing of it is reported any more.
    pub fn close(&self, link: LinkNo) {
        self.table.borrow_mut().remove(&link);
    }

    /// Begins to take reports: the descriptor is readable again only after a further one.
    pub fn begin(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.reporter.ready, &mut count);
    }

    /// Has the next turn of the server's loop take the rest.
    pub fn go_on_later(&self) {
        self.reporter.signal();
    }

    /// The next report.
    pub fn next(&self) -> Option<Input<'static>> {
        loop {
            let (link, report) = self.reports.try_recv().ok()?;
            let mut table = self.table.borrow_mut();
            let Some(entry) = table.get_mut(&link) else { continue };
            return Some(match report {
                Report::Opened => Input::LinkOpened(link),
                Report::Reply(reply) => {
                    entry.pending.remove();
                    Input::LinkReply { link, reply }
                }
                Report::Closed(failure) => {
                    table.remove(&link);
                    Input::LinkClosed { link, failure }
                }
            });
        }
    }
}

impl Pending {
    /// Adds a command unless there are too many.
    fn add(&mut self, size: usize) -> bool {
        let fits = self.bytes + size <= PENDING_BYTES_MAX;
        if fits {
            self.sizes.push_back(size);
            self.bytes += size;
        }
        fits
    }

    /// Removes the oldest one.
    fn remove(&mut self) {
        self.bytes -= self.sizes.pop_front().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_without_replies_are_bounded() {
        let mut pending = Pending::default();
        assert!(pending.add(PENDING_BYTES_MAX - 1) && pending.add(1) && !pending.add(1));
        pending.remove();
        assert!(pending.add(PENDING_BYTES_MAX - 1) && !pending.add(1));
    }
}
