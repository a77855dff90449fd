//! Readers: native steps, slices of keys and streams, and flow control.

use redgrease_core::codec::Writer;
use redgrease_core::frame::{Records, StartFlags, ToWorker};
use redgrease_core::id::{ExecutionNo, WorkerNo};

use crate::asked::Asked;
use crate::effect::{Effect, Question};
use crate::engine::Engine;
use crate::executions::execution::Status;
use crate::executions::live::Source;
use crate::input::Slice;
use crate::limits::{PAUSED_RETRY_MS, READ_AHEAD_BYTES_MAX, WINDOW_BYTES};
use crate::planted::Bug;
use crate::reader::Reader;
use crate::timers::Timer;

impl Engine {
    /// Starts an execution whose first steps need no worker.
    pub(crate) fn begin_native(&mut self, number: ExecutionNo) {
        self.executions.start(number);
        let now = self.now_ms();
        let Some(live) = self.live.get_mut(&number) else { return };
        live.started_ms = Some(now);
        let counts_all = matches!(&live.source, Source::Reader(Some(Reader::Scan(scan))) if scan.is_everything());
        let database = live.database;
        if counts_all {
            self.ask(Question::DatabaseSize(database), Asked::DatabaseSize(number));
        } else {
            self.readers.add(number);
        }
    }

    /// The number of all keys is known, or they have to be counted.
    pub(crate) fn database_size_known(&mut self, number: ExecutionNo, size: Option<u64>) {
        match size {
            Some(size) => {
                if let Some(native) = self.live.get_mut(&number).and_then(|live| live.native.as_mut()) {
                    native.feed(size);
                }
                self.native_steps_ended(number);
            }
            None => self.readers.add(number),
        }
    }

    /// The input of the native steps has ended: their output is sent to a worker, or is the result.
    fn native_steps_ended(&mut self, number: ExecutionNo) {
        let Some(live) = self.live.get_mut(&number) else { return };
        let Some(native) = live.native.take() else { return };
        let mut writer = Writer::new();
        let count = native.finish(&mut writer);
        let bytes = writer.into_bytes();
        if let Some(step) = native.next_step() {
            live.first_step = step;
            live.source = Source::Records { count, bytes };
            return self.enqueue(number);
        }
        if let Some(execution) = self.executions.get_mut(number) {
            execution.add_results(&Records { count, bytes: &bytes });
        }
        self.finish(number, Status::Done);
    }

    /// One slice for the reader whose turn it is.
    pub(crate) fn read_next(&mut self) {
        let Some(number) = self.readers.pop() else { return };
        if !self.has_room(number) {
            return self.readers.block(number);
        }
        let paused = self.at.server.paused;
        let Some(live) = self.live.get_mut(&number) else { return };
        let Source::Reader(reader) = &mut live.source else { return };
        if matches!(reader, Some(Reader::Group)) {
            return match paused {
                // Reading through a group is a write: while clients are paused it waits, and is retried later.
                true => self.after_ms(PAUSED_RETRY_MS, Timer::ReaderAgain(number)),
                false => self.read_group(number),
            };
        }
        let Some(reader) = reader.take() else { return };
        let (actor, count_only) = (live.actor(), live.native.is_some());
        self.out.push(Effect::ReadSlice { execution: number, actor, reader, count_only });
    }

    /// A reader that waited while clients were paused continues.
    pub(crate) fn reader_again(&mut self, number: ExecutionNo) {
        if self.live.contains_key(&number) {
            self.readers.add(number);
        }
    }

    /// Whether a reader may read: its worker has consumed and read enough.
    pub(crate) fn has_room(&self, number: ExecutionNo) -> bool {
        // An execution that has ended passes: reading it detects that.
        let Some(live) = self.live.get(&number) else { return true };
        let unsent = live.worker.and_then(|worker| self.workers.links.get(&worker)).map_or(0, |link| link.unsent());
        live.unconsumed < WINDOW_BYTES && unsent < READ_AHEAD_BYTES_MAX
    }

    /// Readers that waited for their workers may read again.
    pub(crate) fn unblock_readers(&mut self) {
        if self.planted(Bug::ReadersNotUnblocked) {
            return;
        }
        let mut readers = core::mem::take(&mut self.readers);
        readers.unblock(|number| self.has_room(number));
        self.readers = readers;
    }

    /// A slice was read.
    pub(crate) fn slice_read(&mut self, number: ExecutionNo, reader: Reader, slice: Slice) {
        let Some(live) = self.live.get_mut(&number) else { return };
        let native = live.native.as_mut().map(|native| native.feed(slice.count)).is_some();
        live.source = Source::Reader(Some(reader));
        if live.flags.has(StartFlags::PROFILE)
            && let Some(execution) = self.executions.get_mut(number)
        {
            execution.read_micros += slice.micros;
        }
        let ended = slice.ended || slice.error.is_some();
        if let Some(reason) = slice.error {
            // The reader ends; what it read before is processed.
            self.add_error(number, reason.into_bytes());
        }
        if native {
            match ended {
                true => self.native_steps_ended(number),
                false => self.readers.add(number),
            }
            return;
        }
        if ended || slice.count > 0 {
            self.feed(number, ended, slice.count, &slice.records);
        }
        if !ended {
            self.readers.add(number);
        }
    }

    /// Sends records that a reader read; `last`: there are no more.
    pub(crate) fn feed(&mut self, number: ExecutionNo, last: bool, count: u64, bytes: &[u8]) {
        let Some(live) = self.live.get_mut(&number) else { return };
        live.unconsumed += bytes.len() as u64;
        if let Some(worker) = live.worker {
            self.send(worker, &ToWorker::Feed { exec: number, last, records: Records { count, bytes } });
        }
    }

    /// Input was consumed.
    pub(crate) fn consumed(&mut self, worker: WorkerNo, number: ExecutionNo, bytes: u64) {
        if !self.runs_in(number, worker) {
            return;
        }
        let bytes = if self.planted(Bug::WindowNotReduced) { 0 } else { bytes };
        let Some(live) = self.live.get_mut(&number) else { return };
        live.unconsumed = live.unconsumed.saturating_sub(bytes);
        self.unblock_readers();
    }

    /// A worker needs no further records.
    pub(crate) fn stop_reader(&mut self, worker: WorkerNo, number: ExecutionNo) {
        let mine = self.live.get(&number).is_some_and(|live| live.worker == Some(worker));
        if mine && self.readers.remove(number) {
            self.feed(number, true, 0, &[]);
        }
    }
}
