#!/bin/bash
# Runs the hooks, then the command.
set -e
source /usr/local/bin/run-hooks.sh /usr/local/bin/start-notebook.d
source /usr/local/bin/run-hooks.sh /usr/local/bin/before-notebook.d
echo "Executing the command: $*" >&2
exec "$@"
