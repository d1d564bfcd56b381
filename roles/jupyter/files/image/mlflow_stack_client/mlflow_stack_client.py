"""MLflow's client as notebooks have it: the links that it prints lead to where a browser reaches MLflow.

MLflow makes them of the address that it sends its requests to, which here is one of the Docker network. It is told to
print none (MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT), and this plugin of MLflow's prints them instead.

Environment: MLFLOW_STACK_PUBLIC_URL, MLflow's address in a browser. Without it nothing is printed.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from mlflow.entities import RunStatus
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.credentials import get_default_host_creds

if TYPE_CHECKING:
    from mlflow.entities import RunInfo


class LinkingStore(RestStore):
    """The tracking server, with a link to each run that ends."""

    @classmethod
    def of(cls, store_uri: str, **_: Any) -> LinkingStore:  # noqa: ANN401 (as MLflow calls it)
        """The store for an address; what MLflow calls for http and https."""
        return cls(partial(get_default_host_creds, store_uri))

    def update_run_info(
        self, run_id: str, run_status: int | None, end_time: int | None, run_name: str | None
    ) -> RunInfo:
        """Update the run (`end_time` in milliseconds since 1970), and print its links if it has ended.

        Raises MlflowException.
        """
        info: RunInfo = super().update_run_info(run_id, run_status, end_time, run_name)  # type: ignore[no-untyped-call]
        address = os.environ.get("MLFLOW_STACK_PUBLIC_URL", "").rstrip("/")
        if address and run_status is not None and RunStatus.is_terminated(run_status):
            print(links(address, info))
        return info


def links(address: str, info: RunInfo) -> str:
    """The lines that MLflow prints of a run, with another address. The experiment's shows its runs, not its traces."""
    experiment = f"{address}/#/experiments/{info.experiment_id}"
    return (
        f"🏃 View run {info.run_name} at: {experiment}/runs/{info.run_id}\n"
        f"🧪 View experiment at: {experiment}/runs?workflowType=machine_learning"
    )
