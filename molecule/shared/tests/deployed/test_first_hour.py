"""A data scientist's first hour: what works without being told how, and what the pages and links show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from stack import ROOT, Stack

HOME = "/home/jovyan"
PUBLIC = "http://127.0.0.1:5000"
# How commands are typed: in JupyterLab's terminal or `docker exec … bash -l`, and behind a notebook's `!`.
SHELLS = {"terminal": ["bash", "-l", "-c"], "notebook": ["sh", "-c"]}

# Runs cells in one kernel, as a notebook does, and prints what came out by stream; errors come as "error".
CELLS = """
import json, sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(cwd="/home/jovyan")
output = {"stdout": "", "stderr": "", "error": ""}
def hook(message):
    content = message["content"]
    if message["msg_type"] == "stream":
        output[content["name"]] += content["text"]
    elif message["msg_type"] == "error":
        output["error"] += "\\n".join(content["traceback"])
for cell in sys.argv[1:]:
    client.execute_interactive(cell, timeout=120, output_hook=hook)
client.stop_channels()
manager.shutdown_kernel(now=True)
print(json.dumps(output))
"""

# Saves a file as the file browser does, with JupyterLab's own API, at the top of what it shows.
SAVE = """
import json, sys, requests
password, name = sys.argv[1:]
session, base = requests.Session(), "http://127.0.0.1:8888"
session.get(base + "/login")
session.post(base + "/login", data={"password": password, "_xsrf": session.cookies["_xsrf"]})
answer = session.put(
    f"{base}/api/contents/{name}",
    json={"type": "file", "format": "text", "content": "kept"},
    headers={"X-XSRFToken": session.cookies["_xsrf"]},
)
print(json.dumps(answer.status_code))
"""

# The notebook's cells as they come out of a run from top to bottom: what each printed, by stream.
NOTEBOOK = """
import json, nbformat
from nbclient import NotebookClient
folder = "/opt/examples/wine-quality"  # a copy in the user's home may be older, or edited
done = NotebookClient(
    nbformat.read(folder + "/wine-quality.ipynb", as_version=4), resources={"metadata": {"path": folder}}, timeout=300
).execute()
outputs = [output for cell in done.cells for output in cell.get("outputs", []) if output.output_type == "stream"]
print(json.dumps([[output.name, output.text] for output in outputs]))
"""

# Makes an account with MLflow's own client, as its administrator.
NEW_ACCOUNT = """
import json, os, sys
os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = "admin", sys.argv[1]
from mlflow.server import get_app_client
users = get_app_client("basic-auth", os.environ["MLFLOW_TRACKING_URI"])
users.create_user(*sys.argv[2:])
print(json.dumps(None))
"""

DELETE_ACCOUNT = NEW_ACCOUNT.replace("create_user(*sys.argv[2:])", "delete_user(sys.argv[2])")

# Logs a run as MLflow's quickstart does, knowing nothing of experiments, and prints the experiment that it went to.
QUICKSTART = """
import json, os, sys
os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = sys.argv[1:]
os.environ.pop("MLFLOW_EXPERIMENT_NAME")
import mlflow
with mlflow.start_run() as run:
    mlflow.log_metric("accuracy", 0.93)
    mlflow.log_text("hello", "hello.txt")
print(json.dumps(run.info.experiment_id))
"""


def blocks(page: str, language: str) -> list[str]:
    """The blocks of code on a page of the documentation, without the indentation of a list."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def in_notebook(stack: Stack, *cells: str) -> dict[str, str]:
    """What cells of a notebook put out; none of them may fail."""
    output: dict[str, str] = stack.python(CELLS, *cells)
    assert not output["error"], output["error"]
    return output


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_the_same_programs(stack: Stack, shell: str) -> None:
    """Issue line A1."""
    programs = "for program in python pip mlflow jupyter; do command -v $program; done"

    said = stack.execute("jupyter", *SHELLS[shell], programs)

    assert said == stack.execute("jupyter", "bash", "-c", programs)
    assert len(said.splitlines()) == 4


@pytest.mark.once
@pytest.mark.parametrize("shell", SHELLS)
def test_the_project_runs_as_the_notebook_says(stack: Stack, shell: str) -> None:
    """Issue line A1: `mlflow run .`, in the environment that is there."""
    command = f"cd {HOME}/wine-quality && mlflow run . -P n_estimators=10 --experiment-name project 2>&1"

    said = stack.execute("jupyter", *SHELLS[shell], command)

    assert '"model_uri"' in said, said
    assert "Warning" not in said, said


