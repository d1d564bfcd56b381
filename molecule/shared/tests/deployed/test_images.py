"""Images, from wherever they come: they fit each other, and the same platform runs on them, on the same data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from stack import PROJECT, ROOT, Stack, wait_until

REGISTRY = "127.0.0.1:5999"
UPSTREAM = ROOT / "tests/upstream_images"

# Prints the minor version of Python, and the versions of all that is installed, by name.
VERSIONS = """
import json, re, sys
from importlib.metadata import distributions
names = {re.sub("[-_.]+", "-", found.name).lower(): found.version for found in distributions()}
print(json.dumps(["{}.{}".format(*sys.version_info), names]))
"""

# Prints what the server imports that Python had to compile for it, and would again at each start.
NOT_COMPILED = """
import json, mlflow.server, pathlib, sys
modules = [m.__spec__ for m in list(sys.modules.values()) if getattr(m, "__spec__", None)]
print(json.dumps([s.name for s in modules if s.cached and not pathlib.Path(s.cached).exists()]))
"""

# Prints what a small artifact holds that is logged and read back.
ROUND_TRIP = """
import json, mlflow
mlflow.set_experiment("images")
with mlflow.start_run() as run:
    mlflow.log_text("kept", "note.txt")
print(json.dumps(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/note.txt")))
"""

# Prints how many runs there are of the experiments of this test and of the example.
RUNS = """
import json, mlflow
print(json.dumps(len(mlflow.search_runs(experiment_names=["images", "wine-quality"]))))
"""

# Registers a model that is pickled with its code, as one of a notebook is, with the alias "live"; its description may
# be given another version of Python.
PICKLED = """
import json, pathlib, re, sys, tempfile
import mlflow
from mlflow.pyfunc.model import PythonModel

class Doubler(PythonModel):
    def predict(self, context, model_input: list[float], params=None) -> list[float]:
        return [2 * value for value in model_input]

model = pathlib.Path(tempfile.mkdtemp(), "model")
mlflow.pyfunc.save_model(model, python_model=Doubler(), input_example=[1.0, 2.5])
description = model / "MLmodel"
for version in sys.argv[1:]:
    description.write_text(re.sub("python_version: .*", f"python_version: {version}", description.read_text()))
with mlflow.start_run() as run:
    mlflow.log_artifacts(str(model), "model")
registered = mlflow.register_model(f"runs:/{run.info.run_id}/model", "doubler").version
mlflow.MlflowClient().set_registered_model_alias("doubler", "live", registered)
print(json.dumps(int(registered)))
"""


def settings(stack: Stack) -> dict[str, Any]:
    """The variables that the scenario's inventory sets."""
    inventory = yaml.safe_load((stack.inventory / "hosts.yml").read_text())
    variables: dict[str, Any] = inventory["all"]["vars"]
    return variables


def variables(values: dict[str, object]) -> str:
    """The option that sets variables."""
    return f"--extra-vars={json.dumps(values)}"


def newest(stack: Stack, repository: str) -> str:
    """The tag of the image that was made last."""
    return stack.run(f"docker images --format '{{{{.Repository}}}}:{{{{.Tag}}}}' {repository} | head -n 1").strip()


def in_base(stack: Stack, command: str) -> str:
    """Standard output of a shell's command on the base image, seen in MLflow's, which adds no packages of Debian's."""
    image = stack.services()["mlflow"]["Config"]["Image"]
    return stack.run("docker run --rm --user=root --entrypoint=sh %s -c %s", image, command)


def test_models_are_trained_and_served_with_the_same_versions(stack: Stack) -> None:
    """Issue line C3: Python 3.12 here and 3.13 there, and cloudpickle of two versions."""
    python, trained = json.loads(stack.execute("jupyter", "python", "-c", VERSIONS))
    served_python, served = json.loads(stack.execute("serving-wine-quality", "python3", "-c", VERSIONS))

    assert python == served_python
    common = trained.keys() & served.keys()
    assert {"cloudpickle", "mlflow", "numpy", "pandas", "scikit-learn", "skops"} <= common
    assert {name: (trained[name], served[name]) for name in common if trained[name] != served[name]} == {}


def test_what_the_server_imports_is_compiled_in_its_image(stack: Stack) -> None:
    assert json.loads(stack.execute("mlflow", "python3", "-c", NOT_COMPILED)) == []


def test_notebooks_have_bars_that_show_progress(stack: Stack) -> None:
    """Issue line C4: the first cell of the example warned that there are none."""
    program = "import json, ipywidgets; print(json.dumps(ipywidgets.__version__))"
    assert stack.python(program)


def test_the_superuser_s_password_is_in_no_environment(stack: Stack) -> None:
    """Issue line C1: the start script of PostgreSQL's image exports it."""
    environments = stack.execute("postgres", "sh", "-c", "cat /proc/[0-9]*/environ")

    assert "PGDATA" in environments
    assert stack.secrets()["postgres_superuser_password"] not in environments


def test_images_are_made_with_the_updates_of_the_day(stack: Stack) -> None:
    """Issue line C4: a registry's image is as old as its tag."""
    assert "0 upgraded" in in_base(stack, "apt-get update --quiet=2 && apt-get upgrade --simulate")


def test_packages_come_from_the_mirror(stack: Stack) -> None:
    """Issue line C4: image_debian_mirror held where the host makes Debian itself, and not for a registry's."""
    wanted = settings(stack).get("image_debian_mirror")
    listed = "apt-get update --quiet=2 && apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages'"
    used = {source for source in in_base(stack, listed).split() if "security" not in source}

    assert len(used) == 1
    assert wanted is None or ":80/" in used.pop()  # not spelled as in the image


@pytest.fixture
def registry(stack: Stack) -> Iterator[str]:
    """A registry with PostgreSQL as Docker Hub hands it out. It is unpacked, not installed."""
    stack.run(
        "mkdir -p /opt/registry && cd /opt/registry"
        " && apt-get update && apt-get download docker-registry && dpkg-deb --extract docker-registry_*.deb ."
    )
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": "/opt/registry/data"}},
        "http": {"addr": REGISTRY},
    }
    stack.run("echo %s > /opt/registry/config.yml", json.dumps(config))
    serve = "/opt/registry/usr/bin/docker-registry serve /opt/registry/config.yml"
    pid = stack.run(f"setsid {serve} > /dev/null 2>&1 & echo $!").strip()
    wait_until(lambda: f"{REGISTRY} " in stack.run("ss --listening --tcp --numeric"), seconds=10)
    name = f"{REGISTRY}/library/postgres:17.12"
    stack.run("mkdir -p /opt/registry/postgres")
    for file in (UPSTREAM / "postgres").iterdir():
        stack.write(f"/opt/registry/postgres/{file.name}", file.read_text())
    base = newest(stack, "mlflow-stack/debian")
    stack.run(f"docker build --quiet --tag {name} --build-arg BASE_IMAGE={base} /opt/registry/postgres")
    stack.run(f"docker push --quiet {name} && docker rmi {name}")
    yield REGISTRY
    stack.run(f"kill {pid} && rm -r /opt/registry")


def assert_moves(stack: Stack, values: dict[str, object], image: str) -> None:
    """PostgreSQL moves to an image of the other origin, and back; the platform works on the same data all the time."""
    before, runs = stack.services()["postgres"]["Config"]["Image"], stack.python(RUNS)

    moved = stack.deploy("--tags=postgres", variables(values))
    assert moved.returncode == 0, moved.stdout[-3000:]
    assert stack.services()["postgres"]["Config"]["Image"].startswith(image)
    assert stack.python(ROUND_TRIP) == "kept"
    assert stack.python(RUNS) == runs + 1

    back = stack.deploy("--tags=postgres")
    assert back.returncode == 0, back.stdout[-3000:]
    assert stack.services()["postgres"]["Config"]["Image"] == before
    assert stack.python(ROUND_TRIP) == "kept"
    assert stack.python(RUNS) == runs + 2
    stack.wait_until_healthy()


@pytest.mark.once
def test_postgresql_moves_to_a_registry_s_image_and_back(stack: Stack, registry: str) -> None:
    """Issue line C2: it was healthy there and listened to nobody. All but PostgreSQL's image stays, to be quick."""
    others = {
        "image_base": newest(stack, "mlflow-stack/base"),
        "jupyter_image": newest(stack, "mlflow-stack/jupyter-base"),
    }

    upstream: dict[str, object] = {"image_origin": "upstream", "image_registry": registry}
    assert_moves(stack, upstream | others, f"{registry}/library/postgres:17.12")


def test_postgresql_moves_to_an_image_that_is_built_and_back(stack: Stack) -> None:
    """Issue line C2. Debian is made on the host, and all on it but what takes minutes."""
    if settings(stack)["image_origin"] != "upstream":
        pytest.skip("it is built")
    as_it_is = {
        "context": str(ROOT / "roles/mlflow/files/image"),
        "additional_contexts": {"mlflow_ftps": str(ROOT / "mlflow_ftps")},
        "args": {"BASE_IMAGE": newest(stack, "mlflow-stack/base")},
    }
    others = {
        "mlflow_image_build": as_it_is,
        "__jupyter_base_image": settings(stack)["jupyter_image"],
        "__jupyter_base_build": {},
    }

    assert_moves(stack, {"image_origin": "distro", "image_debian_mirror": "", **others}, "mlflow-stack/postgres:17-")


@pytest.fixture
def doubler(stack: Stack) -> Iterator[str]:
    """The option that serves a model of its own beside the example's, by its alias "live"."""
    models = [
        {"name": "wine-quality", "model": "wine-quality", "alias": "champion", "port": 5002},
        {"name": "doubler", "model": "doubler", "alias": "live", "port": 5004},
    ]
    yield variables({"serving_models": models})
    assert stack.deploy("--tags=serving").returncode == 0
    assert f"{PROJECT}-serving-doubler" not in stack.run("docker ps --all --format '{{.Names}}'")


@pytest.mark.once
def test_pickled_models_are_served_where_their_python_fits(stack: Stack, doubler: str) -> None:
    """Issue line C3: the server crashed, and nobody said why."""
    refused = stack.python(PICKLED, "3.12.11")
    deployment = stack.deploy("--tags=serving", doubler)
    assert deployment.returncode != 0
    said = " ".join(deployment.stdout.split())
    assert f"models:/doubler/{refused} was pickled with Python 3.12.11" in said

    stack.python(PICKLED)
    deployment = stack.deploy("--tags=serving", doubler)
    assert deployment.returncode == 0, deployment.stdout[-3000:]
    answer = stack.request("POST", "http://127.0.0.1:5004/invocations", body={"inputs": [1.0, 2.5]})
    assert json.loads(answer.body)["predictions"] == [2.0, 5.0]


@pytest.mark.once
def test_examples_that_cannot_be_copied_do_not_stop_jupyter(stack: Stack) -> None:
    """Issue line C4. What is in the way stays: a file where a directory of examples would go."""
    found = stack.execute("jupyter", "sh", "-c", "find ~ -maxdepth 2 -type d -name wine-quality").split()
    examples = found[0]
    stack.execute("jupyter", "sh", "-c", f"mv {examples} {examples}-mine && touch {examples}")
    started = stack.started_at()["jupyter"]
    try:
        stack.run(f"docker restart {PROJECT}-jupyter")
        stack.wait_until_healthy(seconds=60)
        assert stack.started_at()["jupyter"] != started
        assert stack.execute("jupyter", "stat", "--format=%s", examples).strip() == "0"
    finally:
        stack.execute("jupyter", "sh", "-c", f"rm {examples} && mv {examples}-mine {examples}")
