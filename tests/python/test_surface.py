"""The names of RedGrease 0.3.30 exist, with their kinds, parameters and defaults; dead ones warn."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import warnings

import pytest
import redgrease

NONE = inspect.Parameter.empty

#: Exported names and their kinds.
EXPORTED = {
    **dict.fromkeys(("command", "execute", "hashtag", "hashtag3", "log", "configGet", "gearsConfigGet"), "function"),
    **dict.fromkeys(("read_requirements", "resolve_requirements"), "function"),
    **dict.fromkeys(("GearFunction", "OpenGearFunction", "ClosedGearFunction", "GearsBuilder", "GB"), "class"),
    **dict.fromkeys(("GearReader", "KeysReader", "KeysOnlyReader", "StreamReader", "PythonReader"), "class"),
    **dict.fromkeys(("ShardsIDReader", "CommandReader", "atomic", "gearsFuture"), "class"),
    **dict.fromkeys(("ReaderType", "TriggerMode", "KeyType", "FailurePolicy", "LogLevel"), "class"),
    **dict.fromkeys(("Gears", "Redis", "RedisCluster", "Requirement", "Version"), "class"),
    **dict.fromkeys(("RedisMods", "RedisGears", "trigger"), "callable"),
    "utils": "module",
    "cmd": "object",
    "GEARS_RUNTIME": "object",
}
#: Names of each module, `!` before those that warn.
MODULES = {
    "cli": "main",
    "client": "Gears Redis RedisCluster RedisMods RedisGears RedisGearsModule RedisModules ExecutionID RegistrationID "
    "!get_python_version !get_gears_version",
    "config": "Config",
    "data": "ExecID ExecutionStatus ExecLocality ExecutionResult parse_execute_response parse_trigger_response "
    "ExecutionInfo Registration RegData ExecutionPlan ExecutionStep ClusterInfo ShardInfo PyStats PyRequirementInfo "
    "RedisObject parse_PD",
    "exceptions": "DuplicateTriggerError",
    "formatting": "iso8601_datefmt UTC_ISO8601_Formatter log_message_format log_formatter initialize_logger",
    "func": "command trigger",
    "gearialization": "get_function_string serialize_gear_function deserialize_gear_function !seralize_gear_function "
    "!deseralize_gear_function",
    "gears": "GearFunction OpenGearFunction ClosedGearFunction Operation Reader Run Register Map FlatMap ForEach "
    "Filter Accumulate LocalGroupBy Limit "
    "Collect Repartition Aggregate AggregateBy GroupBy BatchGroupBy Sort Distinct Count "
    "CountBy Avg !Nop",
    "loader": "GearsLoader default_index_prefix default_script_pattern default_requirements_pattern "
    "default_unblocking_pattern default_ignore_patterns fail",
    "hysteresis": "ResettableTimer HysteresisHandlerIndex nop",
    "reader": "GearReader KeysReader KeysOnlyReader StreamReader PythonReader ShardsIDReader CommandReader",
    "requirements": "Version Requirement InvalidRequirement PackageOption default_redgrease safe_requirement same_name "
    "read_requirements resolve_requirements to_packages_dict from_packages_dict",
    "runtime": "GB GEARS_RUNTIME GearsBuilder atomic configGet execute gearsConfigGet gearsFuture hashtag hashtag3 log "
    "run",
    "runtime_client": "cmd get_runtime_client",
    "sugar": "ReaderType TriggerMode KeyType FailurePolicy LogLevel",
    "typing": "T InputRecord OutputRecord Key Val Constructor RedisType SafeType SupportedType RedisKey Record "
    "Registrator Extractor Mapper Expander Processor Filterer Accumulator Reducer BatchReducer",
    "utils": "as_is str_if_bytes safe_str safe_str_upper bool_ok safe_bool optional to_int_if_bool to_redis_type "
    "to_bytes to_list "
    "transform to_dict to_kwargs list_parser !list_of_str dict_of Record StreamRecord record stream_record "
    "CaseInsensitiveDict compose dict_filter passfun _REnum",
}
#: Parameters as in the original; further ones may follow. Defaults that differ are in `docs/compatibility.md`.
SIGNATURES = {
    "gears.GearFunction": {"operation": NONE, "input_function": None, "requirements": None},
    "gears.ClosedGearFunction.on": {"gears_server": NONE, "unblocking": False, "requirements": None, "replace": None},
    "gears.OpenGearFunction.run": {
        "arg": None,
        "convertToStr": False,
        "collect": True,
        "requirements": None,
        "on": None,
    },
    "gears.OpenGearFunction.register": {
        "prefix": "*",
        "convertToStr": False,
        "collect": True,
        "mode": None,
        "onRegistered": None,
        "eventTypes": None,
        "keyTypes": None,
        "readValue": None,
        "batch": None,
        "duration": None,
        "onFailedPolicy": None,
        "onFailedRetryInterval": None,
        "trimStream": None,
        "trigger": None,
        "requirements": None,
        "on": None,
    },
    "gears.OpenGearFunction.map": {"op": NONE, "requirements": None},
    "gears.OpenGearFunction.flatmap": {"op": None, "requirements": None},
    "gears.OpenGearFunction.foreach": {"op": NONE, "requirements": None},
    "gears.OpenGearFunction.filter": {"op": None, "requirements": None},
    "gears.OpenGearFunction.accumulate": {"op": None, "requirements": None},
    "gears.OpenGearFunction.localgroupby": {"extractor": None, "reducer": None, "requirements": None},
    "gears.OpenGearFunction.limit": {"length": NONE, "start": 0},
    "gears.OpenGearFunction.collect": {},
    "gears.OpenGearFunction.repartition": {"extractor": None, "requirements": None},
    "gears.OpenGearFunction.aggregate": {"zero": None, "seqOp": None, "combOp": None, "requirements": None},
    "gears.OpenGearFunction.aggregateby": {
        "extractor": None,
        "zero": None,
        "seqOp": None,
        "combOp": None,
        "requirements": None,
    },
    "gears.OpenGearFunction.groupby": {"extractor": None, "reducer": None, "requirements": None},
    "gears.OpenGearFunction.batchgroupby": {"extractor": None, "reducer": None, "requirements": None},
    "gears.OpenGearFunction.sort": {"reverse": True, "requirements": None},
    "gears.OpenGearFunction.distinct": {},
    "gears.OpenGearFunction.count": {},
    "gears.OpenGearFunction.countby": {"extractor": None, "requirements": None},
    "gears.OpenGearFunction.avg": {"extractor": None, "requirements": None},
    "gears.Reader": {"reader": "KeysReader", "defaultArg": "*", "desc": None},
    "gears.Limit": {"length": NONE, "start": 0},
    "gears.Sort": {"reverse": True},
    "gears.Run": {"arg": None, "convertToStr": True, "collect": True},
    "gears.Register": {"prefix": "*", "convertToStr": True, "collect": True, "mode": "async", "onRegistered": None},
    "reader.GearReader": {"reader": "KeysReader", "defaultArg": "*", "desc": None, "requirements": None},
    "reader.KeysReader": {"default_key_pattern": "*", "desc": None, "requirements": None},
    "reader.KeysReader.values": {"type": ..., "event": ...},
    "reader.KeysReader.keys": {"type": ..., "event": ...},
    "reader.KeysReader.records": {"type": ..., "event": ...},
    "reader.KeysOnlyReader": {"default_key_pattern": "*", "desc": None, "requirements": None},
    "reader.StreamReader": {"default_key_pattern": "*", "desc": None, "requirements": None},
    "reader.StreamReader.values": {},
    "reader.StreamReader.keys": {},
    "reader.StreamReader.records": {},
    "reader.PythonReader": {"desc": None, "requirements": None},
    "reader.ShardsIDReader": {"desc": None, "requirements": None},
    "reader.CommandReader": {"desc": None, "requirements": None},
    "reader.CommandReader.args": {"max_count": None},
    "reader.CommandReader.apply": {"fun": NONE, "requirements": None},
    "runtime.GearsBuilder": {"reader": "KeysReader", "defaultArg": "*", "desc": None},
    "runtime.execute": {"command": NONE},
    "runtime.hashtag": {},
    "runtime.hashtag3": {},
    "runtime.log": {"message": NONE, "level": "notice"},
    "runtime.configGet": {"key": NONE},
    "runtime.gearsConfigGet": {"key": NONE, "default": None},
    "runtime.run": {"function": NONE, "builder": NONE},
    "func.command": {"trigger": None, "prefix": "*", "collect": True, "mode": "async_local", "onRegistered": None},
    "engine.Gears": {"redis": NONE},
    "engine.Gears.pyexecute": {
        "gear_function": "",
        "unblocking": False,
        "requirements": None,
        "enforce_redgrease": None,
    },
    "engine.Gears.getresults": {"id": NONE},
    "engine.Gears.getresultsblocking": {"id": NONE},
    "engine.Gears.getexecution": {"id": NONE, "locality": None},
    "engine.Gears.dumpexecutions": {"status": None, "registered": None},
    "engine.Gears.dumpregistrations": dict.fromkeys(("reader", "desc", "mode", "key", "stream", "trigger")),
    "engine.Gears.abortexecution": {"id": NONE},
    "engine.Gears.dropexecution": {"id": NONE},
    "engine.Gears.unregister": {"id": NONE},
    "engine.Gears.trigger": {"trigger_name": NONE},
    "engine.Gears.infocluster": {},
    "engine.Gears.refreshcluster": {},
    "engine.Gears.pystats": {},
    "engine.Gears.pydumpreqs": {"name": None, "is_downloaded": None, "is_installed": None},
    "engine.Gears.python_version": {},
    "engine.Gears.gears_version": {},
    "data.ExecID": {"shard_id": "0" * 40, "sequence": 0},
    "data.ExecutionResult": {"value": NONE, "errors": None},
    "data.parse_execute_response": {"reply": NONE},
    "data.parse_trigger_response": {"reply": NONE},
    "loader.GearsLoader": {
        "script_pattern": None,
        "requirements_pattern": None,
        "unblocking_pattern": None,
        "ignore_patterns": None,
        "index_prefix": None,
        "server": "localhost",
        "port": 6379,
        "observe": None,
    },
    "loader.GearsLoader.add_file": {"file": NONE},
    "loader.GearsLoader.add_directory": {"directory": NONE, "recursive": False},
    "loader.GearsLoader.register_script": {"script_path": NONE},
    "loader.GearsLoader.unregister_script": {"script_path": NONE},
    "loader.GearsLoader.update_dependencies": {"requirements_path": NONE},
    "loader.GearsLoader.start": {},
    "loader.GearsLoader.stop": {},
    "utils.as_is": {"value": NONE},
    "utils.str_if_bytes": {"value": NONE},
    "utils.safe_str": {"value": NONE},
    "utils.safe_str_upper": {"value": NONE},
    "utils.bool_ok": {"value": NONE},
    "utils.safe_bool": {"value": NONE},
    "utils.optional": {"constructor": NONE},
    "utils.to_int_if_bool": {"value": NONE},
    "utils.to_redis_type": {"value": NONE},
    "utils.to_bytes": {"value": NONE},
    "utils.to_list": {
        "mapping": NONE,
        "key_transform": redgrease.utils.str_if_bytes,
        "val_transform": redgrease.utils.to_redis_type,
    },
    "utils.transform": {"value": NONE, "constructor": NONE, "key": None},
    "utils.to_dict": {"items": NONE, "keys": None, "key_transform": None, "val_transform": None},
    "utils.to_kwargs": {"items": NONE},
    "utils.list_parser": {"item_parser": NONE},
    "utils.dict_of": {"constructors": NONE},
    "utils.Record": {"key": NONE, "value": None, "type": None, "event": None},
    "utils.StreamRecord": {"key": NONE, "id": None, "value": None},
    "utils.record": {"rec": NONE},
    "utils.stream_record": {"rec": NONE},
    "utils.passfun": {"fun": None, "default": None},
    "requirements.resolve_requirements": {"requirements": NONE, "enforce_redgrease": None},
    "formatting.initialize_logger": {"level": 10, "fmt": None, "config": None},
    "hysteresis.ResettableTimer": {},
    "hysteresis.ResettableTimer.cancel": {},
    "hysteresis.ResettableTimer.trigger": {},
    "hysteresis.ResettableTimer.set": {"timeout": NONE, "handler": NONE},
    "hysteresis.HysteresisHandlerIndex": {"hysteresis_duration": 1.0},
    "hysteresis.HysteresisHandlerIndex.signal": {"handler_id": NONE, "handler": NONE},
}
#: Parameters that had no default in the original and have one here.
NEW_DEFAULTS = {"requirements.resolve_requirements": "requirements", "data.ExecutionResult": "value"}


def kind_of(value) -> str:
    if inspect.ismodule(value):
        return "module"
    if inspect.isclass(value):
        return "class"
    return "function" if inspect.isfunction(value) else "object"


@pytest.mark.parametrize("name", sorted(EXPORTED))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_exported(name):
    value = getattr(redgrease, name)
    assert name in redgrease.__all__
    assert callable(value) if EXPORTED[name] == "callable" else kind_of(value) == EXPORTED[name]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_names_of(module):
    owner = importlib.import_module(f"redgrease.{module}")
    for name in MODULES[module].split():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert hasattr(owner, name.lstrip("!")), name
        warned = [each.filename for each in caught if each.category is DeprecationWarning]
        assert warned == ([__file__] if name.startswith("!") else []), name


def test_aliases_are_the_current_objects():
    from redgrease import gearialization, utils

    with pytest.warns(DeprecationWarning, match="command"):
        assert repr(redgrease.trigger("x")(len)) == repr(redgrease.command("x")(len))
    with pytest.warns(DeprecationWarning, match="serialize_gear_function"):
        assert gearialization.seralize_gear_function is gearialization.serialize_gear_function
    with pytest.warns(DeprecationWarning, match="list_parser"):
        assert utils.list_of_str((b"a", None)) == ["a", ""]
    with pytest.warns(DeprecationWarning):
        from redgrease.gears import Nop
    assert Nop().add_to("builder") == "builder"
    for module in (gearialization, utils, redgrease.gears, redgrease.client):
        with pytest.raises(AttributeError, match="no attribute 'NoSuchName'"):
            module.NoSuchName  # noqa: B018


@pytest.mark.parametrize("path", sorted(SIGNATURES))
def test_parameters_of(path):
    module, *names = path.split(".")
    item = importlib.import_module(f"redgrease.{module}")
    for name in names:
        item = getattr(item, name)
    parameters = [each for each in inspect.signature(item).parameters.values() if each.name != "self"]
    expected = SIGNATURES[path]
    named = [each for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD][: len(expected)]
    found = {each.name: each.default for each in named if each.name != NEW_DEFAULTS.get(path)}
    assert found == {name: default for name, default in expected.items() if name != NEW_DEFAULTS.get(path)}
    assert list(expected) == [each.name for each in named]
    assert [
        each.name for each in parameters if each.default is NONE and each not in named and "VAR" not in each.kind.name
    ] == []


def test_the_package_is_imported_in_less_than_150_ms():
    code = "import time; begin = time.perf_counter(); import redgrease; print(time.perf_counter() - begin)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60).stdout)
        for _ in range(3)
    ]
    assert min(times) < 0.150
