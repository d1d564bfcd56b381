#!/usr/bin/env bash
# Makes the database where there is none, and becomes the server, which inherits what this has exported.
set -Eeo pipefail

# Export NAME with its value, that of the file which NAME_FILE names, or a default.
export_setting() { # NAME [DEFAULT]
    local file="$1_FILE"
    if [ -n "${!1:-}" ] && [ -n "${!file:-}" ]; then
        echo "$1 and $file are both set, and one is expected." >&2
        exit 1
    fi
    if [ -n "${!file:-}" ]; then
        export "$1"="$(cat "${!file}")"
    else
        export "$1"="${!1:-${2:-}}"
    fi
    unset "$file"
}

prepare() {
    export_setting POSTGRES_PASSWORD
    export_setting POSTGRES_USER postgres
    export_setting POSTGRES_DB "$POSTGRES_USER"
    export_setting POSTGRES_INITDB_ARGS
    mkdir -p "$PGDATA" /var/run/postgresql
    chmod 0700 "$PGDATA" || true
}

sql() { # DATABASE OPTION…
    psql --no-psqlrc --no-password --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$@"
}

initialize() { # postgres OPTION…
    local file
    shift
    if [ -z "$POSTGRES_PASSWORD" ]; then
        echo "POSTGRES_PASSWORD is not set." >&2
        exit 1
    fi
    eval "initdb --username=\"\$POSTGRES_USER\" --pwfile=<(printf '%s\n' \"\$POSTGRES_PASSWORD\") $POSTGRES_INITDB_ARGS"
    printf '\nhost all all all %s\n' "$(postgres -C password_encryption "$@")" >> "$PGDATA/pg_hba.conf"
    export PGPASSWORD="$POSTGRES_PASSWORD"
    pg_ctl -D "$PGDATA" -w -o "$(printf '%q ' "$@" -c listen_addresses=)" start
    if [ "$POSTGRES_DB" != postgres ]; then
        sql postgres --set=name="$POSTGRES_DB" <<< 'CREATE DATABASE :"name"'
    fi
    for file in /docker-entrypoint-initdb.d/*; do
        case "$file" in
            *.sh) if [ -x "$file" ]; then "$file"; else source "$file"; fi ;;
            *.sql) sql "$POSTGRES_DB" --file="$file" ;;
        esac
    done
    pg_ctl -D "$PGDATA" -m fast -w stop
    unset PGPASSWORD
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    if [ "$1" = postgres ]; then
        prepare
        [ -s "$PGDATA/PG_VERSION" ] || initialize "$@"
    fi
    exec "$@"
fi
