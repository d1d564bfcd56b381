"""The memory that the stack's containers on this host take.

    sudo python benchmarks/memory.py

Two figures for each: the sum of its processes' proportional set sizes (a page that n processes share counts 1/n for
each), and what its cgroup is charged with, as `docker stats` prints it. Fails if the total of either is above 900 MiB.
Let the platform rest for a few minutes first.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

LIMIT_MIB = 900
MIB = {"B": 1 / (1 << 20), "KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0}


class Usage(NamedTuple):
    """What one container uses."""

    name: str
    processes: int
    pss_mib: float
    cgroup_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--project", default="mlflow-stack", help="stack_name of the deployment")
    project = parser.parse_args().project
    usages = _usages(project)
    if not usages:
        sys.exit(f"No container of {project} runs on this host: deploy it first, or name it by --project.")
    total = Usage(
        "total",
        sum(usage.processes for usage in usages),
        sum(usage.pss_mib for usage in usages),
        sum(usage.cgroup_mib for usage in usages),
    )
    print("| container | processes | PSS, MiB | cgroup, MiB |\n| --- | --- | --- | --- |")
    for usage in [*usages, total]:
        print(f"| {usage.name} | {usage.processes} | {usage.pss_mib:.0f} | {usage.cgroup_mib:.0f} |")
    print(f"The limit of either total is {LIMIT_MIB} MiB.")
    sys.exit(max(total.pss_mib, total.cgroup_mib) > LIMIT_MIB)


def _usages(project: str) -> list[Usage]:
    """What each running container of a Compose project uses, in the order of their names."""
    label = f"label=com.docker.compose.project={project}"
    listed = _docker("ps", "--no-trunc", "--filter", label, "--format", "{{.Names}} {{.ID}}")
    containers = dict(line.split() for line in sorted(listed))
    if not containers:
        return []
    stats = _docker("stats", "--no-stream", "--no-trunc", "--format", "{{.ID}} {{.MemUsage}}", *containers.values())
    cgroup_mib = {line.split()[0]: _mib(line.split()[1]) for line in stats}
    pss_mib = {name: _pss_mib(identity) for name, identity in containers.items()}
    return [
        Usage(name, len(pss_mib[name]), sum(pss_mib[name]), cgroup_mib[identity])
        for name, identity in containers.items()
    ]


def _docker(*arguments: str) -> list[str]:
    """The lines that a Docker command prints."""
    return subprocess.run(["docker", *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()  # noqa: S607


def _mib(size: str) -> float:
    """MiB of a size as Docker prints it, such as 45.61MiB."""
    number = size.rstrip("BKMGi")
    return float(number) * MIB[size.removeprefix(number)]


def _pss_mib(identity: str) -> list[float]:
    """Proportional set sizes, in MiB, of the processes in a container."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if identity in (process / "cgroup").read_text():
                rollup = (process / "smaps_rollup").read_text()
                found.append(sum(int(kib) for kib in re.findall(r"^Pss: +(\d+) kB$", rollup, re.MULTILINE)) / 1024)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        except PermissionError:
            sys.exit(f"{process}/smaps_rollup is not readable for this user: run it as root.")
    return found


if __name__ == "__main__":
    main()
