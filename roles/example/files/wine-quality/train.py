"""Predict a wine's flavanoids, a mark of its quality, from the twelve other measurements of scikit-learn's wine data.

Runs as a script, as the MLflow Project beside it, and from the notebook beside it. The last line on standard output
is one JSON object, a `Result`. The model is logged; registering it is left to the caller.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, TypedDict

import mlflow
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Metric
from mlflow.models import infer_signature
from numpy.typing import NDArray
from sklearn.datasets import load_wine
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.metrics import r2_score, root_mean_squared_error
from sklearn.model_selection import train_test_split

NAME = "wine-quality"
TARGET = "flavanoids"
SMOKE_TEST_ROWS = 5


@dataclass(frozen=True)
class Parameters:
    """What the model is trained with; scikit-learn refuses values that make no sense."""

    n_estimators: int = 200
    learning_rate: float = 0.05
    max_depth: int = 3
    subsample: float = 0.8
    seed: int = 0


class Split(NamedTuple):
    """178 wines: 133 to learn from, 45 to test on; 12 features each, and the flavanoids as in the data set."""

    x_train: pd.DataFrame
    x_test: pd.DataFrame
    y_train: pd.Series[float]
    y_test: pd.Series[float]


class SmokeTest(TypedDict):
    """Rows to send to the served model, one record each, and the prediction that every row had in training."""

    inputs: list[dict[str, float]]
    expected: list[float]


class Result(TypedDict):
    """What a training run leaves behind; the metrics are those of the whole model."""

    run_id: str
    model_uri: str
    name: str
    metrics: dict[str, float]
    smoke_test: SmokeTest


def load(seed: int = 0) -> Split:
    """Return the wines, shuffled by `seed` and split; nothing is downloaded."""
    wines = load_wine(as_frame=True).data
    return Split(*train_test_split(wines.drop(columns=TARGET), wines[TARGET], random_state=seed))


def fit(parameters: Parameters, data: Split) -> GradientBoostingRegressor:
    """Return the model, trained on the first part of the data."""
    model = GradientBoostingRegressor(
        n_estimators=parameters.n_estimators,
        learning_rate=parameters.learning_rate,
        max_depth=parameters.max_depth,
        subsample=parameters.subsample,
        random_state=parameters.seed,
    )
    return model.fit(data.x_train, data.y_train)


def learning_curve(model: GradientBoostingRegressor, data: Split) -> list[dict[str, float]]:
    """Return the metrics of the model as it was after each of its trees."""
    stages = zip(model.staged_predict(data.x_train), model.staged_predict(data.x_test), strict=True)
    return [
        {
            "train_rmse": root_mean_squared_error(data.y_train, on_train),
            "test_rmse": root_mean_squared_error(data.y_test, on_test),
            "test_r2": r2_score(data.y_test, on_test),
        }
        for on_train, on_test in stages
    ]


def plot(curve: list[dict[str, float]], actual: pd.Series[float], predicted: NDArray[np.float64]) -> Figure:
    """Return one figure: the error after each tree, and the predictions against the truth."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    errors, wines = figure.subplots(1, 2)
    for key in ("train_rmse", "test_rmse"):
        errors.plot(range(1, len(curve) + 1), [metrics[key] for metrics in curve], label=key)
    errors.set(title="Error after each tree", xlabel="trees", ylabel="RMSE")
    errors.legend()
    wines.scatter(actual, predicted)
    wines.axline((0, 0), slope=1, color="grey", linestyle="--")
    wines.set(title="Wines that it has not seen", xlabel=f"{TARGET}, measured", ylabel=f"{TARGET}, predicted")
    return figure


def smoke_test(model: GradientBoostingRegressor, rows: pd.DataFrame) -> SmokeTest:
    """Return the rows with their predictions, ready for JSON."""
    inputs = [dict(zip(rows.columns, row, strict=True)) for row in rows.to_numpy().tolist()]
    return SmokeTest(inputs=inputs, expected=model.predict(rows).tolist())


def log_curve(run_id: str, curve: list[dict[str, float]]) -> None:
    """Log every metric of every step: a thousand in a request, where log_metric takes a request each."""
    now = int(time.time() * 1000)
    steps = enumerate(curve, start=1)
    metrics = [Metric(key, value, now, step) for step, values in steps for key, value in values.items()]
    mlflow.MlflowClient().log_batch(run_id, metrics=metrics)


def train(parameters: Parameters, tags: dict[str, str] | None = None) -> Result:
    """Train and log one run: parameters, metrics a step, figure, code, data set, model and smoke test.

    The run is the one that `mlflow run` has opened, or a new one in the active experiment.
    """
    source = Path(__file__)
    with mlflow.start_run(tags=tags) as run:
        mlflow.set_tag("code.sha256", hashlib.sha256(source.read_bytes()).hexdigest())
        mlflow.log_artifact(str(source), "code")
        # `mlflow run` has logged its parameters as they were typed: 0.10 there and 0.1 here would be a conflict.
        mlflow.log_params({key: value for key, value in asdict(parameters).items() if key not in run.data.params})

        data = load(parameters.seed)
        mlflow.log_input(from_pandas(data.x_train.join(data.y_train), targets=TARGET, name="wine"), "training")
        model = fit(parameters, data)
        curve = learning_curve(model, data)
        log_curve(run.info.run_id, curve)
        predicted = model.predict(data.x_test)
        mlflow.log_figure(plot(curve, data.y_test, predicted), "learning_curve.png")

        rows = data.x_test.head(SMOKE_TEST_ROWS)
        test = smoke_test(model, rows)
        mlflow.log_dict(dict(test), "smoke_test.json")
        logged = mlflow.sklearn.log_model(
            model,
            name=NAME,
            signature=infer_signature(data.x_test, predicted),
            input_example=rows,
            # Named here, because to infer them MLflow would load the model once more in another process.
            pip_requirements=mlflow.sklearn.get_default_pip_requirements(include_skops=True),
            skops_trusted_types=["sklearn.tree._tree.Tree"],
        )
    return Result(
        run_id=run.info.run_id,
        model_uri=logged.model_uri,
        name=NAME,
        metrics=curve[-1],
        smoke_test=test,
    )


def parse() -> tuple[Parameters, str]:
    """Return the parameters and the experiment's name of the command line."""
    default = Parameters()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--n-estimators", type=int, default=default.n_estimators, help="number of trees")
    parser.add_argument("--learning-rate", type=float, default=default.learning_rate, help="weight of each tree")
    parser.add_argument("--max-depth", type=int, default=default.max_depth, help="depth of each tree")
    parser.add_argument("--subsample", type=float, default=default.subsample, help="share of the wines a tree sees")
    parser.add_argument("--seed", type=int, default=default.seed, help="of the split and of the trees")
    parser.add_argument("--experiment", default=NAME, help="experiment to log to; `mlflow run` has its own option")
    arguments = vars(parser.parse_args())
    experiment = arguments.pop("experiment")
    return Parameters(**arguments), experiment


def main() -> None:
    """Train by the command line and print the result as JSON."""
    parameters, experiment = parse()
    if "MLFLOW_RUN_ID" not in os.environ:  # `mlflow run` has chosen the experiment and opened a run in it
        mlflow.set_experiment(experiment)
    print(json.dumps(train(parameters)))


if __name__ == "__main__":
    main()
