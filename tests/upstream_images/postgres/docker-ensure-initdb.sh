#!/usr/bin/env bash
# Makes the database where there is none, by the functions of the script that also starts the server, and ends.
set -Eeuo pipefail
source /usr/local/bin/docker-entrypoint.sh
[ "${1:-}" = postgres ] || set -- postgres "$@"
prepare
if [ -s "$PGDATA/PG_VERSION" ]; then
    echo "There is a database in $PGDATA already." >&2
else
    initialize "$@"
fi
