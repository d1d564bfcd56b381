# Puts into the user's home, which is a volume, what belongs there; what is there already, edited perhaps, stays as it is.
# Jupyter starts without it too, as on a full disk.
(
    set -e
    cp --recursive --no-clobber /etc/skel/. /opt/examples/. "$HOME"
    [ -e "$HOME/.mlflow/credentials" ] || {
        mkdir --parents "$HOME/.mlflow"
        ln --symbolic --force /etc/mlflow-stack/credentials "$HOME/.mlflow/credentials"
    }
) || echo "The home directory could not be prepared; the examples are in /opt/examples." >&2
