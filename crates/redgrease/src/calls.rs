//! What each command sends, to which shards, and what its reply means.

use std::collections::HashSet;

use redis::{ToRedisArgs, ToSingleRedisArg, Value};

use crate::call::{Call, Command, Target};
use crate::error::{Result, error_reply};
use crate::execute::{PyExecute, results, triggered};
use crate::id::{ExecutionId, RegistrationId};
use crate::options::{Locality, Pending, SessionQuery};
use crate::record::{Executed, Results};
use crate::reply::{
    Cluster, ExecutionInfo, ExportedRequirement, Plugin, PyStats, Registration, Requirement, Session, ShardExecution,
    array, plain_text, rows,
};

fn on_shard(command: Command, id: &ExecutionId) -> Command {
    command.to(Target::Shard(id.shard().to_owned())).arg(id.to_string())
}

fn texts(ids: &[RegistrationId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

fn list<T: 'static>(command: Command, row: fn(crate::reply::Fields) -> Result<T>) -> Call<Vec<T>> {
    let name = command.name();
    Call::new(command, move |value| rows(name, value, row))
}

pub(crate) fn rg_py_execute(request: PyExecute) -> Call<Executed> {
    request.call()
}

pub(crate) fn rg_get_results(id: &ExecutionId) -> Call<Results> {
    results_of("RG.GETRESULTS", id)
}

pub(crate) fn rg_get_results_blocking(id: &ExecutionId) -> Call<Results> {
    results_of("RG.GETRESULTSBLOCKING", id)
}

fn results_of(name: &'static str, id: &ExecutionId) -> Call<Results> {
    Call::new(on_shard(Command::tagged(name), id), move |value| results(name, value))
}

pub(crate) fn rg_trigger(name: &str, arguments: impl ToRedisArgs) -> Call<Results> {
    const NAME: &str = "RG.TRIGGER";
    Call::new(Command::tagged(NAME).arg(name).arg(arguments), |value| triggered(NAME, value))
}

pub(crate) fn rg_trigger_on_key(name: &str, key: impl ToSingleRedisArg, arguments: impl ToRedisArgs) -> Call<Results> {
    const NAME: &str = "RG.TRIGGERONKEY";
    let key = key.to_redis_args().concat();
    let command = Command::tagged(NAME).arg(name).arg(key.as_slice()).arg(arguments);
    Call::new(command.to(Target::Key(key)), |value| triggered(NAME, value))
}

pub(crate) fn rg_get_execution(id: &ExecutionId, locality: Option<Locality>) -> Call<Vec<ShardExecution>> {
    let command = on_shard(Command::new("RG.GETEXECUTION"), id)
        .option("SHARD", locality == Some(Locality::Shard))
        .option("CLUSTER", locality == Some(Locality::Cluster));
    list(command, ShardExecution::from_fields)
}

pub(crate) fn rg_dump_executions() -> Call<Vec<ExecutionInfo>> {
    const NAME: &str = "RG.DUMPEXECUTIONS";
    Call::new(Command::new(NAME).to(Target::AllArrays), |value| {
        let mut found = rows(NAME, value, ExecutionInfo::from_fields)?;
        // Several shards list an execution of all of them.
        let mut seen = HashSet::new();
        found.retain(|execution| seen.insert(execution.id.clone()));
        Ok(found)
    })
}

pub(crate) fn rg_abort_execution(id: &ExecutionId) -> Call<()> {
    on_shard(Command::new("RG.ABORTEXECUTION"), id).ok()
}

pub(crate) fn rg_drop_execution(id: &ExecutionId) -> Call<()> {
    on_shard(Command::new("RG.DROPEXECUTION"), id).ok()
}

pub(crate) fn rg_dump_registrations() -> Call<Vec<Registration>> {
    list(Command::new("RG.DUMPREGISTRATIONS"), Registration::from_fields)
}

pub(crate) fn rg_unregister(id: &RegistrationId, pending: Pending) -> Call<()> {
    Command::new("RG.UNREGISTER").arg(id.to_string()).option("ABORTPENDING", pending == Pending::Abort).ok()
}

pub(crate) fn rg_pause_registrations(ids: &[RegistrationId], pending: Pending) -> Call<()> {
    Command::new("RG.PAUSEREGISTRATIONS").option("ABORTPENDING", pending == Pending::Abort).arg(texts(ids)).ok()
}

pub(crate) fn rg_unpause_registrations(ids: &[RegistrationId]) -> Call<()> {
    Command::new("RG.UNPAUSEREGISTRATIONS").arg(texts(ids)).ok()
}

pub(crate) fn rg_clear_registrations_stats() -> Call<()> {
    Command::new("RG.CLEARREGISTRATIONSSTATS").ok()
}

pub(crate) fn rg_py_dump_sessions(query: &SessionQuery) -> Call<Vec<Session>> {
    let mut command = Command::new("RG.PYDUMPSESSIONS").option("VERBOSE", query.verbose).option("DEAD", query.dead);
    if let Some(ids) = &query.ids {
        command = command.arg("SESSIONS").arg(ids);
    }
    Call::new(command, Session::list)
}

pub(crate) fn rg_py_profile_stats(session: &str, order: Option<&str>) -> Call<String> {
    const NAME: &str = "RG.PYPROFILE";
    let command = Command::new(NAME).to(Target::AllByAddress).arg("STATS").arg(session).arg(order);
    Call::new(command, |value| match value {
        Value::Map(shards) => {
            let part = |(address, text): (Value, Value)| {
                Ok(format!("{}\n{}", plain_text(NAME, &address)?, plain_text(NAME, &text)?))
            };
            Ok(shards.into_iter().map(part).collect::<Result<Vec<_>>>()?.join("\n"))
        }
        value => plain_text(NAME, &value),
    })
}

pub(crate) fn rg_py_profile_reset(session: &str) -> Call<()> {
    Command::new("RG.PYPROFILE").to(Target::AllAlike).arg("RESET").arg(session).ok()
}

pub(crate) fn rg_py_dump_reqs() -> Call<Vec<Requirement>> {
    list(Command::new("RG.PYDUMPREQS"), Requirement::from_fields)
}

pub(crate) fn rg_py_export_req(name: &str) -> Call<ExportedRequirement> {
    Call::new(Command::new("RG.PYEXPORTREQ").arg(name), ExportedRequirement::from_value)
}

pub(crate) fn rg_py_import_req(pieces: &[Vec<u8>]) -> Call<()> {
    let command = pieces.iter().fold(Command::new("RG.PYIMPORTREQ"), |command, piece| command.arg(piece.as_slice()));
    command.ok()
}

pub(crate) fn rg_py_stats() -> Call<PyStats> {
    Call::new(Command::new("RG.PYSTATS").to(Target::AllByAddress), PyStats::from_value)
}

pub(crate) fn rg_dump_plugins() -> Call<Vec<Plugin>> {
    list(Command::new("RG.DUMPPLUGINS"), Plugin::from_fields)
}

pub(crate) fn rg_config_get(keys: &[&str]) -> Call<Vec<Result<String>>> {
    const NAME: &str = "RG.CONFIGGET";
    each(Command::new(NAME).arg(keys), |value| match value {
        Value::Int(number) => Ok(number.to_string()),
        Value::Nil => Ok(String::new()),
        other => plain_text(NAME, &other),
    })
}

pub(crate) fn rg_config_set(values: &[(&str, &str)]) -> Call<Vec<Result<()>>> {
    const NAME: &str = "RG.CONFIGSET";
    let command = values.iter().fold(Command::new(NAME), |command, (key, value)| command.arg(key).arg(value));
    each(command, |value| plain_text(NAME, &value).map(|_| ()))
}

/// The results of a command for each of its keys.
fn each<T: 'static>(command: Command, one: fn(Value) -> Result<T>) -> Call<Vec<Result<T>>> {
    let name = command.name();
    Call::new(command, move |value| {
        let result = |value| match value {
            Value::ServerError(error) => Err(error_reply(&error, name)),
            value => one(value),
        };
        Ok(array(name, value)?.into_iter().map(result).collect())
    })
}

pub(crate) fn rg_info_cluster() -> Call<Option<Cluster>> {
    Call::new(Command::new("RG.INFOCLUSTER"), Cluster::from_value)
}

pub(crate) fn rg_refresh_cluster() -> Call<()> {
    Command::new("RG.REFRESHCLUSTER").to(Target::AllAlike).ok()
}

pub(crate) fn rg_network_test() -> Call<()> {
    Command::new("RG.NETWORKTEST").ok()
}

pub(crate) fn rg_administer() -> Call<()> {
    Command::new("RG.ADMINISTER").ok()
}
