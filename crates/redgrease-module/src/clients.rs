//! Clients whose commands are running, and blocked clients: each is answered exactly once.
//!
//! While its command is running, a client is answered, or blocked, after the engine has handled the command and
//! everything that it caused: an input that is handled inside that command may be the one that answers it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use redgrease_core::render::{Reply, one_line};
use redgrease_engine::effect::Answer;
use redgrease_engine::id::ClientNo;
use redgrease_ffi::{BlockedClient, CallReply, Invocation, Replier, SlowAnswer};

use crate::error::Error;
use crate::reply;

/// A client that was not answered yet.
enum Client {
    /// Its command is running.
    Running(Running),
    /// It is blocked.
    Blocked(BlockedClient),
    /// It is being answered in parts.
    Writing(SlowAnswer),
}

/// The decision about a client whose command is running.
#[derive(Default)]
struct Running {
    block: bool,
    measure: bool,
    rows: Vec<Reply>,
    answer: Option<Answer>,
    resp3: bool,
}

/// All clients that were not answered yet.
#[derive(Default)]
pub struct Clients {
    last: Cell<u64>,
    /// How many were blocked by their command since this was asked.
    blocked: Cell<usize>,
    table: RefCell<BTreeMap<ClientNo, Client>>,
    /// Replies of commands that were run for clients.
    kept: RefCell<BTreeMap<ClientNo, Result<CallReply, String>>>,
}

/// Removes a client whose command is running from the table, also after a panic.
struct Entry<'a> {
    clients: &'a Clients,
    number: ClientNo,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        drop(self.clients.take(self.number));
        drop(self.clients.take_kept(self.number));
    }
}

impl Clients {
    /// Runs `handle` for a command, with a number for its client; then answers the client, or blocks it.
    pub fn serve(&self, invocation: &Invocation<'_>, handle: impl FnOnce(ClientNo)) {
        let number = ClientNo(self.last.get() + 1);
        self.last.set(number.0);
        let resp3 = invocation.flags().resp3();
        self.put(number, Client::Running(Running { resp3, ..Running::default() }));
        let entry = Entry { clients: self, number };
        handle(number);
        let Some(Client::Running(running)) = self.take(number) else { return };
        std::mem::forget(entry);
        self.end(number, running, invocation);
    }

    fn end(&self, number: ClientNo, running: Running, invocation: &Invocation<'_>) {
        let Running { block, measure, rows, answer, .. } = running;
        if let Some(answer) = answer {
            let kept = self.take_kept(number);
            return write(&invocation.reply(), answer, kept);
        }
        if !block {
            return invocation.reply().error(&Error::NoAnswer.to_string());
        }
        let Some(mut blocked) = invocation.block() else {
            return invocation.reply().error(&Error::NotBlockable.to_string());
        };
        if measure {
            blocked.measure_start();
        }
        self.put(number, Client::Blocked(blocked));
        self.blocked.set(self.blocked.get() + 1);
        rows.iter().for_each(|row| self.row(number, row));
    }

    /// How many clients were blocked since this was called last.
    pub fn take_blocked(&self) -> usize {
        self.blocked.take()
    }

    /// Blocks a client whose command ends without a reply.
    pub fn block(&self, number: ClientNo) {
        if let Some(Client::Running(running)) = self.table.borrow_mut().get_mut(&number) {
            running.block = true;
        }
    }

    /// Until its reply, time is attributed to the client's command.
    pub fn measure(&self, number: ClientNo) {
        match self.table.borrow_mut().get_mut(&number) {
            Some(Client::Running(running)) => running.measure = true,
            Some(Client::Blocked(blocked)) => blocked.measure_start(),
            Some(Client::Writing(_)) | None => {}
        }
    }

    /// Answers a client. An unknown one was answered when its command panicked. `panics`: for tests, the reply to a
    /// blocked client panics.
    pub fn answer(&self, number: ClientNo, answer: Answer, panics: bool) {
        if let Some(Client::Running(running)) = self.table.borrow_mut().get_mut(&number) {
            running.answer = Some(answer);
            return;
        }
        match self.take(number) {
            // Rendering many results takes time, which the server attributes to the client there.
            Some(Client::Blocked(blocked)) => {
                let kept = self.take_kept(number);
                blocked.answer(move |client| {
                    assert!(!panics, "injected in a Reply");
                    write(client, answer, kept);
                });
            }
            // The rows that were written are its reply.
            Some(Client::Writing(rows)) => rows.finish(),
            Some(Client::Running(_)) | None => {}
        }
    }

    /// Writes one element of the array that a client is answered with.
    pub fn row(&self, number: ClientNo, row: &Reply) {
        let mut rows = match self.take(number) {
            Some(Client::Running(mut running)) => {
                running.rows.push(row.clone());
                return self.put(number, Client::Running(running));
            }
            Some(Client::Blocked(blocked)) => blocked.write_slowly(),
            Some(Client::Writing(rows)) => rows,
            None => return,
        };
        rows.element(|client| reply::write(client, row));
        self.put(number, Client::Writing(rows));
    }

    /// Ends that array.
    pub fn end_rows(&self, number: ClientNo) {
        match self.take(number) {
            Some(Client::Running(mut running)) => {
                let rows = std::mem::take(&mut running.rows);
                running.answer = Some(Answer::Value(Reply::Array(rows)));
                self.put(number, Client::Running(running));
            }
            Some(Client::Blocked(blocked)) => blocked.write_slowly().finish(),
            Some(Client::Writing(rows)) => rows.finish(),
            None => {}
        }
    }

    /// Whether a blocked client has disconnected.
    pub fn is_gone(&self, number: ClientNo) -> bool {
        match self.table.borrow().get(&number) {
            Some(Client::Blocked(blocked)) => blocked.is_gone(),
            Some(Client::Running(_) | Client::Writing(_)) | None => false,
        }
    }

    /// Keeps the reply of a command that was run for a client, for [`Answer::OwnReply`].
    pub fn keep(&self, number: ClientNo, reply: Result<CallReply, String>) {
        self.kept.borrow_mut().insert(number, reply);
    }

    /// Whether a client whose command is running speaks RESP3.
    pub fn speaks_resp3(&self, number: ClientNo) -> bool {
        matches!(self.table.borrow().get(&number), Some(Client::Running(running)) if running.resp3)
    }

    fn take_kept(&self, number: ClientNo) -> Option<Result<CallReply, String>> {
        self.kept.borrow_mut().remove(&number)
    }

    fn put(&self, number: ClientNo, client: Client) {
        self.table.borrow_mut().insert(number, client);
    }

    fn take(&self, number: ClientNo) -> Option<Client> {
        self.table.borrow_mut().remove(&number)
    }
}

/// Writes an answer; `kept` is the reply of the command that was run for the client.
fn write(client: &Replier<'_>, answer: Answer, kept: Option<Result<CallReply, String>>) {
    match (answer, kept) {
        (Answer::OwnReply, Some(Ok(reply))) => client.reply_of_command(&reply),
        (Answer::OwnReply, Some(Err(text))) => client.error(&one_line(text.as_bytes())),
        (answer, _) => reply::write(client, &answer.into_reply()),
    }
}
