#!/usr/bin/env python
"""Become JupyterLab, with the options of NOTEBOOK_ARGS and of the command line."""

import os
import shlex
import sys

command = ["jupyter", "lab", *shlex.split(os.environ.get("NOTEBOOK_ARGS", "")), *sys.argv[1:]]
os.execvp(command[0], command)  # noqa: S606 (its own arguments)
