"""Lookup of ports that a deployment cannot have, and of who has them."""

from __future__ import annotations

from typing import Any

from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: port_conflicts
short_description: Ports that are taken on a host, and by whom
options:
  _terms:
    description:
      - Ports that are wanted, each with C(variable), C(address), C(port) and C(container).
      - C(given_up_by) names containers that give it up before that one wants it.
    required: true
    type: list
    elements: dict
  host:
    description: Name of the host, for the messages.
    required: true
    type: str
  containers:
    description: All containers, as the engine lists them, by name.
    type: dict
    default: {}
  listeners:
    description: What C(community.general.listen_ports_facts) reports of TCP.
    type: list
    elements: dict
    default: []
author: mlflow-stack contributors
"""

EXAMPLES = """
- ansible.builtin.debug:
    msg: "{{ query('port_conflicts', *stack_published_ports, host=inventory_hostname, containers=docker_containers) }}"
"""

RETURN = """
_raw:
  description: A sentence for each port that is taken.
  type: list
  elements: str
"""

ANY = ("0.0.0.0", "::", "*", "")  # noqa: S104 (to compare with)
PROJECT = "com.docker.compose.project"

Json = dict[str, Any]


def overlap(one: str, other: str) -> bool:
    """Whether two addresses to listen on exclude each other."""
    return one == other or one in ANY or other in ANY


def publishes(container: Json, wanted: Json) -> bool:
    """Whether a container has published the port on that address."""
    return any(
        published.get("PublicPort") == int(wanted["port"]) and overlap(published.get("IP", ""), wanted["address"])
        for published in container.get("Ports", [])
    )


def holder(wanted: Json, containers: dict[str, Json], listeners: list[Json]) -> str:
    """Who has the port; empty where nobody has, the very container that shall have it, or one that gives it up."""
    fine = (wanted["container"], *wanted.get("given_up_by", []))
    if any(publishes(containers.get(name, {}), wanted) for name in fine):
        return ""
    for name, container in containers.items():
        if publishes(container, wanted):
            owner = (container.get("Labels") or {}).get(PROJECT)
            return f"the container {name}" + (f" of {owner}" if owner else "")
    for listener in listeners:
        if int(listener["port"]) == int(wanted["port"]) and overlap(listener["address"], wanted["address"]):
            program = listener.get("name")
            return f"{program} (process {listener['pid']})" if program else "another program"
    return ""


def refusal(wanted: Json, host: str, who: str) -> str:
    """What the operator reads."""
    return (
        f"Port {wanted['port']} on {host} ({wanted['variable']}) is taken by {who}: set {wanted['variable']} to a free "
        f"port, or stop what listens there (ss -ltnp 'sport = :{wanted['port']}')."
    )


class LookupModule(LookupBase):  # type: ignore[misc]
    """A sentence for each port that is taken."""

    def run(self, terms: list[Json], variables: Json | None = None, **kwargs: object) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        containers, listeners = self.get_option("containers"), self.get_option("listeners")
        return [
            refusal(wanted, self.get_option("host"), who)
            for wanted in terms
            if (who := holder(wanted, containers, listeners))
        ]
