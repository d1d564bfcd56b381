#!/bin/sh
# Runs once, on an empty data directory: makes the database and the role that owns it.
# The password reaches psql from its file, never through a command line.
set -eu
psql --no-psqlrc --set=ON_ERROR_STOP=1 --username=postgres --dbname=postgres \
     --set=database="$MLFLOW_STACK_DATABASE" --set=user="$MLFLOW_STACK_USER" <<'SQL'
\set password `cat /etc/mlflow-stack/user_password`
SET password_encryption = 'scram-sha-256';
SET log_min_error_statement = panic;
SET log_min_duration_statement = -1;
CREATE ROLE :"user" LOGIN PASSWORD :'password';
CREATE DATABASE :"database" OWNER :"user";
SQL
