#!/usr/bin/python
"""Ansible module: what people may have changed on an MLflow server since the last deployment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mlflow_info
short_description: Ask an MLflow server which passwords hold, and which versions aliases point to
description:
  - Reads only. One look at all that a deployment asks, so that a run that changes nothing asks little more.
version_added: "1.0.0"
requirements:
  - python >= 3.10
author:
  - mlflow-stack contributors
extends_documentation_fragment:
  - action_common_attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
  platform:
    platforms: posix
options:
  tracking_uri:
    description:
      - URL of the tracking server, C(http://) or C(https://), without credentials.
      - An HTTP proxy of the environment is used for it, unless it is a loopback address.
    type: str
    required: true
  username:
    description: User of the tracking server who looks up O(aliases).
    type: str
  password:
    description: Password of O(username).
    type: str
  ca_path:
    description: PEM file, on the target, with the authorities to trust instead of those of the target.
    type: path
  validate_certs:
    description: Whether certificates of servers are verified.
    type: bool
    default: true
  timeout:
    description: Seconds that one request may take until a server answers, and for which one that failed is sent again.
    type: float
    default: 30.0
  logins:
    description: Accounts to try.
    type: list
    elements: dict
    default: []
    suboptions:
      username:
        description: Name of the account.
        type: str
        required: true
      password:
        description: Its password.
        type: str
        required: true
  aliases:
    description: Aliases to look up, each with the name of the registered model before it.
    type: list
    elements: list
    default: []
seealso:
  - module: mlflow_model_info
"""

EXAMPLES = r"""
- name: Ask which passwords hold, and which version is the champion
  mlflow_info:
    tracking_uri: http://127.0.0.1:5000
    username: serving
    password: "{{ serving_mlflow_password }}"
    logins:
      - {username: jupyter, password: "{{ jupyter_mlflow_password }}"}
    aliases:
      - [wine-quality, champion]
"""

RETURN = r"""
refused:
  description: The users of O(logins), and O(username) if it was needed, whose password does not hold.
  returned: success
  type: list
  elements: str
  sample: [jupyter]
aliases:
  description:
    - Of each of O(aliases) the C(model), the C(alias), and the version that it points to, as M(mlflow_model_info)
      returns it, C(version), C(source), C(run_id) and C(tags). Null where the server refuses one of these questions.
  returned: success
  type: list
  elements: dict
  sample:
    - model: wine-quality
      alias: champion
      version: 3
      source: models:/m-5228868a637944ab9492a1d6236d3ee8
      run_id: 4517d7ac45774255ae079c34a3a7d9dd
      tags: {}
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from mlflow_api import CONNECTION_ARGUMENTS, CONNECTION_REQUIRED_TOGETHER, Mlflow, MlflowError, ParameterError
else:
    from ansible.module_utils.mlflow_api import (
        CONNECTION_ARGUMENTS,
        CONNECTION_REQUIRED_TOGETHER,
        Mlflow,
        MlflowError,
        ParameterError,
    )

ARGUMENTS: dict[str, dict[str, Any]] = {
    **CONNECTION_ARGUMENTS,
    "logins": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "username": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
        },
    },
    "aliases": {"type": "list", "elements": "list", "default": []},
}


def refuses(mlflow: Mlflow, username: str, password: str) -> bool:
    """Whether the server says that this password is wrong. Raises MlflowError where it says nothing."""
    try:
        Mlflow(mlflow.base, replace(mlflow.http, username=username, password=password)).ask_version()
    except MlflowError as error:
        if error.status is None:
            raise
        return error.status == HTTPStatus.UNAUTHORIZED
    return False


def look_up(mlflow: Mlflow, aliases: Sequence[Sequence[str]]) -> tuple[list[dict[str, Any]] | None, bool]:
    """Each model and alias with its version, and whether our password is wrong. Raises MlflowError as `refuses`."""
    try:
        return [
            {"model": model, "alias": alias, **mlflow.aliased(mlflow.registered_model(model), alias)}
            for model, alias in aliases
        ], False
    except MlflowError as error:
        if error.status is None:
            raise
        return None, error.status == HTTPStatus.UNAUTHORIZED


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS, required_together=CONNECTION_REQUIRED_TOGETHER, supports_check_mode=True
    )
    logins = [(login["username"], login["password"]) for login in module.params["logins"]]
    try:
        mlflow = Mlflow.of(module.params)
        # Side by side: a server takes its time to check a password.
        with ThreadPoolExecutor() as pool:
            answers = pool.map(lambda login: refuses(mlflow, *login), logins)
            aliases, refused_to_us = look_up(mlflow, module.params["aliases"])
            refused = [username for (username, _), answer in zip(logins, answers, strict=True) if answer]
        if refused_to_us:
            refused.append(module.params["username"])
        module.exit_json(refused=refused, aliases=aliases)
    except ParameterError as error:
        module.fail_json(msg=str(error))
    except MlflowError as error:
        module.fail_json(msg=str(error), url=error.url, status=error.status, error_code=error.error_code)


if __name__ == "__main__":
    main()
