"""Every variable, given odd values: refused in the preflight by a sentence that names it, or it works to the end."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from typing import Any

import pytest
from settings_harness import FOUND, OPTIONS, Inventory
from validate_settings import HANDED_OVER

TEXTS = {
    "empty": "",
    "blank": " ",
    "blank at the end": "twelve letters ",
    "blank inside": "twelve letters",
    "quote": 'it\'s "quoted" twice',
    "backslash": "back\\slash\\n and more",
    "percent": "a%sixteenth%(of)s%%%",
    "comment": "; twelve # letters",
    "newline": "twelve\nletters",
    "tab": "twelve\tletters",
    "nul": "twelve\0letters",
    "non-ascii": "zwölf Bücher für 五",
    "byte order mark": "\ufefftwelve letters",
    "dollar": "twelve$HOME${PATH}",
    "shell": "twelve; reboot `id` | cat",
    "slashes": "../../etc/passwd",
    "huge": "x" * 100_000,
    "negative": "-1",
    "digits and a blank": "5000 ",
}
OTHERS: dict[str, Any] = {
    "null": None,
    "true": True,
    "zero": 0,
    "negative number": -1,
    "above all ports": 70_000,
    "huge number": 10**15,
    "fraction": 0.5,
    "whole fraction": 5000.0,
    "list": ["twelve letters", "twelve letters"],
    "list of null": [None],
    "list of a list": [[1]],
    "list of odd mappings": [{"name": "x"}, {"naem": 1}],
    "mapping": {"twelve": "letters"},
    "odd mapping": {"": None, "a b": [1], "'": "\n"},
}
ODD = TEXTS | OTHERS
NAMES = sorted(set(OPTIONS) - set(HANDED_OVER))
SERVICES = ["postgres", "ftp", "mlflow", "jupyter", "portainer"]


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    return Inventory(tmp_path_factory.mktemp("inventory"))


@pytest.fixture(scope="module")
def with_gateway(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    return Inventory(tmp_path_factory.mktemp("inventory"), gateway=True)


def services(inventory: Inventory) -> list[str]:
    return [*SERVICES, *(["gateway", "certbot"] if "gateway" in inventory.groups else [])]


def rendered_names(inventory: Inventory) -> list[str]:
    return [f"{service}_{part}" for service in services(inventory) for part in ("container", "files", "secrets")]


def odd_values(name: str, value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Odd values of a variable that has a good one: of itself, of the parts of its list or mapping."""
    option = OPTIONS[name]
    yield from ODD.items()
    if option["type"] == "list" and not option.get("options"):
        yield from ((f"list of: {label}", [odd]) for label, odd in ODD.items())
        yield "list with a duplicate", ["twelve.letters", "twelve.letters"]
    if option["type"] == "dict":
        yield from ((f"mapping to: {label}", {"twelve": odd}) for label, odd in ODD.items())
    if option.get("options"):
        first, *rest = value
        for key in option["options"]:
            yield from ((f"{key}: {label}", [{**first, key: odd}, *rest]) for label, odd in ODD.items())
            yield f"without {key}", [{k: v for k, v in first.items() if k != key}, *rest]
        yield "with an unknown key", [{**first, "naem": "x"}, *rest]
        yield "all twice", [*value, *value]
        yield "none", []


def assert_works(name: str, value: object, inventory: Inventory) -> None:
    """The containers that come out of it are ones that Docker takes, and what holds credentials gives them back."""
    given = {name: value}
    rendered = inventory.render(rendered_names(inventory), given)
    for service in services(inventory):
        container = rendered[f"{service}_container"]
        assert [port for port in container.get("ports", []) if not re.fullmatch(r"[\d.]+:\d+:\d+", port)] == []
        assert re.fullmatch(r"\d+m", container["mem_limit"])
        words = [
            *container.get("command", []),
            *container.get("environment", {}).values(),
            *container.get("volumes", []),
        ]
        assert [word for word in words if not isinstance(word, str) or "\0" in word] == []
        assert [volume for volume in container.get("volumes", []) if len(volume.split(":")) not in (2, 3)] == []
        contents = [file["content"] for file in [*rendered[f"{service}_files"], *rendered[f"{service}_secrets"]]]
        assert [content for content in contents if not isinstance(content, str)] == []
    names = ["jupyter_mlflow_user", "jupyter_mlflow_password"]
    assert credentials(rendered["jupyter_secrets"]) == list(inventory.compute(names, given).values())


