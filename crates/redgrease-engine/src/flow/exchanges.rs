//! Records of executions that move between shards.

use redgrease_core::frame::{Records, ToWorker};
use redgrease_core::id::{ExecutionNo, Identifier, ShardId, WorkerNo};
use redgrease_core::peer::PeerMessage;

use crate::engine::Engine;
use crate::executions::shared::Shared;

impl Engine {
    fn shared_of(&mut self, worker: WorkerNo, number: ExecutionNo) -> Option<&mut Shared> {
        if !self.runs_in(number, worker) {
            return None;
        }
        self.live.get_mut(&number)?.shared.as_deref_mut()
    }

    /// Records of a worker go to another shard.
    pub(crate) fn records_moved(
        &mut self,
        worker: WorkerNo,
        number: ExecutionNo,
        (stage, shard): (u64, u64),
        records: Records<'_>,
    ) {
        let max = self.config.record_bytes_max as u64;
        let Some(shared) = self.shared_of(worker, number) else { return };
        let (execution, here) = (shared.id, shared.here);
        let target = shared.shard_at(shard).filter(|_| shard != here);
        let allowed = shared.window() + max;
        let outstanding = shared.moved(stage, records.bytes.len() as u64);
        match (target, outstanding) {
            (Some(target), Some(outstanding)) if outstanding <= allowed => {
                self.send_to(target, &PeerMessage::Records { execution, stage, records });
            }
            (Some(_), Some(_)) => {
                self.end_worker(worker, "was killed: it sent more records than other shards had consumed".into());
            }
            _ => self.protocol_broken(worker, "records for a shard or stage that the execution does not have"),
        }
    }

    /// A worker has no more records for a stage of other shards.
    pub(crate) fn stage_ended(&mut self, worker: WorkerNo, number: ExecutionNo, stage: u64) {
        let Some(shared) = self.shared_of(worker, number) else { return };
        let (execution, told) = (shared.id, shared.told_of_end(stage));
        for shard in told {
            self.send_to(shard, &PeerMessage::StageEnded { execution, stage });
        }
    }

    /// A worker has consumed records of other shards.
    pub(crate) fn records_taken(&mut self, worker: WorkerNo, number: ExecutionNo, stage: u64, bytes: u64) {
        let Some(shared) = self.shared_of(worker, number) else { return };
        let execution = shared.id;
        if let Some(credit) = shared.taken(stage, bytes) {
            let bytes = credit.bytes;
            self.send_to(credit.shard, &PeerMessage::Consumed { execution, stage, bytes });
        }
    }

    /// A worker needs no more records for a stage. If all shards send them to this one only, they stop.
    pub(crate) fn stage_closed(&mut self, worker: WorkerNo, number: ExecutionNo, stage: u64) {
        let Some(shared) = self.shared_of(worker, number) else { return };
        if !shared.is_initiator() || shared.is_collected(stage) != Some(true) {
            return;
        }
        let (execution, others) = (shared.id, shared.others());
        for shard in others {
            self.send_to(shard, &PeerMessage::Stop { execution, stage });
        }
        self.stop_reader(worker, number);
    }

    /// Records of another shard.
    pub(crate) fn records_arrived(&mut self, from: ShardId, execution: Identifier, stage: u64, records: Records<'_>) {
        // One that has ended needs no records.
        let Some((number, shared)) = self.shared_mut(execution) else { return };
        let Some(position) = shared.position(from) else { return };
        if !shared.started || !shared.takes(stage, position) {
            return;
        }
        let Some(worker) = self.live.get(&number).and_then(|live| live.worker) else { return };
        if let Some((_, shared)) = self.shared_mut(execution) {
            shared.sent_to_worker(stage, position, records.bytes.len() as u64);
        }
        self.send(worker, &ToWorker::Arrived { exec: number, stage, last: false, records });
    }

    /// Another shard has no more records for a stage.
    pub(crate) fn peer_stage_ended(&mut self, from: ShardId, execution: Identifier, stage: u64) {
        let Some((number, shared)) = self.shared_mut(execution) else { return };
        if let Some(position) = shared.position(from) {
            shared.stage_ended_by(stage, position);
            self.close_stages(number);
        }
    }

    /// Tells the worker of an execution which stages receive no more records of other shards.
    pub(crate) fn close_stages(&mut self, number: ExecutionNo) {
        let Some(live) = self.live.get_mut(&number) else { return };
        let (Some(worker), Some(shared)) = (live.worker, live.shared.as_mut()) else { return };
        for stage in shared.newly_closed() {
            self.send(worker, &ToWorker::Arrived { exec: number, stage, last: true, records: Records::default() });
        }
    }

    /// Another shard has consumed records of this one.
    pub(crate) fn peer_consumed(&mut self, execution: Identifier, stage: u64, bytes: u64) {
        let Some((number, shared)) = self.shared_mut(execution) else { return };
        shared.consumed(stage, bytes);
        if let Some(worker) = self.live.get(&number).and_then(|live| live.worker) {
            self.send(worker, &ToWorker::Room { exec: number, stage, bytes });
        }
    }

    /// The initiator needs no more records for a stage.
    pub(crate) fn peer_stops(&mut self, from: ShardId, execution: Identifier, stage: u64) {
        let Some((number, shared)) = self.shared_mut(execution) else { return };
        if shared.initiator() != from {
            return;
        }
        if let Some(worker) = self.live.get(&number).and_then(|live| live.worker) {
            self.send(worker, &ToWorker::CloseStage { exec: number, stage });
            self.stop_reader(worker, number);
        }
    }
}