def test_links_lead_to_where_a_browser_reaches_mlflow(stack: Stack) -> None:
    """Issue lines A2 and A3: to the public address, and to runs rather than traces; requests stay inside."""
    log = "import os, mlflow\nwith mlflow.start_run() as run: pass"
    look = "print(run.info.run_id, os.environ['MLFLOW_TRACKING_URI'])"

    said = in_notebook(stack, log, look)["stdout"]

    run_id, inside = said.split()[-2:]
    links = re.findall(r"https?://\S+(?=\n)", said.replace(inside, ""))
    assert [link.partition("/#/")[0] for link in links] == [PUBLIC, PUBLIC], said
    assert links[0].endswith(f"/runs/{run_id}")
    assert links[1].endswith("/runs?workflowType=machine_learning")
    assert inside == "http://mlflow:5000"
    account = f"jupyter:{stack.secrets()['jupyter_mlflow_password']}"
    assert "<title>MLflow</title>" in stack.request("GET", links[0].partition("#")[0], account=account).body


def test_the_first_page_shows_runs_and_no_assistant(stack: Stack) -> None:
    """Issue lines A3 and A5: what a browser that was never here is told before MLflow's own script."""
    account = f"jupyter:{stack.secrets()['jupyter_mlflow_password']}"

    page = stack.request("GET", f"{PUBLIC}/", account=account).body

    ours, _, mlflows = page.partition("static-files/static/js/main")
    assert mlflows
    assert '"mlflow.workflowType_v1": "machine_learning"' in ours
    assert '"mlflow.settings.telemetry.enabled_v1": false' in ours
    assert "data-assistant-ui" in ours


@pytest.mark.once
def test_what_is_saved_in_the_file_browser_outlives_the_container(stack: Stack) -> None:
    """Issue line A4: at the top of what the browser shows, and wherever in the home a terminal has written."""
    assert stack.python(SAVE, stack.secrets()["jupyter_password"], "first-hour.txt") in (200, 201)
    stack.execute("jupyter", "bash", "-l", "-c", "echo ' too' > ~/.first-hour")
    try:
        stack.run("docker rm --force mlflow-stack-jupyter")
        deployment = stack.deploy("--tags=jupyter")
        assert deployment.returncode == 0, deployment.stdout[-3000:]

        kept = stack.execute("jupyter", "cat", f"{HOME}/first-hour.txt", f"{HOME}/.first-hour")
    finally:
        stack.execute("jupyter", "rm", "--force", f"{HOME}/first-hour.txt", f"{HOME}/.first-hour")
    assert kept == "kept too"


def test_the_first_lines_of_the_readme_end_their_run(stack: Stack) -> None:
    """Issue line A5: the run is not left in state RUNNING by a notebook that stays open; nothing shows as an error."""
    (lines,) = blocks("README.md", "python")
    look = "print(mlflow.search_runs(max_results=1, order_by=['start_time DESC']).status.item())"

    output = in_notebook(stack, lines, look)

    assert output["stdout"].splitlines()[-1] == "FINISHED"
    assert output["stderr"] == ""


@pytest.mark.once
def test_the_example_shows_no_red_boxes_and_links_that_open(stack: Stack) -> None:
    """Issue lines A2 and A5: the notebook from top to bottom."""
    outputs = stack.python(NOTEBOOK)

    assert [text for stream, text in outputs if stream == "stderr"] == []
    assert sum(text.count(f"{PUBLIC}/#/experiments/") for _, text in outputs) >= 6


@pytest.mark.once
def test_a_password_that_somebody_has_changed_is_put_back_by_a_run(stack: Stack) -> None:
    """Issue line A6: with the page's "Change password", which cuts off all notebooks."""
    held, other = stack.secrets()["jupyter_mlflow_password"], "changed-by-somebody"
    change = {"username": "jupyter", "password": other, "current_password": held}
    url = f"{PUBLIC}/api/2.0/mlflow/users/update-password"
    assert stack.request("PATCH", url, account=f"jupyter:{held}", body=change).status == 200
    stack.run("docker restart mlflow-stack-mlflow")  # as in a minute, it has forgotten whom it has let in
    stack.wait_until_healthy()

    deployment = stack.deploy("--tags=mlflow")

    assert deployment.returncode == 0, deployment.stdout[-3000:]
    assert held not in deployment.stdout
    assert stack.request("GET", f"{PUBLIC}/version", account=f"jupyter:{held}").status == 200
    assert stack.python("import json, mlflow; print(json.dumps(len(mlflow.search_experiments())))") > 0


