"""The command `mlflow` as Jupyter has it; apart from the plugin, which MLflow imports while it is imported itself."""

from __future__ import annotations

from mlflow.cli import cli


def main() -> None:
    """Be MLflow's command, in the environment that is there unless told otherwise: nothing here makes others."""
    local = {"env_manager": "local"}
    cli(default_map={"run": local, "models": {"serve": local, "predict": local}})
