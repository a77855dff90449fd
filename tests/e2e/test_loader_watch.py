"""`redgrease --watch`: what is loaded again, when, and what it survives."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from .loading import DELAY, Loading, command, seconds_until
from .test_loader import HELLO, registrations, trigger
from .test_requirements import project

#: Seconds that a changed script may take from the end of the delay until it is loaded.
RELOAD_MAX = 0.5


@pytest.fixture
def loading(db, tmp_path: Path) -> Loading:
    return Loading(tmp_path, db.server.port)


def test_the_line_of_the_documentation(db, loading):
    # With a port, and a server that exists: redgrease --server 10.0.2.21 --watch scripts/
    loading.write("hello.py", HELLO)
    with loading.watch("--server", "127.0.0.1", "--watch", "scripts/", delay=None) as watching:
        assert "files are loaded 5 s after their last change" in watching.log()
        assert trigger(db) == "one"
        assert watching.stop() == 0
        assert watching.lines[-1].endswith("stopped")


def test_a_delay_may_be_a_word_of_its_own(loading):
    with loading.watch("--watch", "0.25", "scripts/", delay=None) as watching:
        assert "files are loaded 0.25 s after their last change" in watching.log()
    with loading.watch("scripts/", delay=None, REDGREASE_WATCH="0.5") as watching:
        assert "files are loaded 0.5 s after their last change" in watching.log()


def test_an_edited_script_is_loaded_in_time(db, loading):
    script = loading.write("hello.py", HELLO)
    with loading.watch():
        for number in range(5):
            script.write_text(command("hello", number))
            assert seconds_until(lambda: trigger(db), str(number)) < DELAY + RELOAD_MAX


def test_edits_in_a_row_are_one_load(db, loading):
    script = loading.write("hello.py", HELLO)
    with loading.watch(delay=0.5) as watching:
        for number in range(10):
            script.write_text(command("hello", number))
        seconds_until(lambda: trigger(db), "9")
        watching.wait_for("hello.py: loaded", count=2)
        assert watching.log().count("hello.py: loaded") == 2


def test_a_broken_script_keeps_the_old_one_until_it_is_fixed(db, loading):
    script = loading.write("hello.py", HELLO)
    with loading.watch() as watching:
        script.write_text("def x(:\n")
        watching.wait_for("hello.py: not loaded: SyntaxError")
        assert trigger(db) == "one"
        script.write_text(command("hello", "two"))
        seconds_until(lambda: trigger(db), "two")
        script.write_text("raise ValueError('three')\n")
        watching.wait_for("hello.py: not loaded: ValueError: three")
        assert watching.stop() == 1


def test_a_deleted_script_is_removed(db, loading):
    script = loading.write("hello.py", HELLO)
    with loading.watch():
        script.unlink()
        seconds_until(lambda: registrations(db), 0)
        seconds_until(lambda: db.r.keys("*"), [])


def test_a_renamed_script_moves(db, loading):
    script = loading.write("hello.py", HELLO)
    with loading.watch():
        script.rename(loading.scripts / "renamed.py")
        key = loading.index_key(loading.scripts / "renamed.py").encode()
        seconds_until(lambda: db.r.keys("*"), [key])
        assert trigger(db) == "one"
        (loading.scripts / "renamed.py").rename(loading.scripts / "renamed.txt")
        seconds_until(lambda: registrations(db), 0)


def test_an_editor_that_writes_by_rename(db, loading):
    script = loading.write("hello.py", HELLO)
    with loading.watch() as watching:
        for number in range(3):
            new = loading.scripts / ".hello.py.swp"
            new.write_text(command("hello", number))
            new.replace(script)
            assert seconds_until(lambda: trigger(db), str(number)) < DELAY + RELOAD_MAX
        backup = loading.scripts / "hello.py~"
        script.rename(backup)
        script.write_text(command("hello", "backed up"))
        seconds_until(lambda: trigger(db), "backed up")
        assert "removed" not in watching.log()


def test_new_files_also_links_and_in_new_directories(db, loading):
    with loading.watch("-r", loading.scripts):
        loading.write("new.py", command("new", 1))
        seconds_until(lambda: trigger(db, "new"), "1")
        outside = loading.folder / "outside"
        outside.write_text(command("linked", 2))
        os.link(outside, loading.scripts / "linked.py")
        seconds_until(lambda: trigger(db, "linked"), "2")
        loading.write("deep/er/below.py", command("below", 3))
        seconds_until(lambda: trigger(db, "below"), "3")
        loading.write("deep/er/below.py", command("below", 4))
        seconds_until(lambda: trigger(db, "below"), "4")
        shutil.rmtree(loading.scripts / "deep")
        seconds_until(lambda: registrations(db), 2)
        loading.write("deep/er/below.py", command("below", 5))
        seconds_until(lambda: trigger(db, "below"), "5")


def test_the_directory_itself_is_removed_and_made_again(db, loading):
    loading.write("hello.py", HELLO)
    with loading.watch():
        shutil.rmtree(loading.scripts)
        seconds_until(lambda: registrations(db), 0)
        loading.write("hello.py", command("hello", "again"))
        seconds_until(lambda: trigger(db), "again")


def test_links_that_are_switched_as_in_a_mounted_configuration(db, loading):
    for version in ("1", "2"):
        loading.write(f"..{version}/hello.py", command("hello", version))
    (loading.scripts / "..data").symlink_to("..1")
    (loading.scripts / "hello.py").symlink_to("..data/hello.py")
    with loading.watch():
        assert trigger(db) == "1"
        (loading.scripts / "..new").symlink_to("..2")
        (loading.scripts / "..new").rename(loading.scripts / "..data")
        seconds_until(lambda: trigger(db), "2")


def test_a_single_file_and_the_directory_it_is_in(db, loading):
    script = loading.write("hello.py", HELLO)
    loading.write("other.py", command("other", 1))
    with loading.watch(script):
        loading.write("other.py", command("other", 2))
        new = loading.scripts / "tmp"
        new.write_text(command("hello", "two"))
        new.replace(script)
        seconds_until(lambda: trigger(db), "two")
        assert trigger(db, "other") is None


def test_spellings_of_a_path_are_one_script(db, loading):
    loading.write("hello.py", HELLO)
    with loading.watch("scripts/.", "./scripts/hello.py", loading.scripts) as watching:
        loading.write("hello.py", command("hello", "two"))
        seconds_until(lambda: trigger(db), "two")
        assert watching.log().count("hello.py: loaded") == 2
    assert db.r.keys("*") == [loading.index_key(loading.scripts / "hello.py").encode()]


def test_ignored_files_are_not_watched(db, loading):
    with loading.watch() as watching:
        loading.write("_hello.py", command("ignored", 1))
        loading.write("hello.py", HELLO)
        seconds_until(lambda: trigger(db), "one")
        assert "_hello.py" not in watching.log()


def test_scripts_get_changed_requirements(db, loading):
    loading.write(
        "hello.py", "import ours\nGB('CommandReader').map(lambda _: ours.VERSION).register(trigger='hello')\n"
    )
    source = project(loading.folder / "source", "ours")
    with loading.watch() as watching:
        watching.wait_for("ModuleNotFoundError")
        loading.write("requirements.txt", f"ours @ file://{source}\n")
        seconds_until(lambda: trigger(db), "of the project", deadline=60)


def test_a_thousand_files_are_watched(db, loading):
    for number in range(1000):
        loading.write(f"{number}.py", command(f"c{number}", number))
    with loading.watch():
        loading.write("500.py", command("c500", "new"))
        assert seconds_until(lambda: trigger(db, "c500"), "new") < DELAY + RELOAD_MAX
        for number in range(0, 1000, 10):
            loading.write(f"{number}.py", command(f"c{number}", "changed"))
        seconds_until(lambda: [trigger(db, f"c{number}") for number in range(0, 1000, 10)], ["changed"] * 100)
        assert trigger(db, "c1") == "1"


# -- the server


def test_a_server_that_starts_again_gets_what_is_missing(fresh_server, tmp_path):
    db = fresh_server()
    loading = Loading(tmp_path, db.server.port)
    loading.write("hello.py", HELLO)
    loading.write("ran.py", "GB('ShardsIDReader').run()\n")
    with loading.watch() as watching:
        db.server.restart()
        watching.wait_for("connected to localhost")
        seconds_until(lambda: trigger(db), "one")
        assert watching.log().count("ran.py: loaded") == 1
        loading.write("hello.py", command("hello", "two"))
        seconds_until(lambda: trigger(db), "two")


def test_what_changes_while_the_server_is_away_is_loaded_when_it_is_back(fresh_server, tmp_path):
    db = fresh_server()
    loading = Loading(tmp_path, db.server.port)
    loading.write("hello.py", HELLO)
    loading.write("gone.py", command("gone", 1))
    with loading.watch() as watching:
        db.server.kill()
        watching.wait_for("connecting again until it works")
        loading.write("hello.py", command("hello", "two"))
        (loading.scripts / "gone.py").unlink()
        db.server.start_again()
        seconds_until(lambda: trigger(db), "two")
        assert trigger(db, "gone") is None
        assert watching.stop() == 0


def test_what_a_server_has_kept_is_not_loaded_again(fresh_server, tmp_path):
    db = fresh_server(conf={"appendonly": "yes"})
    loading = Loading(tmp_path, db.server.port)
    loading.write("hello.py", HELLO)
    with loading.watch() as watching:
        db.server.restart()
        watching.wait_for("connected to localhost")
        loading.write("next.py", command("next", 1))
        seconds_until(lambda: trigger(db, "next"), "1")
        assert watching.log().count("hello.py: loaded") == 1
        assert trigger(db) == "one"


# -- the end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_and_what_is_loaded_stays(db, loading, number):
    loading.write("hello.py", HELLO)
    with loading.watch() as watching:
        assert watching.stop(number) == 0
    assert trigger(db) == "one"


def test_a_script_that_takes_long_does_not_keep_it_from_ending(db, loading):
    with loading.watch() as watching:
        loading.write("slow.py", "import time\nexecute('SET', 'begun', 1)\ntime.sleep(8)\n")
        seconds_until(lambda: db.r.get("begun"), b"1")
        assert seconds_until(lambda: watching.stop() in (0, 1), True) < 5
        assert "Interrupted" not in watching.log()
