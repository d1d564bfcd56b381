#!/bin/bash
# Makes the data directory PGDATA, unless it is there, and runs /docker-entrypoint-initdb.d/*.sh against a server that only its
# socket reaches. Environment: PGDATA, POSTGRES_PASSWORD_FILE, POSTGRES_INITDB_ARGS.
set -euo pipefail

[ ! -s "$PGDATA/PG_VERSION" ] || exit 0
if [ ! -s "${POSTGRES_PASSWORD_FILE:-}" ]; then
    echo "POSTGRES_PASSWORD_FILE must name a file that holds the superuser's password." >&2
    exit 1
fi
# A word for each option, as in the original.
# shellcheck disable=SC2086
initdb --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" --auth-local=trust ${POSTGRES_INITDB_ARGS:-}
echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
pg_ctl --wait --options="-c listen_addresses=''" start
for script in /docker-entrypoint-initdb.d/*.sh; do
    echo "Running $script"
    "$script"
done
pg_ctl --wait --mode=fast stop
