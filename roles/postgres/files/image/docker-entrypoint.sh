#!/bin/bash
# Makes the data directory on the first start, runs /docker-entrypoint-initdb.d/*.sh against a server that only its socket
# reaches, and becomes the server. Environment: PGDATA, POSTGRES_PASSWORD_FILE, POSTGRES_INITDB_ARGS.
set -euo pipefail

# PGDATA appears whole or not at all: what a first start that was cut off has left behind is made again.
initialize() {
    if [ ! -s "${POSTGRES_PASSWORD_FILE:-}" ]; then
        echo "POSTGRES_PASSWORD_FILE must name a file that holds the superuser's password." >&2
        exit 1
    fi
    local draft="$PGDATA.draft" script
    rm -rf "$draft"
    # A word for each option, as in the original.
    # shellcheck disable=SC2086
    initdb --pgdata="$draft" --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" --auth-local=trust ${POSTGRES_INITDB_ARGS:-}
    echo "host all all all scram-sha-256" >> "$draft/pg_hba.conf"
    pg_ctl --pgdata="$draft" --wait --options="-c listen_addresses=''" start
    for script in /docker-entrypoint-initdb.d/*.sh; do
        echo "Running $script"
        "$script"
    done
    pg_ctl --pgdata="$draft" --wait --mode=fast stop
    mv "$draft" "$PGDATA"
}

if [ "$1" = postgres ]; then
    [ -s "$PGDATA/PG_VERSION" ] || initialize
    set -- "$@" --listen_addresses='*'
fi
exec "$@"