@pytest.fixture
def own_model(stack: Stack) -> Iterator[dict[str, Any]]:
    """The page's variables; afterwards nothing but the example's model is served."""
    (settings,) = blocks("docs/serve-your-own-model.md", "yaml")
    yield yaml.safe_load(settings)
    deployment = stack.deploy("--tags=serving")
    assert deployment.returncode == 0, deployment.stdout[-3000:]


@pytest.mark.once
def test_a_model_of_ones_own_is_served_as_the_page_says(stack: Stack, own_model: dict[str, Any]) -> None:
    """Issue line A7: each block of docs/serve-your-own-model.md does what the page says of it."""
    in_notebook(stack, *blocks("docs/serve-your-own-model.md", "python"))

    deployment = stack.deploy("--tags=serving", f"--extra-vars={json.dumps(own_model)}")

    assert deployment.returncode == 0, deployment.stdout[-3000:]
    (curl,) = (block for block in blocks("docs/serve-your-own-model.md", "sh") if block.startswith("curl"))
    url, sent = re.search(r"curl (\S+).* -d '(.*)'", curl, re.DOTALL).groups()  # type: ignore[union-attr]
    answer = stack.request("POST", url, body=json.loads(sent))
    assert answer.status == 200, answer
    assert f"`{answer.body}`" in (ROOT / "docs/serve-your-own-model.md").read_text()


@pytest.fixture
def account(stack: Stack) -> Iterator[tuple[str, str]]:
    """Name and password of an account that MLflow's administrator has made."""
    admin, made = stack.secrets()["mlflow_admin_password"], ("first-hour", "a-password-of-mine")
    stack.python(NEW_ACCOUNT, admin, *made)
    yield made
    stack.python(DELETE_ACCOUNT, admin, made[0])


def test_a_new_account_has_a_working_start(stack: Stack, account: tuple[str, str]) -> None:
    """Issue line A8: `get_app_client` works in Jupyter, and MLflow's quickstart for every account, in Default."""
    assert stack.python(QUICKSTART, *account) == "0"


def test_the_account_that_only_reads_has_no_part_in_it(stack: Stack) -> None:
    """Issue line A8: what reads models for serving still writes nowhere but to what it would make itself."""
    account = f"serving:{stack.secrets()['serving_mlflow_password']}"

    answer = stack.request("POST", f"{PUBLIC}/api/2.0/mlflow/runs/create", account=account, body={"experiment_id": "0"})

    assert answer.status == 403


def test_text_that_no_database_takes_is_a_bad_request(stack: Stack) -> None:
    """Issue line A8: a NUL; 500 has the client try again for four minutes."""
    text = "a\0b"
    account = f"jupyter:{stack.secrets()['jupyter_mlflow_password']}"
    log = "import json, mlflow\nwith mlflow.start_run() as run: pass\nprint(json.dumps(run.info.run_id))"
    run_id = stack.python(log)
    tries: dict[str, dict[str, str]] = {
        "experiments/create": {"name": text},
        "registered-models/create": {"name": text},
        "runs/log-parameter": {"run_id": run_id, "key": "p", "value": text},
        "runs/set-tag": {"run_id": run_id, "key": "t", "value": text},
    }

    answers = {
        path: stack.request("POST", f"{PUBLIC}/api/2.0/mlflow/{path}", account=account, body=body)
        for path, body in tries.items()
    }

    assert {path: answer.status for path, answer in answers.items()} == dict.fromkeys(tries, 400), answers


@pytest.mark.parametrize("query", ["{a" * 3000 + "}" * 3000, "{", "{ no }"], ids=["deep", "cut off", "unknown"])
def test_graphql_that_cannot_be_answered_is_no_server_error(stack: Stack, query: str) -> None:
    """Issue line A8, its siblings."""
    account = f"jupyter:{stack.secrets()['jupyter_mlflow_password']}"
    answer = stack.request("POST", f"{PUBLIC}/graphql", account=account, body={"query": query})
    assert answer.status < 500, answer
