"""Files that a reader sees as they were or as they shall be, never in part, whenever a run or the power ends."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

KEEP = -1  # as os.chown has it


def write(path: Path, content: str, mode: int, *, uid: int = KEEP, gid: int = KEEP) -> None:
    """Replace a file, or make it, in one step. Raises OSError.

    mode, uid, gid: permissions and owner of the new file, which is its maker's alone until then.
    """
    descriptor, draft = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode())
            os.fchown(file.fileno(), uid, gid)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
