"""Issue line B5 of the first hour: what each worker would load for itself is loaded once."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

REPO = Path(__file__).parents[2]
# A lookup that gives the names of the modules that the process has loaded which templates a task.
LOADED = """
import sys
from ansible.plugins.lookup import LookupBase

class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        return [" ".join(sorted(sys.modules))]
"""


def test_workers_have_what_was_loaded_before_them(tmp_path: Path) -> None:
    (tmp_path / "loaded.py").write_text(LOADED)
    task = {"ansible.builtin.debug": {"msg": "{{ lookup('loaded') }}"}}
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    lookups = f"{tmp_path}:{REPO}/lookup_plugins"
    run = subprocess.run(
        ["ansible-playbook", "--inventory=localhost,", str(tmp_path / "play.yml")],  # noqa: S607
        env=os.environ | {"ANSIBLE_CONFIG": str(REPO / "ansible.cfg"), "ANSIBLE_LOOKUP_PLUGINS": lookups},
        check=True,
        capture_output=True,
        text=True,
    )

    loaded = set(run.stdout.split())

    ours = {f"ansible.plugins.lookup.{path.stem}" for path in (REPO / "lookup_plugins").glob("*.py")}
    assert len(ours) > 5
    assert ours <= loaded
    assert {"passlib.hash", "cryptography.x509"} <= loaded  # what filters and the lookup of certificates stand on
