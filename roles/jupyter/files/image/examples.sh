# Puts the examples into the user's work directory; what is there already, edited perhaps, stays as it is. A start script sources
# this, and would end with what fails here: Jupyter starts without the examples rather than not at all.
cp --recursive --no-clobber /opt/examples/. /home/jovyan/work/ || echo "Not all of /opt/examples was copied to /home/jovyan/work." >&2
