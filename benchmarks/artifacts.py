"""Artifact stores side by side, through a real MLflow server each: a local disk, MLflow's own FTP store, mlflow_ftps.

    python benchmarks/artifacts.py --servers pyftpdlib vsftpd proftpd --rounds 5

Needs mlflow, mlflow_ftps with its extra "test", and the FTP servers named, in PATH. Prints a table in Markdown: medians
in seconds and, in parentheses, the ratio to the local disk. Fails where mlflow_ftps, whose app serves its downloads,
breaks a limit. The stores take turns in each round, so that a busy moment of the machine meets all of them. Two rows
show what is possible: "raw" is ftplib on one connection, without MLflow; "no local paths" is the local disk, but served
in the way that MLflow serves every store that is not a local disk.
"""

import argparse
import contextlib
import ftplib
import functools
import io
import os
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "mlflow_ftps" / "tests"))

import certificates
from ftp_servers import PASSWORD, SERVERS, USER, FtpServer, free_port
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

LOCAL = "local disk"
# Schemes that exist in the servers of this benchmark only; mlflow_ftps takes "ftp" from MLflow's own store.
STOCK, COPYING = "stock-ftp", "copying"
ENTRY_POINTS = f"""\
[mlflow.artifact_repository]
{STOCK} = mlflow.store.artifact.ftp_artifact_repo:FTPArtifactRepository
{COPYING} = {Path(__file__).stem}:CopyingRepository
"""

Seconds = dict[str, float]


class CopyingRepository(LocalArtifactRepository):
    """A local disk that does not show MLflow where its files are: about the least that any other store can cost."""

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        super().__init__(artifact_uri.removeprefix(f"{COPYING}://"), tracking_uri, registry_uri)

    def get_local_path(self, _artifact_path: str) -> None:  # type: ignore[override]
        return None


@dataclass(frozen=True)
class Work:
    """The files of one kind of work, in a directory."""

    name: str
    directory: Path
    count: int


def main() -> None:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server outlives us
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-", dir=arguments.directory) as name,
        contextlib.ExitStack() as stack,
    ):
        base = Path(name)
        works = [
            _work(base, f"1 x {arguments.mib} MiB", 1, arguments.mib << 20),
            _work(base, f"{arguments.files} x 20 KiB", arguments.files, 20 << 10),
        ]
        measure = _stores(base, arguments, stack)
        times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for round_ in range(arguments.rounds + 1):
            for store, run in measure.items():
                for work in works:
                    for direction, seconds in run(work, base / "back").items():
                        if round_:  # the first one warms up
                            times[f"{work.name} {direction}"][store].append(seconds)
            print(f"round {round_} of {arguments.rounds} done", file=sys.stderr)
    print(_table(times))
    sys.exit("\n".join(_broken_limits(times)) or None)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--servers", nargs="+", choices=list(SERVERS), default=["pyftpdlib"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="workers of each MLflow server")
    parser.add_argument("--mib", type=int, default=512, help="size of the large file")
    parser.add_argument("--files", type=int, default=500, help="number of small files")
    parser.add_argument(
        "--stock",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure MLflow's own FTP store, which takes a minute a round on servers with a slow login",
    )
    parser.add_argument("--directory", type=Path, help="where to keep all files; the default is the system's")
    return parser.parse_args()


def _work(base: Path, name: str, count: int, size: int) -> Work:
    directory = base / "work" / name
    directory.mkdir(parents=True)
    for index in range(count):
        (directory / f"file{index:04}").write_bytes(secrets.token_bytes(size))
    return Work(name, directory, count)


def _stores(
    base: Path, arguments: argparse.Namespace, stack: contextlib.ExitStack
) -> dict[str, Callable[[Work, Path], Seconds]]:
    """Everything that is measured, by name."""
    certificate = certificates.issue(base / "certificate")
    netrc = base / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    environment = {"MLFLOW_FTPS_NETRC": str(netrc), "MLFLOW_FTPS_CA_FILE": str(certificate.authority)}

    def through_mlflow(destination: str, directory: Path, *options: str) -> Callable[[Work, Path], Seconds]:
        options = ("--workers", str(arguments.workers), *options)
        url = stack.enter_context(_mlflow_server(base, destination, environment, *options))
        repository = HttpArtifactRepository(f"{url}/api/2.0/mlflow-artifacts/artifacts/run")
        return functools.partial(_measure, repository, directory)

    stores = {
        LOCAL: through_mlflow(str(base / "local"), base / "local"),
        f"{LOCAL}, no local paths": through_mlflow(f"{COPYING}://{base / 'copying'}", base / "copying"),
    }
    for name in arguments.servers:
        plain, tls = (
            SERVERS[name](base / f"{name}-{kind}", use) for kind, use in (("plain", None), ("tls", certificate))
        )
        for server in (plain, tls):
            stack.callback(server.kill)
            server.start()
        if arguments.stock:
            uri = f"{STOCK}://{USER}:{PASSWORD}@127.0.0.1:{plain.port}{plain.path}"
            stores[f"{name}, stock"] = through_mlflow(uri, plain.directory)
        for kind, server in {"plain": plain, "TLS": tls}.items():
            app = ("--app-name", "mlflow-ftps")
            stores[f"{name}, mlflow_ftps {kind}"] = through_mlflow(server.uri, server.directory, *app)
        stores[f"{name}, raw"] = functools.partial(_measure_raw, plain)
    return stores


