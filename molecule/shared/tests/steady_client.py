"""The unmodified MLflow client, logging without pause: what is lost, and how many calls fail for good?

    steady_client.py STOP REPORT

Logs a run with a parameter, a metric and an artifact after the other until the file STOP appears; then reads all of it
back and writes a JSON object to the file REPORT: `runs`, `failed` (calls that failed after all of the client's own
repetitions, with their messages), `lost` (what was logged and is not there, or is another) and `longest` (seconds).
Address and account are the client's own settings.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import mlflow


class SteadyClient:
    """Logs to one experiment, and keeps what it has logged."""

    def __init__(self) -> None:
        self.experiment_id = mlflow.set_experiment("steady").experiment_id
        self.logged: dict[str, list[str]] = {}
        self.failed: list[str] = []
        self.longest = 0.0

    def log(self, number: int) -> None:
        """Log one run; what was accepted must be there at the end."""
        client = mlflow.MlflowClient()
        begin = time.monotonic()
        try:
            run_id = client.create_run(self.experiment_id).info.run_id
            done = self.logged[run_id] = []
            client.log_param(run_id, "number", number)
            done.append("param")
            client.log_metric(run_id, "number", number)
            done.append("metric")
            client.log_text(run_id, f"artifact {number}", "number.txt")
            done.append("artifact")
            client.set_terminated(run_id)
        except Exception as error:  # whatever it is, it is counted
            self.failed.append(f"run {number}: {error}"[:300])
        self.longest = max(self.longest, time.monotonic() - begin)

    def lost(self) -> list[str]:
        """What was logged and cannot be read."""
        runs = mlflow.search_runs([self.experiment_id], max_results=50_000, output_format="list")
        found = {run.info.run_id: run.data for run in runs}
        lost = []
        for run_id, done in self.logged.items():
            data = found.get(run_id)
            if "param" in done and (data is None or "number" not in data.params):
                lost.append(f"{run_id} param")
            if "metric" in done and (data is None or "number" not in data.metrics):
                lost.append(f"{run_id} metric")
            if "artifact" in done and not mlflow.artifacts.load_text(f"runs:/{run_id}/number.txt").startswith(
                "artifact"
            ):
                lost.append(f"{run_id} artifact")
        return lost


def main() -> None:
    stop, report = Path(sys.argv[1]), Path(sys.argv[2])
    client = SteadyClient()
    number = 0
    while not stop.exists():
        client.log(number)
        number += 1
    summary = {
        "runs": number,
        "failed": client.failed,
        "lost": client.lost(),
        "longest": round(client.longest, 1),
    }
    report.write_text(json.dumps(summary))


if __name__ == "__main__":
    main()
