"""MLflow's page as this platform shows it: what a browser finds that has not been here before.

MLflow keeps such choices in the browser alone, and has no setting for any of them. What a user has chosen stays.
"""

from __future__ import annotations

import json
from pathlib import Path

# Keys of the browser's storage as MLflow's page names them, with what they hold at first.
FIRST = {
    "mlflow.workflowType_v1": "machine_learning",  # runs and models, where GenAI shows no registry and "Traces 0"
    "mlflow.settings.telemetry.enabled_v1": False,  # the server has it off, whatever the page says
    "mlflow.telemetry.info.alert.dismissed_v1": True,
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,  # once it was open, the panel does not open by itself
}
# The assistant answers programs on its own host alone, and a container has none. What the demo makes belongs to no
# account, so that it ends half-way, and nobody can clear it.
HIDDEN = (
    '[data-assistant-ui="true"], :has(> [data-component-id="mlflow.home.demo-banner.launch"])'
    " { display: none !important; }"
)

HEAD = f"""<script>
for (const [key, value] of Object.entries({json.dumps(FIRST)}))
  if (localStorage.getItem(key) === null) localStorage.setItem(key, JSON.stringify(value));
</script><style>{HIDDEN}</style>"""


def show() -> None:
    """Have MLflow's app in this process show its page so. Raises OSError where MLflow has no page."""
    from mlflow.server import app

    page = with_first_choices(Path(str(app.static_folder), "index.html").read_text())
    app.view_functions["serve"] = lambda: page


def with_first_choices(page: str) -> str:
    """The page with our lines as the first of its head, in front of MLflow's own script."""
    return page.replace("<head>", f"<head>{HEAD}", 1)