def credentials(secrets: list[dict[str, str]]) -> list[str]:
    """User and password, as MLflow's client reads them in the container."""
    parser = configparser.ConfigParser()
    parser.read_string(next(secret["content"] for secret in secrets if secret["name"] == "credentials"))
    return [parser["mlflow"]["mlflow_tracking_username"], parser["mlflow"]["mlflow_tracking_password"]]


@pytest.mark.parametrize("name", NAMES)
def test_odd_values_are_refused_by_name_or_work(name: str, inventory: Inventory, with_gateway: Inventory) -> None:
    """Issue line C, and "it must hold": the test walks through every variable."""
    if name.startswith(("gateway_", "certbot_", "stack_public_")):
        inventory = with_gateway
    for label, value in odd_values(name, inventory.values[name]):
        refusals = inventory.refusals({name: value})
        if not refusals:
            print(name, "works with", label)
            assert_works(name, value, inventory)
        assert [
            (label, sentence) for sentence in refusals if len(sentence) > 400 or not re.search(rf"\b{name}\b", sentence)
        ] == []


@pytest.mark.parametrize("name", [name for name in NAMES if OPTIONS[name]["type"] in ("int", "bool")])
def test_numbers_and_booleans_as_text(name: str, inventory: Inventory, with_gateway: Inventory) -> None:
    """Issue line C, "numbers as strings from the command line": the containers that come out are the same."""
    if name.startswith(("gateway_", "certbot_")):
        inventory = with_gateway
    values = [False, True] if OPTIONS[name]["type"] == "bool" else [inventory.values[name]]
    for value in values:
        text = str(value).lower()
        assert inventory.refusals({name: text}) == []
        names = rendered_names(inventory)
        assert inventory.compute(names, {name: text}) == inventory.compute(names, {name: value})


def test_names_that_the_deployment_itself_needs_are_always_allowed(inventory: Inventory) -> None:
    """Issue line C: `mlflow_allowed_hosts` that forget them."""
    for names in (["mlflow.example.org"], []):
        assert inventory.refusals({"mlflow_allowed_hosts": names}) == []
        server = inventory.compute(["mlflow_container"], {"mlflow_allowed_hosts": names})["mlflow_container"]
        allowed = server["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
        assert {f"{name}:*" for name in ("localhost", "127.0.0.1", "mlflow", *names)} <= set(allowed)


IMAGE = "portainer/portainer-ce:1"
PORTAINER = {
    "a registry": ({"image_origin_used": "upstream"}, True),
    "the host": ({"docker_images": [IMAGE]}, True),
    "an archive": ({"image_archives": {IMAGE: "/srv/images/portainer.tar"}}, True),
    "nowhere": ({"docker_images": ["portainer/portainer-ce:2"], "image_archives": {"postgres:17": "x"}}, False),
    "no group": ({"image_origin_used": "upstream", "groups": {"mlflow": ["localhost"]}}, False),
}


@pytest.mark.parametrize(("found", "included"), PORTAINER.values(), ids=PORTAINER)
def test_portainer_is_included_where_its_image_is_to_be_had(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], included: bool
) -> None:
    for name, value in found.items():
        monkeypatch.setitem(FOUND, name, value)
    names = ["stack_portainer_included", "stack_published_ports"]
    values = inventory.compute(names, {"portainer_image": f"docker.io/{IMAGE}"})
    assert values["stack_portainer_included"] is included
    ports = [port["variable"] for port in values["stack_published_ports"]]
    assert ("portainer_port" in ports) is included


def test_secrets_may_lie_in_a_directory_with_a_blank(inventory: Inventory) -> None:
    """Issue line C, "INVENTORY with a blank in make"."""
    assert inventory.refusals({"stack_secrets_dir": "/srv/my inventories/prod/secrets"}) == []
