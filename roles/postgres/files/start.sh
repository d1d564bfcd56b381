#!/bin/bash
# Makes the data directory on the first start, with the image's own means, and becomes the server. PGDATA appears whole or not at
# all: what a first start that was cut off has left behind is made again. The superuser's password, which those means read into
# their environment, ends with them.
set -euo pipefail
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    rm -rf "$PGDATA.draft"
    PGDATA="$PGDATA.draft" docker-ensure-initdb.sh "$@"
    mv --no-target-directory "$PGDATA.draft" "$PGDATA"
fi
exec "$@"
