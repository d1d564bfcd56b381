"""What people do on the platform's pages, in a browser. Each journey ends with what the pages have complained about."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Any

import browser
from door import Door
from playwright.sync_api import Page, expect
from stack import wait_until

# Logs a run with a model to an experiment; prints their numbers.
RUN = """
import sys
import mlflow
from sklearn.linear_model import LinearRegression
mlflow.set_experiment(sys.argv[1])
with mlflow.start_run(run_name="first") as run:
    mlflow.sklearn.log_model(LinearRegression().fit([[0], [1]], [0, 1]), name="model")
print(run.info.run_id)
"""


def work_in_mlflow(door: Door, home: Path, name: str) -> list[str]:
    """Make an experiment, describe, rename and delete a run of it, register its model, and set an alias."""
    account = ("jupyter", door.stack.secrets()["jupyter_mlflow_password"])
    with browser.running(door, home, login=account) as window:
        page = window.open(f"{door.url('mlflow')}/#/experiments")
        page.get_by_role("button", name="Create", exact=True).click()
        page.get_by_label("Experiment Name").fill(name)
        page.get_by_role("dialog").get_by_role("button", name="Create").click()
        page.wait_for_url("**/experiments/*/**")
        experiment = re.findall(r"/experiments/(\d+)", page.url)[0]
        number = door.stack.execute("jupyter", "python", "-c", RUN, name).split()[-1]
        run = f"{door.url('mlflow')}/#/experiments/{experiment}/runs/{number}"
        # That the name is free, the page asks for by it, and is told that there is none.
        window.faults[:] = [fault for fault in window.faults if not re.search(r"/get-by-name\?.*\b404\b", fault)]

        page.goto(run)
        page.get_by_text("Description", exact=True).locator("xpath=..").get_by_role("button").click()
        page.get_by_role("textbox").last.fill("Written **here**")
        page.get_by_role("button", name="Save").click()
        page.get_by_text("here", exact=True).wait_for()
        choose(page, "Rename")
        page.get_by_role("dialog").get_by_role("textbox").fill("renamed")
        page.get_by_role("dialog").get_by_role("button", name="Save").click()
        page.get_by_role("heading", name="renamed").wait_for()

        page.get_by_role("link", name="model", exact=True).last.click()
        page.get_by_role("button", name="Register model").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("combobox").click()
        page.get_by_text("Create New Model", exact=True).click()
        dialog.get_by_label("Model Name").fill(name)
        dialog.get_by_role("button", name="Register").click()
        dialog.wait_for(state="hidden")
        page.goto(f"{door.url('mlflow')}/#/models/{name}/versions/1")
        page.locator('[data-component-id*="aliaseditor.tsx"]').click()
        dialog.get_by_role("combobox").fill("best")
        page.keyboard.press("Enter")
        dialog.get_by_role("button", name="Save aliases").click()
        page.get_by_text("@ best").wait_for()

        page.goto(run)
        choose(page, "Delete")
        page.get_by_role("dialog").get_by_role("button", name="Delete selected").click()
        page.wait_for_url("**/runs?**")
        page.get_by_text("renamed", exact=True).wait_for(state="hidden")
        return window.faults


def choose(page: Page, what: str) -> None:
    """An entry of the menu of MLflow's page."""
    page.locator('[data-component-id*="pageheader.tsx"]').click()
    page.get_by_role("menuitem", name=what).click()


def work_in_jupyter(door: Door, home: Path, idle: float = 0) -> list[str]:
    """Run the example from top to bottom, use a terminal, do nothing for `idle` seconds, and go on with the kernel."""
    with browser.running(door, home) as window:
        page = window.open(f"{door.url('jupyter')}/")
        page.locator("#password_input").fill(door.stack.secrets()["jupyter_password"])
        page.locator("#login_submit").click()
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
        page.wait_for_timeout(5000)  # what is run while the page and the kernel get to know each other is lost
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.locator('[data-command="runmenu:run-all"]').click()
        wait_until(lambda: is_through(saved_code(page)), 180)
        outputs = [output for cell in saved_code(page) for output in cell["outputs"]]
        assert [output for output in outputs if output["output_type"] == "error"] == []

        page.keyboard.press("Control+Shift+c")
        page.keyboard.type("New Terminal")
        page.wait_for_timeout(500)
        page.keyboard.press("Enter")
        page.locator(".jp-Terminal:visible").wait_for()
        page.wait_for_timeout(2000)
        word = secrets.token_hex(4)
        page.keyboard.type(f"python -c 'import mlflow; print(\"{word}\")' > answer.txt\n")
        wait_until(lambda: word in door.stack.execute("jupyter", "sh", "-c", "cat ~/answer.txt || true"), 60)

        page.wait_for_timeout(1000 * idle)
        page.get_by_role("tab", name="wine-quality.ipynb").click()
        page.locator(".jp-NotebookPanel:visible .jp-Cell").last.click()
        for key in ("Escape", "b", "Enter"):
            page.keyboard.press(key)
        page.keyboard.type("print(len(data.x_test), 'still', 'there')")
        page.keyboard.press("Shift+Enter")
        page.get_by_text("45 still there", exact=True).wait_for()
        return window.faults


def is_through(cells: list[dict[str, Any]]) -> bool:
    return len(cells) > 5 and all(cell["execution_count"] for cell in cells)


def saved_code(page: Page) -> list[dict[str, Any]]:
    """The cells of the example's code, and what they have put out, as they are saved now."""
    page.locator('.jp-NotebookPanel:visible [data-jp-item-name="save"]').click()
    page.wait_for_timeout(3000)  # Jupyter takes a file that it reads while it writes it for a broken one
    path = "/api/contents/wine-quality/wine-quality.ipynb"
    content = page.evaluate("async path => (await (await fetch(path)).json()).content", path)
    return [cell for cell in (content or {"cells": []})["cells"] if cell["cell_type"] == "code"]


def look_at_start_page(door: Door, home: Path, width: int) -> list[str]:
    """Everything answers, and nothing is wider than the screen."""
    with browser.running(door, home, width=width) as window:
        page = window.open(f"{door.url('start')}/")
        expect(page.locator(".state.up")).to_have_count(4)
        expect(page.locator(".state.down")).to_have_count(0)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        return window.faults
