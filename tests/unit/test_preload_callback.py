"""Issue line B5 of the first hour: what each worker would load for itself is loaded once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[2]
# Prints the modules of plugins that a process has loaded once a run begins.
PROGRAM = """
import sys
from ansible.plugins.loader import callback_loader, init_plugin_loader
init_plugin_loader()
callback_loader.get("preload").v2_playbook_on_start(None)
print(*sorted(sys.modules))
"""


def test_plugins_are_there_before_the_first_worker() -> None:
    environment = os.environ | {"ANSIBLE_CONFIG": str(REPO / "ansible.cfg")}
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True, capture_output=True, text=True)

    loaded = set(run.stdout.split())

    ours = {f"ansible.plugins.lookup.{path.stem}" for path in (REPO / "lookup_plugins").glob("*.py")}
    assert ours
    dear = {"passlib.hash", "cryptography.x509"}  # what the filters and the lookup of certificates stand on
    assert ours | dear <= loaded
