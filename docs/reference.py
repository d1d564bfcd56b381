"""Write docs/reference.md, the list of all variables, from the argument_specs and the wiring.

python docs/reference.py            write it
python docs/reference.py --check    only say whether it is up to date; exit status 1 where it is not
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference.md"
WIRING = "playbooks/group_vars/all"
STACK = "playbooks/meta/argument_specs.yml"
LONGEST_DEFAULT = 60  # characters; what is longer is read where it stands

HEAD = f"""\
<!-- Written by docs/reference.py from roles/*/meta/argument_specs.yml, {STACK} and {WIRING}/.
     Change those, not this. -->
# Reference: all variables

Set a variable in your inventory, for example in `inventory/prod/group_vars/all.yml`: it wins over every default here.
Check with `make check` what the new value would change.

- *generated*: a password or certificate that is made once and kept in the inventory's `secrets/`.
- *wired*: derived from other variables; the formula is in [{WIRING}](../{WIRING}).
"""


def load(path: str) -> dict[str, Any]:
    """The mapping in a YAML file of the repository."""
    mapping: dict[str, Any] = yaml.safe_load((ROOT / path).read_text())
    return mapping


def code(value: object) -> str:
    """A value as code in a cell of a table."""
    text = json.dumps(value, ensure_ascii=False).replace("|", "\\|")
    return f"`{text}`"


def default(name: str, option: dict[str, Any], secrets: dict[str, Any], wiring: dict[str, Any]) -> str:
    """What holds for a variable that the inventory does not set."""
    if name in secrets:
        return "*generated*"
    value = wiring.get(name, option.get("default"))
    derived = name in wiring and ("{{" in str(value) or len(code(value)) > LONGEST_DEFAULT)
    return "*wired*" if derived else code(value)


def row(*cells: str) -> str:
    """A line of a table, each cell on one line."""
    return "| " + " | ".join(" ".join(cell.split()) for cell in cells) + " |"


def type_of(option: dict[str, Any]) -> str:
    """An option's type, with the type of a list's elements, the keys of a dictionary, and the choices."""
    kind = f"{option['type']} of {option['elements']}" if "elements" in option else str(option["type"])
    if "options" in option:
        return f"{kind}: {', '.join(option['options'])}"
    return f"{kind}: {', '.join(option['choices'])}" if "choices" in option else kind


def section(title: str, specs: str, secrets: dict[str, Any], wiring: dict[str, Any]) -> str:
    """A heading and the table of the variables in a file of argument_specs."""
    spec = load(specs)["argument_specs"]["main"]
    rows = [
        row(
            f"`{name}`",
            type_of(option),
            default(name, option, secrets, wiring),
            option["description"].replace("|", "\\|"),
        )
        for name, option in spec["options"].items()
    ]
    head = [f"## {title}", *([] if title == spec["short_description"] else ["", f"{spec['short_description']}."]), ""]
    return "\n".join([*head, row("Variable", "Type", "Default", "What it is"), row("---", "---", "---", "---"), *rows])


def render() -> str:
    """The whole page."""
    secrets = load(f"{WIRING}/secrets.yml")
    wiring = load(f"{WIRING}/stack.yml") | load(f"{WIRING}/images.yml") | load(f"{WIRING}/wiring.yml")
    roles = sorted(path.parent.parent.name for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"))
    sections = [
        section("The deployment as a whole", STACK, secrets, wiring),
        *(section(role, f"roles/{role}/meta/argument_specs.yml", secrets, wiring) for role in roles),
    ]
    return "\n\n".join([HEAD.rstrip(), *sections]) + "\n"


def main() -> int:
    """Write the page, or compare it; return the exit status."""
    parser = argparse.ArgumentParser(description="Write docs/reference.md.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    page = render()
    if not parser.parse_args().check:
        REFERENCE.write_text(page)
        return 0
    if REFERENCE.is_file() and REFERENCE.read_text() == page:
        return 0
    print("docs/reference.md is not what the roles say: run `python docs/reference.py`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
