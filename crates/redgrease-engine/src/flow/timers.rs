//! Timers that fire.

use crate::engine::Engine;
use crate::timers::Timer;

impl Engine {
    /// A timer fired. Its subject may no longer exist.
    pub(crate) fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::StartWorkers => self.start_workers(),
            Timer::LookAtWorkers => self.look_at_workers(),
            Timer::LookAtMemory => self.look_at_memory(),
            Timer::TrimWorkers => self.trim_workers(),
            Timer::Handshake(worker) => self.handshake_is_due(worker),
            Timer::ConnectionClosed(worker, looks) => self.connection_closed_for_long(worker, looks),
            Timer::UnfinishedLine(worker, stream) => self.unfinished_line(worker, stream),
            Timer::WorkerWait(session) => self.worker_wait_expired(session),
            Timer::WorkerAgain(session) => self.want_worker_again(session),
            Timer::ScriptLimit(session) => self.script_limit_reached(session),
            Timer::ScriptDone { worker, session, error, blob } => {
                self.script_done(worker, session, error.as_deref(), &blob);
            }
            Timer::InstallLimit(owner) => self.install_limit_reached(owner),
            Timer::CollectRequirements(environment) => self.collect_requirements(environment),
            Timer::TimeEvent(number) => self.time_event_is_due(number),
            Timer::Profile(request) => self.profile_is_late(request),
            Timer::ScheduleTick => self.schedule_tick(),
            Timer::ChangeLimit(number) => self.change_limit_reached(number),
            Timer::PeerChange { from, number, change } => self.peer_change(from, number, &change),
            Timer::PeerRegistry { from, change } => self.registry_arrived(from, &change),
            Timer::InquiryLimit(question) => self.inquiry_limit_reached(question),
            Timer::CompareRegistries => self.compare_registries(),
            Timer::ExecutionLimit(execution) => self.execution_limit_reached(execution),
            Timer::AbortGrace(execution) => self.abort_grace_expired(execution),
            Timer::ReaderAgain(execution) => self.reader_again(execution),
            Timer::StreamAction(registration, action) => self.act(registration, Some(action)),
            Timer::StreamDuration { registration, stream, epoch } => {
                self.stream_duration_expired(registration, &stream, epoch);
            }
            Timer::StreamRetry { registration, epoch } => self.stream_retry(registration, epoch),
            Timer::StreamSearch(registration, cursor) => self.search_streams(registration, cursor),
            Timer::StreamsRevived(registrations) => self.follow_again(&registrations),
            Timer::Acknowledge(batch) => self.acknowledge_next(batch),
            Timer::ReleaseHeld(release) => self.release_held_entries(release),
            Timer::RemoveGroup(removal) => self.remove_group(removal),
            Timer::LookAtLinks => self.look_at_links(),
        }
    }
}
