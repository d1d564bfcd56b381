"""The project's variables as Ansible computes them, for the tests of what may be set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible._internal._templating._jinja_bits import AnsibleEnvironment, _TemplateCompileContext
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template
from lookups import REPO
from validate_settings import HANDED_OVER, load_options, refuse, refuse_all, sentence, sources_of

init_plugin_loader()

ROLES = sorted(path.parent.parent.name for path in REPO.glob("roles/*/meta/argument_specs.yml"))
OPTIONS = load_options(REPO)
GROUPS = {group: ["localhost"] for group in ("postgres", "ftp", "mlflow", "jupyter", "serving", "portainer")}
# What a run finds out on its host.
FOUND: dict[str, Any] = {
    "ansible_facts": {},
    "inventory_hostname": "localhost",
    "stack_root": str(REPO),
    "image_origin_used": "distro",
    "docker_containers": {},
    "docker_images": [],
    "image_archives": {},
}
# What lists hold that are empty by default.
SAMPLES: dict[str, Any] = {
    "mlflow_users": [{"name": "ada", "admin": False, "password": "a good password", "state": "present"}],
    "gateway_clients": [{"name": "ci", "model": "wine-quality", "token": "a-token-of-the-tests-for-ci"}],
}
LOADER = DataLoader()


def compile_once() -> None:
    """Keep compiled templates, which Ansible does not: the same ones are rendered for thousands of values."""
    compile_anew = AnsibleEnvironment.compile
    compiled: dict[tuple[object, ...], Any] = {}

    def compile_template(environment: AnsibleEnvironment, source: Any, *args: object, **kwargs: object) -> Any:  # noqa: ANN401
        context = _TemplateCompileContext.current(optional=True)
        escapes = context is not None and context.escape_backslashes
        key = (source, args, *kwargs.items(), environment.trim_blocks, environment.lstrip_blocks, escapes)
        if key not in compiled:
            compiled[key] = compile_anew(environment, source, *args, **kwargs)
        return compiled[key]

    AnsibleEnvironment.compile = compile_template


compile_once()


def load(pattern: str) -> dict[str, Any]:
    """The variables in YAML files of the project."""
    found: dict[str, Any] = {}
    for path in sorted(REPO.glob(pattern)):
        found |= LOADER.load_from_file(str(path), cache="none", trusted_as_template=True) or {}
    return found


# From the weakest to the strongest.
DEFAULTS, WIRING, INNER = (
    load("roles/*/defaults/main.yml"),
    load("playbooks/group_vars/all/*.yml"),
    load("roles/*/vars/main.yml"),
)

# What files of a service are made from, beside the variables themselves.
TEMPLATES = {
    name: [INNER[name], *(path.read_text() for path in REPO.glob(f"roles/{role}/templates/*"))]
    for role in ROLES
    for name in (f"{role}_files", f"{role}_secrets")
    if name in INNER
}


class Inventory:
    """An inventory of this machine with everything on it, perhaps a gateway; its secrets are generated already."""

    def __init__(self, directory: Path, *, gateway: bool = False) -> None:
        self.groups = GROUPS | ({"gateway": ["localhost"]} if gateway else {})
        self.wiring = DEFAULTS | WIRING | SAMPLES | {"inventory_dir": str(directory)}
        self.compute(OPTIONS, {}, check_mode=False)
        self.values = self.compute(set(OPTIONS) - set(HANDED_OVER), {})
        self.sources = {name: sources_of(name, self.wiring) for name in self.values}
        self.rendered: dict[str, Any] = {}

    def compute(self, names: Iterable[str], given: dict[str, Any], *, check_mode: bool = True) -> dict[str, Any]:
        """The values of variables, with those that the user gives. Raises AnsibleError."""
        found = {"groups": self.groups, "hostvars": {"localhost": {}}} | FOUND
        variables = self.wiring | given | INNER | found | {"ansible_check_mode": check_mode}
        templar = Templar(LOADER, variables=variables)
        return {name: templar.template(trust_as_template(f"{{{{ {name} }}}}")) for name in names}

    def render(self, names: list[str], given: dict[str, Any]) -> dict[str, Any]:
        """The same of what services are made of, where what comes from nothing that is given is computed once."""
        if not self.rendered:
            self.rendered = self.compute(names, {})
            definitions = self.wiring | INNER | TEMPLATES
            self.rendered_sources = {name: sources_of(name, definitions) for name in names}
        return self.rendered | self.compute([name for name in names if self.rendered_sources[name] & set(given)], given)

    def refusals(self, given: dict[str, Any]) -> list[str]:
        """What the preflight says of variables that the user gives."""
        definitions = self.wiring | given
        values = self.values | given
        uncomputable = {}
        # What comes from a value that is refused itself, nobody looks at.
        good = {
            name for name, value in given.items() if name in OPTIONS and not any(refuse(name, value, OPTIONS[name]))
        }
        for name in [name for name in self.values if name not in given and self.sources[name] & good]:
            try:
                values |= self.compute([name], given)
            except AnsibleError as error:
                del values[name]
                uncomputable[name] = sentence(name, error)
        return refuse_all(values, OPTIONS, self.groups, uncomputable, definitions)
