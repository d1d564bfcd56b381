"""Makes Ansible find what is the project's own, as ansible.cfg does."""

from __future__ import annotations

import sys
from pathlib import Path

import ansible.module_utils

REPO = Path(__file__).parents[1]
ansible.module_utils.__path__.append(str(REPO / "module_utils"))
sys.path.insert(0, str(REPO / "action_plugins"))
sys.path.insert(0, str(REPO / "library"))