@contextlib.contextmanager
def _mlflow_server(base: Path, destination: str, environment: dict[str, str], *options: str) -> Iterator[str]:
    """An MLflow server that stores its artifacts at ``destination``; yields its URL."""
    home = Path(tempfile.mkdtemp(prefix="mlflow-", dir=base))
    plugin = home / "benchmark-1.dist-info"
    plugin.mkdir()
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: benchmark\nVersion: 1\n")
    (plugin / "entry_points.txt").write_text(ENTRY_POINTS)
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}", "--artifacts-destination", destination, *options),
    ]
    variables = {
        **os.environ,
        **environment,
        "PYTHONPATH": os.pathsep.join([str(home), str(Path(__file__).parent)]),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        _await_health(url, process, home / "log")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _await_health(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):  # noqa: S310 -- our own server
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"The MLflow server did not start:\n{log.read_text()}") from None
            time.sleep(0.2)


def _measure(repository: HttpArtifactRepository, directory: Path, work: Work, back: Path) -> Seconds:
    """Upload and download ``work``, then empty the store, which keeps its files under ``directory``."""
    back.mkdir()
    up = _timed(lambda: repository.log_artifacts(str(work.directory), work.name))
    down = _timed(lambda: repository.download_artifacts(work.name, str(back)))
    _check(work, back / work.name)
    shutil.rmtree(directory / "run")  # by hand: the stock store cannot delete
    shutil.rmtree(back)
    return {"up": up, "down": down}


def _measure_raw(server: FtpServer, work: Work, back: Path) -> Seconds:
    back.mkdir()
    directory = f"{server.path}/raw"
    files = sorted(work.directory.iterdir())
    with ftplib.FTP() as ftp:  # noqa: S321 -- the measure of what is possible
        ftp.connect("127.0.0.1", server.port)
        ftp.login(USER, PASSWORD)
        ftp.mkd(directory)

        def upload() -> None:
            for file in files:
                with file.open("rb") as source:
                    ftp.storbinary(f"STOR {directory}/{file.name}", source, 1 << 20)

        def download() -> None:
            for file in files:
                with (back / file.name).open("wb") as target:
                    ftp.retrbinary(f"RETR {directory}/{file.name}", target.write, 1 << 20)

        seconds = {"up": _timed(upload), "down": _timed(download)}
        for file in files:
            ftp.delete(f"{directory}/{file.name}")
        ftp.rmd(directory)
    _check(work, back)
    shutil.rmtree(back)
    return seconds


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _check(work: Work, back: Path) -> None:
    arrived = {path.name: path.stat().st_size for path in back.iterdir()}
    if arrived != {path.name: path.stat().st_size for path in work.directory.iterdir()}:
        raise RuntimeError(f"{work.name}: what came back differs from what was sent")


def _ratio(times: dict[str, list[float]], store: str) -> float:
    return statistics.median(times[store]) / statistics.median(times[LOCAL])


def _broken_limits(times: dict[str, dict[str, list[float]]]) -> Iterator[str]:
    for column, stores in times.items():
        for store in stores:
            limit = 1.2 if column.startswith("1 x") else 2.0 if store.endswith("TLS") else 1.3
            if "mlflow_ftps" in store and _ratio(stores, store) > limit:
                yield f"{store}: {column} took {_ratio(stores, store):.2f} times the local disk; limit {limit}"


def _table(times: dict[str, dict[str, list[float]]]) -> str:
    out = io.StringIO()
    columns = list(times)
    print("| store |", *(f"{column} |" for column in columns), file=out)
    print("| --- |", *("--- |" for _ in columns), file=out)
    for store in times[columns[0]]:
        cells = []
        for column in columns:
            median = statistics.median(times[column][store])
            cells.append(f"{median:.2f} ({_ratio(times[column], store):.2f}) |")
        print(f"| {store} |", *cells, file=out)
    return out.getvalue()


if __name__ == "__main__":
    main()
