"""Public methods whose commands the module does not have yet document that."""

import re
from pathlib import Path

from redgrease.config import Config
from redgrease.engine import Gears

ROOT = Path(__file__).parents[2]
MISSING = {
    name.upper()
    for name in re.findall(
        r'c"(rg\.[a-z]+)"[^;]*=> missing::not_yet',
        (ROOT / "crates/redgrease-module/src/commands/table.rs").read_text(),
    )
}


def test_methods_of_commands_that_are_missing_say_so():
    assert "RG.CLUSTERSET" in MISSING
    for owner, file in [(Gears, "engine.py"), (Config, "config.py")]:
        source = (ROOT / "python/redgrease" / file).read_text()
        for method, body in re.findall(r"\n    def (\w+)\((.*?)(?=\n    def |\Z)", source, flags=re.DOTALL):
            uses = MISSING & set(re.findall(r'"(RG\.[A-Z]+)"', body))
            documented = (getattr(getattr(owner, method, None), "__doc__", None) or "") + (owner.__doc__ or "")
            assert not uses or "`NOTYET`" in documented, f"{owner.__name__}.{method} uses {uses}"
