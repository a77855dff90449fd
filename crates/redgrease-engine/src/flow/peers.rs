//! What other shards say.

use redgrease_core::frame::{LogLevel, ToWorker};
use redgrease_core::id::{ShardId, WorkerNo};
use redgrease_core::peer::PeerMessage;

use crate::engine::Engine;
use crate::prelude::*;

impl Engine {
    /// A message of another shard.
    pub(crate) fn peer_message(&mut self, from: ShardId, message: &[u8]) {
        let message = match PeerMessage::decode(message) {
            Ok(message) => message,
            Err(error) => {
                let text = format!("rg: shard {from} sent what is no message: {error}");
                if self.warned.insert("peer message") {
                    self.log(LogLevel::Warning, text);
                }
                return;
            }
        };
        match message {
            PeerMessage::Prepare { execution, job, user, database, flags, route } => {
                self.peer_prepare(from, execution, &job, (user, database), (flags, route));
            }
            PeerMessage::Ready { execution } => self.peer_is_ready(from, execution),
            PeerMessage::NeedFunction { execution } => self.peer_needs_function(from, execution),
            PeerMessage::Run { execution } => self.peer_runs(from, execution),
            PeerMessage::Records { execution, stage, records } => self.records_arrived(from, execution, stage, records),
            PeerMessage::StageEnded { execution, stage } => self.peer_stage_ended(from, execution, stage),
            PeerMessage::Consumed { execution, stage, bytes } => self.peer_consumed(execution, stage, bytes),
            PeerMessage::Stop { execution, stage } => self.peer_stops(from, execution, stage),
            PeerMessage::Ended { execution, failed, aborted, errors } => {
                self.peer_ended(from, execution, (failed, aborted), &errors);
            }
            PeerMessage::Abort { execution, .. } => self.peer_aborts(from, execution),
            PeerMessage::Drop { execution } => self.peer_drops(execution),
            PeerMessage::Ask { question, about } => self.peer_asks(from, question, &about),
            PeerMessage::Answer { question, result } => self.peer_answers(from, question, result),
            PeerMessage::Change { number, change } => self.peer_change(from, number, change),
            PeerMessage::Applied { number, conflict, result } => {
                self.change_applied(from, number, conflict, result.map_err(ToOwned::to_owned));
            }
            PeerMessage::Registry { digest } => self.registry_compared(from, digest),
            PeerMessage::NeedRegistry => self.send_registry(from),
            PeerMessage::WholeRegistry { change } => self.registry_arrived(from, change),
        }
    }

    /// There are other shards from now on, or none any more: workers pickle what they run, or do not.
    pub(crate) fn several_shards_changed(&mut self) {
        let several = self.topology.has_several();
        let workers: Vec<WorkerNo> =
            self.workers.links.iter().filter(|(_, link)| link.is_ready()).map(|(worker, _)| *worker).collect();
        for worker in workers {
            self.send(worker, &ToWorker::Cluster { several });
        }
        if several && !self.comparing {
            self.compare_registries();
        }
    }

    /// A link was made to a shard that has not been spoken to before, or that has restarted since.
    pub(crate) fn peer_ready(&mut self, shard: ShardId) {
        // What either has missed meanwhile is exchanged at once.
        self.send_to(shard, &PeerMessage::NeedRegistry);
    }

    /// A shard does not answer any more, has restarted, or is not part of the cluster any more: messages to it were lost.
    pub(crate) fn peer_lost(&mut self, shard: ShardId, reason: &str) {
        self.functions.shard_lost(shard);
        self.differs.remove(&shard);
        self.changes_lost(shard, reason);
        self.executions_lost(shard, reason);
        self.questions_lost(shard, reason);
    }
}
