#!/bin/sh
# Installs what requirements.in beside this says, in the versions of constraints.txt, for the Python that is given.
set -eu
cd "$(dirname "$0")"
python=$1

# What is pickled with one minor version of Python can crash another, and models are pickled in one image and served in another.
wanted=$(sed -n 's/.*--python-version=\([0-9.]*\).*/\1/p' constraints.txt)
found=$("$python" -c 'import sys; print("{}.{}".format(*sys.version_info))')
[ "$found" = "$wanted" ] || {
    echo "This image stands on one with Python $found, and all images of the platform need $wanted, as models are trained in one" \
         "and served in another: choose another jupyter_image, or image_base_upstream." >&2
    exit 1
}

"$python" -m pip install --no-cache-dir --no-compile --constraint constraints.txt --requirement requirements.in
# pip would compile with one core, and the packages' own tests too, which nobody imports. As with pip, what does not compile is left.
"$python" -m compileall -qq -j 0 -x '/tests?/' "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" || true
