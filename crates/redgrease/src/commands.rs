//! The commands: one list, of which both traits are made.

use redis::{ToRedisArgs, ToSingleRedisArg};

use crate::calls;
#[cfg(feature = "aio")]
use crate::connection::AsyncGearsConnection;
use crate::connection::GearsConnection;
use crate::error::Result;
use crate::execute::PyExecute;
use crate::id::{ExecutionId, RegistrationId};
use crate::options::{Locality, Pending, SessionQuery};
use crate::record::{Executed, Results};
use crate::reply::{
    Cluster, ExecutionInfo, ExportedRequirement, Plugin, PyStats, Registration, Requirement, Session, ShardExecution,
};

macro_rules! commands {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $kind:ty),*) -> $reply:ty;)+) => {
        /// The commands of the module, for blocking connections.
        ///
        /// Every method fails with the error of the connection or of the server: see [`crate::Error`].
        pub trait GearsCommands: GearsConnection + Sized {
            $($(#[$doc])*
            #[allow(clippy::missing_errors_doc)]
            fn $name(&mut self, $($argument: $kind),*) -> Result<$reply> {
                self.call(calls::$name($($argument),*))
            })+
        }

        impl<C: GearsConnection> GearsCommands for C {}

        /// The commands of the module, for connections of tokio.
        ///
        /// Every method fails with the error of the connection or of the server: see [`crate::Error`].
        #[cfg(feature = "aio")]
        pub trait AsyncGearsCommands: AsyncGearsConnection + Sized {
            $($(#[$doc])*
            fn $name(&mut self, $($argument: $kind),*) -> impl Future<Output = Result<$reply>> + Send {
                self.call(calls::$name($($argument),*))
            })+
        }

        #[cfg(feature = "aio")]
        impl<C: AsyncGearsConnection> AsyncGearsCommands for C {}
    };
}

commands! {
    /// `RG.PYEXECUTE`: runs a Python script, which may run or register functions.
    fn rg_py_execute(request: PyExecute) -> Executed;
    /// `RG.GETRESULTS`: the results of an execution that has ended.
    fn rg_get_results(id: &ExecutionId) -> Results;
    /// `RG.GETRESULTSBLOCKING`: waits for the end of an execution; its results.
    fn rg_get_results_blocking(id: &ExecutionId) -> Results;
    /// `RG.TRIGGER`: runs the function that is registered under a name.
    ///
    /// Arguments are what redis-rs takes: a text, a number, a tuple, a `Vec`; [`NO_ARGUMENTS`](crate::NO_ARGUMENTS) for none.
    fn rg_trigger(name: &str, arguments: impl ToRedisArgs) -> Results;
    /// `RG.TRIGGERONKEY`: as `RG.TRIGGER`, on the shard of a key, which is the function's first argument.
    fn rg_trigger_on_key(name: &str, key: impl ToSingleRedisArg, arguments: impl ToRedisArgs) -> Results;
    /// `RG.GETEXECUTION`: steps, times and errors of an execution, on each shard.
    fn rg_get_execution(id: &ExecutionId, locality: Option<Locality>) -> Vec<ShardExecution>;
    /// `RG.DUMPEXECUTIONS`: all executions of the list.
    fn rg_dump_executions() -> Vec<ExecutionInfo>;
    /// `RG.ABORTEXECUTION`: aborts an execution.
    fn rg_abort_execution(id: &ExecutionId) -> ();
    /// `RG.DROPEXECUTION`: removes an execution that has ended from the list.
    fn rg_drop_execution(id: &ExecutionId) -> ();
    /// `RG.DUMPREGISTRATIONS`: all registrations.
    fn rg_dump_registrations() -> Vec<Registration>;
    /// `RG.UNREGISTER`: removes a registration.
    fn rg_unregister(id: &RegistrationId, pending: Pending) -> ();
    /// `RG.PAUSEREGISTRATIONS`: pauses registrations of streams.
    fn rg_pause_registrations(ids: &[RegistrationId], pending: Pending) -> ();
    /// `RG.UNPAUSEREGISTRATIONS`: continues registrations of streams.
    fn rg_unpause_registrations(ids: &[RegistrationId]) -> ();
    /// `RG.CLEARREGISTRATIONSSTATS`: sets the statistics of all registrations to zero.
    fn rg_clear_registrations_stats() -> ();
    /// `RG.PYDUMPSESSIONS`: sessions; one that does not exist is left out.
    fn rg_py_dump_sessions(query: &SessionQuery) -> Vec<Session>;
    /// `RG.PYPROFILE STATS`: how long the functions of a session took, as text for people.
    ///
    /// `order` is a sort key of Python's `pstats`, such as `cumulative`.
    fn rg_py_profile_stats(session: &str, order: Option<&str>) -> String;
    /// `RG.PYPROFILE RESET`: forgets these times.
    fn rg_py_profile_reset(session: &str) -> ();
    /// `RG.PYDUMPREQS`: the requirements that are installed or used.
    fn rg_py_dump_reqs() -> Vec<Requirement>;
    /// `RG.PYEXPORTREQ`: a requirement with its wheels.
    fn rg_py_export_req(name: &str) -> ExportedRequirement;
    /// `RG.PYIMPORTREQ`: installs a requirement from its wheels, without a network; takes all its pieces, in their order.
    fn rg_py_import_req(pieces: &[Vec<u8>]) -> ();
    /// `RG.PYSTATS`: the memory of the workers; with a cluster of all shards.
    fn rg_py_stats() -> PyStats;
    /// `RG.DUMPPLUGINS`: the plugins of RedisGears that the module stands for.
    fn rg_dump_plugins() -> Vec<Plugin>;
    /// `RG.CONFIGGET`: the value of each key as text, or the error in its place.
    fn rg_config_get(keys: &[&str]) -> Vec<Result<String>>;
    /// `RG.CONFIGSET`: changes values; a result for each key.
    fn rg_config_set(values: &[(&str, &str)]) -> Vec<Result<()>>;
    /// `RG.INFOCLUSTER`: the shards of the cluster; `None` without a cluster.
    fn rg_info_cluster() -> Option<Cluster>;
    /// `RG.REFRESHCLUSTER`: all shards read the topology again.
    fn rg_refresh_cluster() -> ();
    /// `RG.NETWORKTEST`: sends a message to all shards; where it arrived stands in the logs.
    fn rg_network_test() -> ();
    /// `RG.ADMINISTER`: does nothing; an error says that the user may not end and replace objects of others.
    fn rg_administer() -> ();
}

#[cfg(test)]
mod tests {
    use redgrease_core::command_docs::COMMANDS;

    /// Commands without a method: `RG.WITHCODEC` is part of requests, some are for shards and their control plane, and the
    /// others answer errors only.
    const WITHOUT: [&str; 6] =
        ["RG.WITHCODEC", "RG.CLUSTERSET", "RG.HELLO", "RG.PYEXECUTEREMOTE", "RG.PYFREEINTERPRETER", "RG.INNERATOMIC"];

    #[test]
    fn every_command_has_a_method() {
        let list = include_str!("commands.rs");
        for command in COMMANDS.iter().map(|command| command.name) {
            let documented = list.contains(&format!("/// `{command}`:")) || list.contains(&format!("/// `{command} "));
            assert_eq!(documented, !WITHOUT.contains(&command), "{command}");
        }
    }
}
