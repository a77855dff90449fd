//! What must be true, and what was seen so far that it is checked against.

use std::collections::{BTreeMap, BTreeSet};

use redgrease_core::id::{ExecutionNo, PlanNo};
use redgrease_core::render::Reply;
use redgrease_engine::EntryId;

/// A promise that was broken.
#[derive(Debug)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// What was seen.
    pub text: String,
}

/// Ends the run: a promise was broken.
pub fn violated(invariant: &'static str, text: String) -> ! {
    std::panic::resume_unwind(Box::new(Violation { invariant, text }))
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// A worker named what is not its own: what it may have ended or registered is not checked any more.
    pub hostile: bool,
    /// Executions that were started: plan and number of what started them.
    started: BTreeSet<(PlanNo, u64)>,
    /// The last of them for each plan.
    last: BTreeMap<PlanNo, u64>,
    /// Entries of streams that executions have read, with the group.
    read: BTreeMap<ExecutionNo, Vec<(Vec<u8>, EntryId)>>,
    /// Entries that a function has processed, or that are no records.
    processed: BTreeSet<(Vec<u8>, EntryId)>,
    /// The highest number of an execution.
    pub executions: u64,
    /// Sync executions that a worker had not begun when it ended.
    pub not_begun: BTreeSet<ExecutionNo>,
}

impl Seen {
    /// A worker was told to start an execution for the event, or the call, with that number.
    pub fn start(&mut self, plan: PlanNo, number: u64, in_order: bool) {
        if !self.started.insert((plan, number)) {
            violated("an event starts a function once", format!("plan {plan} was started twice for {number}"));
        }
        if in_order
            && let Some(before) = self.last.insert(plan, number)
            && before > number
        {
            let text = format!("plan {plan} was started for {number} after {before}");
            violated("functions start in the order of their events", text);
        }
    }

    /// An execution read entries of a stream.
    pub fn entries_read(&mut self, execution: ExecutionNo, group: &[u8], ids: &[EntryId], records: u64) {
        let entries = ids.iter().map(|id| (group.to_vec(), *id));
        if records < ids.len() as u64 {
            self.processed.extend(entries.clone());
        }
        self.read.entry(execution).or_default().extend(entries);
    }

    /// A worker ended an execution.
    pub fn done(&mut self, execution: ExecutionNo) {
        self.processed.extend(self.read.remove(&execution).unwrap_or_default());
    }

    /// A client is answered.
    pub fn answered(&self, reply: &Reply) {
        let Reply::Error(text) = reply else { return };
        let Some((_, id)) = text.split_once(" of execution ").filter(|_| text.starts_with("WORKERDIED ")) else {
            return;
        };
        let number = id.rsplit('-').next().and_then(|number| number.parse().ok()).map(ExecutionNo);
        if number.is_some_and(|number| self.not_begun.contains(&number)) && !self.hostile {
            violated("what a worker had not begun when it ended is run again", text.clone());
        }
    }

    /// The engine acknowledges entries.
    pub fn acknowledged(&self, group: &[u8], ids: &[EntryId]) {
        let missing = ids.iter().find(|id| !self.processed.contains(&(group.to_vec(), **id)));
        if let Some(id) = missing.filter(|_| !self.hostile) {
            let text = format!("entry {id} of group {} was not processed", String::from_utf8_lossy(group));
            violated("entries are acknowledged when they were processed", text);
        }
    }
}
