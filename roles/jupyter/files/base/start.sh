#!/bin/bash
# Runs the hooks, then the command.
set -e
for hook in /usr/local/bin/before-notebook.d/*.sh; do
    # shellcheck source=/dev/null
    [ ! -e "$hook" ] || source "$hook"
done
exec "$@"
