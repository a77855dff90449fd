//! Adding and removing registrations.

use redgrease_core::frame::ToWorker;
use redgrease_core::id::{PlanNo, RegistrationNo, WorkerNo};
use redgrease_core::plan::Trigger;

use crate::effect::Effect;
use crate::engine::Engine;
use crate::prelude::*;
use crate::registrations::registry::{Registration, Replaced};
use crate::sessions::session::Session;

impl Engine {
    /// Notifies a worker that plans have become registrations.
    pub(crate) fn announce(&mut self, worker: WorkerNo, registrations: &[RegistrationNo]) {
        for number in registrations {
            if let Some(plan) = self.registrations.get(*number).map(|registration| registration.plan) {
                self.send(worker, &ToWorker::Registered { plan });
            }
        }
    }

    /// Stream registrations that replace others continue where these stopped.
    pub(crate) fn resume_groups(&self, replaced: Replaced, pending: &mut [(RegistrationNo, Registration)]) {
        let mut taken = Vec::new();
        for (_, registration) in pending {
            let Trigger::Stream { filter, .. } = &registration.trigger else { continue };
            let resumed = self.registrations.group_to_resume(replaced, registration.database, filter, &taken);
            if let Some(group) = resumed {
                taken.push(group.clone());
                registration.group = group;
            }
        }
    }

    /// A registration becomes active.
    pub(crate) fn add_registration(&mut self, number: RegistrationNo, mut registration: Registration) {
        if let Trigger::Stream { filter, .. } = &registration.trigger
            && registration.group.is_empty()
        {
            let id = registration.id;
            let own = || format!("{id}:{}", self.run_id);
            registration.group = self.registrations.stream_group(registration.database, filter, own);
        }
        let ranges = registration.ranges.clone();
        self.registrations.add(number, registration);
        self.add_hooks(number, &ranges);
        self.watch_commands();
        if self.registrations.wants_events() && !core::mem::replace(&mut self.subscribed, true) {
            self.out.push(Effect::Subscribe);
        }
    }

    /// Sync functions of events run before the next command where the server has no jobs.
    fn watch_commands(&mut self) {
        let wanted = self.registrations.wants_sync_events() && !self.capabilities.jobs;
        if core::mem::replace(&mut self.watching_commands, wanted) != wanted {
            self.out.push(Effect::WatchCommands(wanted));
        }
    }

    /// Removes a registration. Its waiting events and executions that have not begun are aborted: nothing runs after
    /// the reply. Triggers that clients wait for are run, unless `abort_triggers`.
    pub(crate) fn remove_registration(&mut self, number: RegistrationNo, abort: bool) {
        let Some(registration) = self.registrations.get(number) else { return };
        let is_command = matches!(registration.trigger, Trigger::Command { .. } | Trigger::Hook { .. });
        // First of all, so that no end of an execution starts another one.
        let followed = self.streams.remove(&number);
        let is_keys = matches!(registration.trigger, Trigger::Keys { .. });
        if abort || !(is_command || is_keys) {
            self.abort_pending(number);
        } else if is_keys {
            self.start_all_pending(number);
        }
        let Some(registration) = self.registrations.remove(number) else { return };
        self.replicate_removal(registration.id, registration.session);
        self.watch_commands();
        self.watch_hooks();
        for execution in registration.finished() {
            // A missing one was removed from the list before.
            let _ = self.executions.drop_finished(execution);
        }
        if let Some(followed) = followed {
            self.stream_unregistered(&followed.source);
        }
        let session = registration.session;
        if self.registrations.of_session(session).is_empty() {
            if let Some(session) = self.sessions.get_mut(session) {
                (session.registered, session.unlinked) = (false, true);
            }
            self.end_session_if_unused(session);
        } else if !self.is_plan_in_use(registration.plan)
            && let Some(worker) = self.sessions.get(session).and_then(Session::worker)
        {
            self.send(worker, &ToWorker::ForgetPlans { plans: vec![registration.plan] });
        }
    }

    fn is_plan_in_use(&self, plan: PlanNo) -> bool {
        self.live.values().any(|live| live.plan == plan)
    }
}
