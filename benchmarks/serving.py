"""The example's model, served to several clients by the image's server, and by `mlflow models serve` as it is shipped.

    python benchmarks/serving.py --rounds 7

Needs what the image of the role mlflow holds (requirements.in there). Prints a table in Markdown: medians of the
rounds, in each of which the servers take turns, so that a busy moment of the machine meets all of them. Fails where the
image's server gives less than 1.7 times the answers of `mlflow models serve`, which has one worker, or takes more than
1.3 times its memory. Clients and server share the machine, which must have two cores at least.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from pathlib import Path

import mlflow
from clients import AS_SHIPPED, REPO, Call, running
from mlflow.models import infer_signature

sys.path.insert(0, str(REPO / "roles/example/files/wine-quality"))

import train

CLIENTS = 8
SECONDS = 4.0
LEAST_RATE, MOST_MEMORY = 1.7, 1.3
SHIPPED, OURS = "mlflow models serve", "the image's server"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name, contextlib.ExitStack() as stack:
        home = Path(name)
        call = _model(home / "model")
        serve = [
            sys.executable,
            "-m",
            "mlflow",
            "models",
            "serve",
            "--env-manager=local",
            "--model-uri",
            str(home / "model"),
        ]
        image = [sys.executable, "-c", "import mlflow_stack_serving; mlflow_stack_serving.main()"]
        commands = {
            SHIPPED: (serve, AS_SHIPPED),
            f"{SHIPPED} --workers=2": ([*serve, "--workers=2"], AS_SHIPPED),
            f"{OURS}, one worker": ([*image, "--workers=1"], {}),
            OURS: ([*image, "--workers=4"], {}),
        }
        model = {"__pyfunc_model_path__": str(home / "model")}
        servers = {
            label: stack.enter_context(running(command, "/ping", home, model | variables, {}))
            for label, (command, variables) in commands.items()
        }
        rates: dict[str, list[float]] = {label: [] for label in servers}
        alone: dict[str, list[float]] = {label: [] for label in servers}
        for round_ in range(rounds):
            for label, server in servers.items():
                rates[label].append(server.rate(call, CLIENTS, SECONDS))
                alone[label].append(server.latency(call, 100))
            print(f"round {round_ + 1} of {rounds} done", file=sys.stderr)
        memory = {label: server.memory() for label, server in servers.items()}
    rate = {label: statistics.median(values) for label, values in rates.items()}
    print(f"| server | {CLIENTS} clients, answers/s | ratio | one client, ms | memory (PSS), MiB | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    for label in servers:
        print(
            f"| {label} | {rate[label]:.0f} | {rate[label] / rate[SHIPPED]:.2f} "
            f"| {1000 * statistics.median(alone[label]):.1f} "
            f"| {memory[label]:.0f} | {memory[label] / memory[SHIPPED]:.2f} |"
        )
    broken = []
    if rate[OURS] < LEAST_RATE * rate[SHIPPED]:
        broken.append(f"The image's server must give {LEAST_RATE} times the answers of {SHIPPED}.")
    if memory[OURS] > MOST_MEMORY * memory[SHIPPED]:
        broken.append(f"The image's server must not take more than {MOST_MEMORY} times the memory of {SHIPPED}.")
    sys.exit("\n".join(broken) or None)


def _model(path: Path) -> Call:
    """Train the example's model, save it at `path`, and return a question of one row for it."""
    data = train.load()
    model = train.fit(train.Parameters(), data)
    signature = infer_signature(data.x_test, model.predict(data.x_test))
    mlflow.sklearn.save_model(model, path, signature=signature, skops_trusted_types=["sklearn.tree._tree.Tree"])
    row = data.x_test.head(1)
    question = {"dataframe_split": {"columns": list(row.columns), "data": row.to_numpy().tolist()}}
    return Call("POST", "/invocations", json.dumps(question).encode())


if __name__ == "__main__":
    main()
