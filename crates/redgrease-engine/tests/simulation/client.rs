//! Clients: each is answered exactly once, and none is answered later that was not blocked.

use std::collections::{BTreeMap, BTreeSet};

use redgrease_core::render::Reply;
use redgrease_engine::id::ClientNo;

use crate::invariants::violated;

/// A client that was not answered.
#[derive(Debug, Default)]
struct Client {
    /// What it asked for.
    command: String,
    /// Its command has ended without an answer.
    waits: bool,
    /// It is held when its command ends without an answer.
    block: bool,
    /// It gave up.
    gone: bool,
    /// Elements of an array that it was sent.
    rows: u64,
    answer: Option<Reply>,
}

/// All clients.
#[derive(Debug, Default)]
pub struct Clients {
    last: u64,
    open: BTreeMap<ClientNo, Client>,
    /// Clients whose commands the driver has answered when it failed.
    abandoned: BTreeSet<ClientNo>,
    /// The driver has failed: some clients are told so.
    pub driver_failed: bool,
    /// How many were answered.
    pub answered: u64,
}

/// How the command of a client ended.
#[derive(Debug)]
pub enum End {
    /// With an answer.
    Answered(Reply),
    /// The client waits.
    Blocked,
}

impl Clients {
    /// A command begins.
    pub fn begin(&mut self, command: String) -> ClientNo {
        self.last += 1;
        self.open.insert(ClientNo(self.last), Client { command, ..Client::default() });
        ClientNo(self.last)
    }

    /// A command, and all that it brought about at once, has ended.
    pub fn end(&mut self, number: ClientNo, can_wait: bool) -> End {
        let Some(mut client) = self.open.remove(&number) else {
            violated("a client is answered once", format!("client {number} was answered and is gone"));
        };
        if let Some(answer) = client.answer {
            self.answered += 1;
            return End::Answered(answer);
        }
        if !client.block {
            violated("a command is answered or blocks", format!("client {number}: {}", client.command));
        }
        if !can_wait {
            violated("no client is blocked where it cannot be", format!("client {number}: {}", client.command));
        }
        client.waits = true;
        self.open.insert(number, client);
        End::Blocked
    }

    /// The driver failed in the command of a client, and has answered it.
    pub fn abandon(&mut self, number: ClientNo) {
        self.open.remove(&number);
        self.abandoned.insert(number);
    }

    /// The engine holds a client.
    pub fn block(&mut self, number: ClientNo) {
        match self.open.get_mut(&number) {
            Some(client) if !client.waits && !client.block && client.answer.is_none() => client.block = true,
            other => violated("a client is blocked once", format!("client {number}: {other:?}")),
        }
    }

    /// The engine answers a client.
    pub fn answer(&mut self, number: ClientNo, reply: Reply) {
        if let Reply::Error(text) = &reply
            && text.starts_with("INTERNAL")
            && !self.driver_failed
        {
            violated("nothing internal is wrong", format!("client {number} was answered {text}"));
        }
        match self.open.get_mut(&number) {
            Some(client) if client.waits => {
                self.open.remove(&number);
                self.answered += 1;
            }
            Some(client) if client.answer.is_none() => client.answer = Some(reply),
            None if self.abandoned.remove(&number) => {}
            other => violated("a client is answered once", format!("client {number}: {other:?}, answered {reply:?}")),
        }
    }

    /// The engine sends a client one element.
    pub fn row(&mut self, number: ClientNo) {
        match self.open.get_mut(&number) {
            Some(client) if client.block && client.answer.is_none() => client.rows += 1,
            None if self.abandoned.contains(&number) => {}
            other => violated("rows are for clients that wait", format!("client {number}: {other:?}")),
        }
    }

    /// The engine has sent all elements.
    pub fn end_rows(&mut self, number: ClientNo) {
        self.answer(number, Reply::Null);
    }

    /// A client that waits gives up.
    pub fn leave(&mut self, choice: u64) {
        let waiting: Vec<ClientNo> =
            self.open.iter().filter(|(_, client)| client.waits).map(|(number, _)| *number).collect();
        if !waiting.is_empty()
            && let Some(client) = self.open.get_mut(&waiting[choice as usize % waiting.len()])
        {
            client.gone = true;
        }
    }

    /// Whether a client gave up.
    pub fn is_gone(&self, number: ClientNo) -> bool {
        self.open.get(&number).is_some_and(|client| client.gone)
    }

    /// Clients that were not answered.
    pub fn unanswered(&self) -> Vec<String> {
        self.open.iter().map(|(number, client)| format!("{number}: {}", client.command)).collect()
    }
}
