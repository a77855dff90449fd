//! Commands that ask other shards, too.

use redgrease_core::id::{ExecutionNo, Identifier, RegistrationNo, ShardId};
use redgrease_core::peer::{PeerFact, PeerMessage, PeerPart, PeerQuestion};
use redgrease_core::render::{Reply, one_line};

use crate::clients::Client;
use crate::cluster::inquiries::{PartRow, Purpose};
use crate::effect::Effect;
use crate::engine::Engine;
use crate::error::Error;
use crate::flow::inspection::{execution_row, part_of};
use crate::limits::INQUIRY_MS_MAX;
use crate::prelude::*;
use crate::timers::Timer;

impl Engine {
    /// Asks all other shards, for a client that is blocked until they have answered.
    pub(crate) fn inquire(&mut self, client: Client, purpose: Purpose, about: &PeerQuestion) {
        let shards: BTreeSet<ShardId> = self.topology.others().map(|shard| shard.id).collect();
        self.out.push(Effect::Block(client.number()));
        let question = self.inquiries.add(client, shards.clone(), purpose);
        for shard in shards {
            self.send_to(shard, &PeerMessage::Ask { question, about: about.clone() });
        }
        self.after_ms(INQUIRY_MS_MAX, Timer::InquiryLimit(question));
    }

    /// Another shard asks something.
    pub(crate) fn peer_asks(&mut self, from: ShardId, question: u64, about: &PeerQuestion) {
        let result = match about {
            PeerQuestion::Execution(id) => {
                let part = self.executions.find(*id).map(|number| self.part_row(number));
                part.map(Some).ok_or_else(|| Error::NoExecution.to_string())
            }
            PeerQuestion::Abort(id) => match self.executions.find(*id) {
                Some(number) => {
                    if let Some((_, shared)) = self.shared_mut(*id) {
                        shared.failed = true;
                    }
                    self.abort(number);
                    Ok(None)
                }
                None => Err(Error::NothingToAbort.to_string()),
            },
            PeerQuestion::Pause { registrations, resume } => {
                self.pause_for_peer(registrations, *resume).map(|()| None).map_err(|error| error.to_string())
            }
            PeerQuestion::ClearStatistics => {
                self.clear_all_statistics();
                Ok(None)
            }
        };
        let result = match &result {
            Ok(Some(row)) => Ok(PeerFact::Part(peer_part(row))),
            Ok(None) => Ok(PeerFact::Done),
            Err(text) => Err(text.as_str()),
        };
        self.send_to(from, &PeerMessage::Answer { question, result });
    }

    fn pause_for_peer(&mut self, registrations: &[Identifier], resume: bool) -> Result<(), Error> {
        let mut numbers: Vec<RegistrationNo> = Vec::new();
        for id in registrations {
            let missing = || Error::NoSuchRegistration { id: id.to_string(), shard: self.topology.me.to_string() };
            numbers.push(self.registrations.find(*id).ok_or_else(missing)?);
        }
        if resume {
            self.resume_streams(&numbers);
        } else {
            self.pause_streams(&numbers);
        }
        Ok(())
    }

    /// Another shard has answered.
    pub(crate) fn peer_answers(&mut self, from: ShardId, question: u64, result: Result<PeerFact<'_>, &str>) {
        let Some((purpose, is_last)) = self.inquiries.answered(question, from) else { return };
        match (purpose, result) {
            (Purpose::Execution { rows, .. }, Ok(PeerFact::Part(part))) => rows.push((from, part_row(&part))),
            // A shard that does not know the execution contributes nothing.
            (Purpose::Execution { .. }, _) | (Purpose::Done { .. }, Ok(_)) => {}
            (Purpose::Done { error }, Err(text)) => {
                error.get_or_insert_with(|| text.to_owned());
            }
        }
        if is_last {
            self.inquiry_ended(question);
        }
    }

    fn inquiry_ended(&mut self, question: u64) {
        let Some(inquiry) = self.inquiries.take(question) else { return };
        let reply = match inquiry.purpose {
            Purpose::Execution { id, rows } => {
                let spec = self.executions.find(id).and_then(|number| self.executions.get(number)?.spec.clone());
                let rows = rows.iter().map(|(shard, row)| execution_row(*shard, row, spec.as_deref()));
                Reply::Array(rows.collect())
            }
            Purpose::Done { error: None } => Reply::Simple("OK".into()),
            Purpose::Done { error: Some(text) } => Reply::Error(one_line(text.as_bytes())),
        };
        self.reply(inquiry.client, reply);
    }

    /// A shard was lost that has not answered.
    pub(crate) fn questions_lost(&mut self, shard: ShardId, reason: &str) {
        for question in self.inquiries.waiting_for(shard) {
            let error = Error::ShardLost { shard, reason: reason.to_owned() }.to_string();
            self.peer_answers(shard, question, Err(&error));
        }
    }

    /// Shards have not answered for too long.
    pub(crate) fn inquiry_limit_reached(&mut self, question: u64) {
        for shard in self.inquiries.missing(question) {
            let error = Error::InquiryLate { shard, ms: INQUIRY_MS_MAX }.to_string();
            self.peer_answers(shard, question, Err(&error));
        }
    }

    fn part_row(&self, number: ExecutionNo) -> PartRow {
        let shared = self.live.get(&number).and_then(|live| live.shared.as_deref());
        self.executions.get(number).map(|execution| part_of(execution, shared)).unwrap_or_default()
    }

    /// The answer to `RG.GETEXECUTION` for this shard.
    pub(crate) fn own_execution_row(&self, number: ExecutionNo) -> (ShardId, PartRow) {
        (self.shard, self.part_row(number))
    }
}

fn peer_part(row: &PartRow) -> PeerPart<'_> {
    PeerPart {
        status: &row.status,
        shards_received: row.shards_received,
        shards_completed: row.shards_completed,
        results: row.results,
        errors: row.errors.iter().map(Vec::as_slice).collect(),
        total_ms: row.total_ms,
        read_micros: row.read_micros,
        step_micros: row.step_micros.clone(),
    }
}

fn part_row(part: &PeerPart<'_>) -> PartRow {
    PartRow {
        status: part.status.to_owned(),
        shards_received: part.shards_received,
        shards_completed: part.shards_completed,
        results: part.results,
        errors: part.errors.iter().map(|error| error.to_vec()).collect(),
        total_ms: part.total_ms,
        read_micros: part.read_micros,
        step_micros: part.step_micros.clone(),
    }
}
