# Puts the examples into the user's work directory; what is there already, edited perhaps, stays as it is. A start script sources
# this, and would end with what fails here: Jupyter starts without the examples rather than not at all.
# Not --no-clobber: some versions of cp, among them that of Ubuntu 24.04, take a file that is there for a failure.
cp --recursive --update=none /opt/examples/. /home/jovyan/work/ || echo "The examples could not be copied to /home/jovyan/work." >&2
