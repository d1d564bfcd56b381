#!/usr/bin/python
"""Ansible module: what MLflow's model registry says of one registered model."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mlflow_model_info
short_description: Look up a registered model of MLflow and the version that an alias points to
description:
  - Reads only. A registered model or an alias that does not exist is no error.
  - Takes one request, another one if the alias points to a version that is not the newest, and one for
    O(version_tags).
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
    description: User of the tracking server, if it asks for one.
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
  name:
    description: Name of the registered model.
    type: str
    required: true
  alias:
    description: Alias whose version is looked up.
    type: str
  version_tags:
    description: Tags, with their values, of the versions that RV(tagged_versions) lists.
    type: dict
    default: {}
seealso:
  - module: mlflow_model
"""

EXAMPLES = r"""
- name: Look up the champion
  mlflow_model_info:
    tracking_uri: http://127.0.0.1:5000
    username: admin
    password: "{{ mlflow_admin_password }}"
    name: wine-quality
    alias: champion
  register: champion

- name: Say which version it is
  ansible.builtin.debug:
    msg: "{{ champion.version | default('none yet', true) }}"
"""

RETURN = r"""
exists:
  description: Whether there is a registered model of that name.
  returned: success
  type: bool
  sample: true
aliases:
  description: The model's aliases and the versions that they point to.
  returned: success
  type: dict
  sample: {"champion": 3, "challenger": 4}
latest_version:
  description: The newest version. Null if there is none.
  returned: success
  type: int
  sample: 4
version:
  description: The version that O(alias) points to. Null if there is no such alias, or none is asked for.
  returned: success
  type: int
  sample: 3
source:
  description: URI that this version was registered from. Null if RV(version) is.
  returned: success
  type: str
  sample: models:/m-5228868a637944ab9492a1d6236d3ee8
run_id:
  description: The run that made this version. Null if none did, or if RV(version) is.
  returned: success
  type: str
  sample: 4517d7ac45774255ae079c34a3a7d9dd
tags:
  description: Tags of this version. Empty if RV(version) is null.
  returned: success
  type: dict
  sample: {"mlflow_model.digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}
tagged_versions:
  description: The versions that have all of O(version_tags), the newest first. Empty if none are asked for.
  returned: success
  type: list
  elements: int
  sample: [3, 1]
"""

from collections.abc import Mapping
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
    "name": {"type": "str", "required": True},
    "alias": {"type": "str"},
    "version_tags": {"type": "dict", "default": {}},
}


def look_up(mlflow: Mlflow, name: str, alias: str | None, version_tags: Mapping[str, str]) -> dict[str, Any]:
    """What the module returns. Raises MlflowError."""
    model = mlflow.registered_model(name)
    return {
        "exists": model is not None,
        "aliases": dict(model.aliases) if model else {},
        "latest_version": model.latest.version if model and model.latest else None,
        **mlflow.aliased(model, alias),
        "tagged_versions": [tagged.version for tagged in mlflow.versions(name, tags=version_tags)]
        if version_tags
        else [],
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS, required_together=CONNECTION_REQUIRED_TOGETHER, supports_check_mode=True
    )
    try:
        names = ("name", "alias", "version_tags")
        module.exit_json(**look_up(Mlflow.of(module.params), *(module.params[name] for name in names)))
    except ParameterError as error:
        module.fail_json(msg=str(error))
    except MlflowError as error:
        module.fail_json(msg=str(error), url=error.url, status=error.status, error_code=error.error_code)


if __name__ == "__main__":
    main()
