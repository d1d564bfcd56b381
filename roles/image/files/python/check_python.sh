#!/bin/sh
# Stops the build of an image whose Python is not the one that the constraints beside this are made for: what is pickled with one
# minor version of Python can crash another, and models are pickled in one image and served in another.
set -eu
wanted=$(sed -n 's/.*--python-version=\([0-9.]*\).*/\1/p' "$(dirname "$0")/constraints.txt")
found=$("${1:-python3}" -c 'import sys; print("{}.{}".format(*sys.version_info))')
[ "$found" = "$wanted" ] || {
    echo "This image stands on one with Python $found, and all images of the platform need $wanted, as models are trained in one" \
         "and served in another: choose another jupyter_image, or image_base_upstream." >&2
    exit 1
}
