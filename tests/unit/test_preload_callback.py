"""Issue line B5 of the first hour: what each worker would load for itself is loaded once."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[2]
# A lookup that gives the names of the modules that the process has loaded which templates a task.
LOADED = """
import sys
from ansible.plugins.lookup import LookupBase

class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        return [" ".join(sorted(sys.modules))]
"""


def play(directory: Path, *tasks: dict[str, Any], **environment: str) -> str:
    """What Ansible says of a play of these tasks on this machine."""
    plays = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]
    (directory / "play.yml").write_text(json.dumps(plays))
    return subprocess.run(
        ["ansible-playbook", "--inventory=localhost,", str(directory / "play.yml")],  # noqa: S607
        env=os.environ | {"ANSIBLE_CONFIG": str(REPO / "ansible.cfg")} | environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_workers_have_what_was_loaded_before_them(tmp_path: Path) -> None:
    (tmp_path / "loaded.py").write_text(LOADED)
    task = {"ansible.builtin.debug": {"msg": "{{ lookup('loaded') }}"}}

    loaded = set(play(tmp_path, task, ANSIBLE_LOOKUP_PLUGINS=f"{tmp_path}:{REPO}/lookup_plugins").split())

    ours = {f"ansible.plugins.lookup.{path.stem}" for path in (REPO / "lookup_plugins").glob("*.py")}
    assert len(ours) > 5
    assert ours <= loaded
    assert {"passlib.hash", "cryptography.x509"} <= loaded  # what filters and the lookup of certificates stand on


def test_modules_are_put_together_before_a_task_sends_them(tmp_path: Path) -> None:
    kept = f"ls {tmp_path}/ansible-local-*/ansiballz_cache"
    show = [
        {"ansible.builtin.debug": {"msg": f"{{{{ lookup('pipe', '{wait}{kept}') }}}}"}} for wait in ("sleep 4; ", "")
    ]
    asked = {"mlflow_info": {"tracking_uri": "http://127.0.0.1:9"}, "ignore_errors": True}

    said = play(tmp_path, show[0], asked, show[1], ANSIBLE_LOCAL_TEMP=str(tmp_path))

    for module in ("deployment_lock", "mlflow_info", "mlflow_model"):
        first, again = re.findall(rf"\S+\.{module}-\w+-none\b(?!\.)", said)  # the task has put none together itself
        assert first == again
