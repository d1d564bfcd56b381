# Puts into the user's home, which is a volume, what belongs there; what is there already, edited perhaps, stays as it is. A start
# script sources this, and would end with what fails here: Jupyter starts without it, as on a full disk, rather than not at all.
# Not --no-clobber: some versions of cp, among them that of Ubuntu 24.04, take a file that is there for a failure.
mkdir --parents "$HOME/.mlflow" \
  && { [ -e "$HOME/.mlflow/credentials" ] || ln --symbolic --force /etc/mlflow-stack/credentials "$HOME/.mlflow/credentials"; } \
  && cp --recursive --update=none /etc/skel/. /opt/examples/. "$HOME" \
  || echo "The home directory could not be prepared; the examples are in /opt/examples." >&2
