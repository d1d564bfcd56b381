#!/opt/jupyter/bin/python3
"""Become JupyterLab, with the options of the command line and of NOTEBOOK_ARGS."""

import os
import shlex
import sys

command = ["jupyter", "lab", *shlex.split(os.environ.get("NOTEBOOK_ARGS", "")), *sys.argv[1:]]
os.execvp(command[0], command)  # noqa: S606 (its own arguments)
