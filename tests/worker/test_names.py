"""The public names are listed once, in the core; the Python names are compared with that list."""

from redgrease import _native, gears, sugar
from redgrease.plan.builder import PlanBuilder
from redgrease.plan.options import READER_OPTIONS


def constants(kind):
    return {value for name, value in vars(kind).items() if not name.startswith("_") and isinstance(value, str)}


def test_the_builder_has_exactly_the_steps_that_the_core_knows():
    operations = {name for name in vars(PlanBuilder) if not name.startswith("_")} - {"run", "register"}
    # One has a private name of RedisGears, and `tostr` is added by convertToStr.
    assert hasattr(PlanBuilder, "__localAggregateby__")
    assert operations | {"localaggregateby", "tostr"} == set(_native.STEPS)
    assert len(_native.STEPS) == len(set(_native.STEPS))


def test_readers_and_their_actions():
    assert constants(sugar.ReaderType) == set(_native.READERS)
    assert set(_native.RUN_READERS) == gears._BATCH_READERS
    assert set(_native.REGISTER_READERS) == gears._EVENT_READERS
    assert set(READER_OPTIONS["run"][1]) == set(_native.RUN_READERS)
    assert set(READER_OPTIONS["register"][1]) == set(_native.REGISTER_READERS)


def test_constants_for_options_are_those_of_the_core():
    assert constants(sugar.TriggerMode) == set(_native.MODES)
    assert set(_native.MODES) - set(_native.RUN_MODES) == {sugar.TriggerMode.Sync}
    assert constants(sugar.FailurePolicy) == set(_native.FAILURE_POLICIES)
    assert constants(sugar.KeyType) | {"empty"} == set(_native.KEY_TYPES)


def test_every_range_is_of_a_keyword_or_of_limit():
    keywords = {
        name
        for common, of_readers in READER_OPTIONS.values()
        for names in (common, *of_readers.values())
        for name in names
    }
    assert set(_native.NUMBER_RANGES) <= keywords | {"limit argument"}
