# Puts the examples into the user's work directory; what is there already, edited perhaps, stays as it is.
cp --recursive --no-clobber /opt/examples/. /home/jovyan/work/
