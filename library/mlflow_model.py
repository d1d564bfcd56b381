#!/usr/bin/python
"""Ansible module: the desired state of one registered model of MLflow."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mlflow_model
short_description: Register, prove and promote a model in MLflow's model registry
description:
  - Describes the desired state of one registered model, of one of its versions, and of one alias.
  - "Promotes after proof: O(source) is registered as a version, the version is tested through the endpoint that
    serves it, and only then O(alias) moves to it. A test that fails leaves the alias where it was and fails the task,
    with the rows that differ."
  - A version is registered for its content, not for its origin. The module keeps a digest of the model's files in the
    version's tag C(mlflow_model.digest), so that the same model, trained again by another run, is the version that it
    was. What every training changes does not count, such as the run's id and the time in the file C(MLmodel), and the
    memory addresses and times in a file of skops.
  - Talks to MLflow 3 by its REST API and needs no library on the target. Requests that fail for a reason that may pass
    (status 429 or 5xx, connection refused) are sent again until O(timeout) is over.
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
    details:
      - The smoke test reads only, so it runs too if the version exists already and the endpoint answers.
        If there is nothing to ask yet, RV(smoke_test.passed) is null and the module predicts that it will pass.
  diff_mode:
    support: full
  idempotent:
    description: When run twice in a row without outside intervention, the second run changes nothing.
    support: full
  platform:
    platforms: posix
options:
  tracking_uri:
    description:
      - URL of the tracking server, C(http://) or C(https://), without credentials.
      - An HTTP proxy of the environment is used for it, unless it is a private address.
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
    description: Name of the registered model. It is created if it is missing.
    type: str
    required: true
  state:
    description:
      - V(present) makes what the other options describe.
      - V(absent) with O(alias) removes that alias and nothing else.
      - V(absent) with O(version) deletes that version. It fails as long as an alias points to the version.
      - V(absent) with neither deletes the registered model with all its versions. It fails as long as it has an alias.
      - Runs, and the files of models, are never deleted.
    type: str
    choices: [present, absent]
    default: present
  description:
    description: Description of the registered model. Left as it is if not given.
    type: str
  tags:
    description:
      - Tags of the registered model. A value that is no string is kept as its JSON, null removes the tag.
        Tags that are not listed are left alone.
    type: dict
    default: {}
  version_tags:
    description:
      - Tags of the version, in the same way as O(tags).
      - They are set last, once the version has passed its smoke test and O(alias) has moved.
    type: dict
    default: {}
  source:
    description:
      - "The model to register: C(runs:/RUN_ID/PATH), C(models:/m-ID), C(models:/NAME/VERSION), C(models:/NAME@ALIAS),
        or a directory on the target that holds a file C(MLmodel)."
      - A directory is uploaded, unless the registered model has a version of that content.
      - Without it and without O(version), the version is the one that O(alias) points to.
    type: str
  experiment:
    description: Experiment to upload a directory to. It is created if it is missing. O(name) if not given.
    type: str
  version:
    description: A version that exists.
    type: int
  alias:
    description: Alias that shall point to the version, for instance V(champion).
    type: str
  smoke_test:
    description:
      - A test that the version has to pass before O(alias) moves to it.
      - It runs each time, also if the alias points to the version already.
      - A sample, an input example and each answer is at most 16 MiB.
      - The endpoint has to serve the version in question; the module cannot see which one it serves.
    type: dict
    suboptions:
      endpoint:
        description:
          - URL to post the inputs to, the C(/invocations) of C(mlflow models serve). It must answer within O(timeout).
          - Without it nothing is asked, but what would be is looked up and must be there. No O(alias) moves then.
        type: str
      token:
        description: Token that the endpoint asks for, sent as a bearer token (RFC 6750).
        type: str
      inputs:
        description:
          - Rows to predict.
          - A list (of rows, or of dictionaries from columns to values), and a dictionary from columns to lists of
            values, are sent as C(inputs) of MLflow's scoring protocol.
          - A dictionary with C(columns) and C(data) is sent as C(dataframe_split).
          - A dictionary with one of the protocol's own keys (C(inputs), C(instances), C(dataframe_split),
            C(dataframe_records)) is sent as it is.
        type: raw
      expected:
        description: The predictions that are expected, one for each row.
        type: list
        elements: raw
      sample:
        description:
          - Path of a JSON artifact of the run that made the version, with the keys C(inputs) and C(expected).
          - Replaces O(smoke_test.inputs) and O(smoke_test.expected), and is replaced by those that O(smoke_test.keep)
            has kept with the version.
        type: str
      input_example:
        description:
          - Controls whether a version whose run has no O(smoke_test.sample) is tested with the input example that its
            model was logged with. That has to be answered with status 200, as nobody knows what to expect.
        type: bool
        default: false
      keep:
        description:
          - Whether O(smoke_test.inputs) and O(smoke_test.expected) are kept in the version's tag
            C(mlflow_model.smoke_test) once they have passed, before O(alias) moves, so that a later test can take them
            from there. MLflow takes 100,000 characters.
        type: bool
        default: false
      tolerance:
        description: Largest absolute difference between a number and the one that is expected. NaN is never accepted.
        type: float
        default: 0.000001
      max_latency_ms:
        description:
          - Longest time of an answer in milliseconds, the best of three after a first one that warms up.
          - No limit if not given.
        type: float
      wait:
        description: Seconds to wait until the endpoint answers.
        type: float
        default: 0.0
seealso:
  - module: mlflow_model_info
  - name: MLflow model registry
    description: What versions, aliases and tags are.
    link: https://mlflow.org/docs/latest/ml/model-registry/
"""

EXAMPLES = r"""
- name: Register the model of a run
  mlflow_model:
    tracking_uri: http://127.0.0.1:5000
    username: admin
    password: "{{ mlflow_admin_password }}"
    name: wine-quality
    description: Predicts the quality of a wine from its chemistry.
    source: runs:/0a1b2c3d4e5f60718293a4b5c6d7e8f9/wine-quality
    version_tags:
      git_commit: 4f2a9c1
  register: candidate

- name: Promote the version once it has proved itself
  mlflow_model:
    tracking_uri: http://127.0.0.1:5000
    username: admin
    password: "{{ mlflow_admin_password }}"
    name: wine-quality
    version: "{{ candidate.version }}"
    alias: champion
    smoke_test:
      endpoint: http://127.0.0.1:5002/invocations
      sample: smoke_test.json
      max_latency_ms: 500
      wait: 60

- name: Upload a model from a directory, test it with rows of one's own, promote it
  mlflow_model:
    tracking_uri: https://mlflow.example.com
    ca_path: /etc/ssl/example-ca.pem
    name: wine-quality
    source: /srv/models/wine-quality
    alias: challenger
    smoke_test:
      endpoint: http://127.0.0.1:5003/invocations
      inputs:
        columns: [alcohol, sulphates]
        data:
          - [9.4, 0.56]
          - [12.8, 0.75]
      expected: [5.03, 6.41]
      tolerance: 0.01

- name: Remove an alias
  mlflow_model:
    tracking_uri: http://127.0.0.1:5000
    name: wine-quality
    alias: challenger
    state: absent
"""

RETURN = r"""
name:
  description: Name of the registered model.
  returned: always
  type: str
  sample: wine-quality
version:
  description: The version in question. Null if none is described, and in check mode if it would be registered.
  returned: when O(state=present)
  type: int
  sample: 3
created:
  description: Whether the version was registered by this task, or would be in check mode.
  returned: when O(state=present)
  type: bool
  sample: true
source:
  description: URI that the version was registered from.
  returned: when O(state=present)
  type: str
  sample: models:/m-5228868a637944ab9492a1d6236d3ee8
run_id:
  description: The run that made the version. Null if none did.
  returned: when O(state=present)
  type: str
  sample: 4517d7ac45774255ae079c34a3a7d9dd
tags:
  description: Tags of the version.
  returned: when O(state=present)
  type: dict
  sample: {"mlflow_model.digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}
alias:
  description: The alias of O(alias).
  returned: always
  type: str
  sample: champion
previous_version:
  description: The version that the alias pointed to before. Null if there was no such alias.
  returned: always
  type: int
  sample: 2
smoke_test:
  description: Outcome of the smoke test. Null if none is described.
  returned: when O(state=present)
  type: dict
  contains:
    passed:
      description: Null if nothing was asked, as without an endpoint, and in check mode if there was nothing to ask.
      type: bool
      sample: true
    rows:
      description: Number of predictions that were compared; 0 for an input example.
      type: int
      sample: 5
    max_difference:
      description: Largest absolute difference to the expected numbers. Null if what was predicted cannot be compared.
      type: float
      sample: 0.0
    latency_ms:
      description: Time of an answer in milliseconds, the best of three. Null if the predictions were wrong already.
      type: float
      sample: 3.6
    problems:
      description: What is wrong, one sentence each.
      type: list
      elements: str
      sample: ["row 2: expected 5.0, got 6.1, difference 1.1 (tolerance 1e-06)"]
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from mlflow_api import (
        CONNECTION_ARGUMENTS,
        CONNECTION_REQUIRED_TOGETHER,
        Http,
        Mlflow,
        MlflowError,
        ModelVersion,
        ParameterError,
        RegisteredModel,
    )
    from model_digest import MODEL_FILE, content_digest, directory_files, remote_files
    from smoke_test import LARGEST, Proof, Rows, SmokeTest, run_smoke_test
else:
    from ansible.module_utils.mlflow_api import (
        CONNECTION_ARGUMENTS,
        CONNECTION_REQUIRED_TOGETHER,
        Http,
        Mlflow,
        MlflowError,
        ModelVersion,
        ParameterError,
        RegisteredModel,
    )
    from ansible.module_utils.model_digest import MODEL_FILE, content_digest, directory_files, remote_files
    from ansible.module_utils.smoke_test import LARGEST, Proof, Rows, SmokeTest, run_smoke_test

DIGEST_TAG = "mlflow_model.digest"
SMOKE_TEST_TAG = "mlflow_model.smoke_test"
LONGEST_TAG = 100_000  # characters of a value that MLflow takes
INPUT_EXAMPLE_FILE = "serving_input_example.json"  # a whole request, which MLflow keeps beside the model
NEW = "new"  # stands for the number of a version in a diff of check mode
GATEWAY_STATUSES = frozenset({502, 503, 504})  # what a proxy answers while the endpoint behind it starts


class SmokeTestError(Exception):
    """Carries what the module returns in spite of it."""

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result


# The state of the model


@dataclass
class Differences:
    """What the task changes: it feeds both `changed` and `diff`."""

    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)

    def record(self, what: str, before: object, after: object) -> bool:
        """Returns whether they differ."""
        if before == after:
            return False
        self.before[what], self.after[what] = before, after
        return True

    def as_result(self) -> dict[str, Any]:
        return {"changed": bool(self.after), "diff": {"before": self.before, "after": self.after}}


@dataclass(frozen=True)
class Source:
    """A model to register.

    files: opens its files, in the shape that content_digest takes; uri: what a version refers to, None for a directory,
    which has to be uploaded first; version: set if the model is a registered one already.
    """

    files: Callable[[], Iterable[tuple[str, IO[bytes]]]]
    uri: str | None = None
    run_id: str | None = None
    model_id: str | None = None
    version: ModelVersion | None = None


def tag_values(tags: Mapping[str, Any]) -> dict[str, str | None]:
    """The options tags and version_tags as MLflow keeps them: text; None for a tag that shall not be."""
    return {
        key: value if value is None or isinstance(value, str) else json.dumps(value, sort_keys=True)
        for key, value in tags.items()
    }


def tag_changes(current: Mapping[str, str], wanted: Mapping[str, str | None]) -> dict[str, str | None]:
    """The wanted tags that are different now."""
    return {key: value for key, value in wanted.items() if current.get(key) != value}


def kept_test(option: Mapping[str, Any] | None) -> dict[str, str | None]:
    """The tag that keeps the test, if it shall be kept. Raises ParameterError if MLflow cannot keep it."""
    if not option or not option["keep"]:
        return {}
    text = json.dumps({"inputs": option["inputs"], "expected": option["expected"]})
    if len(text) > LONGEST_TAG:
        raise ParameterError(
            f"smoke_test.inputs and smoke_test.expected have {len(text)} characters as JSON, and MLflow keeps "
            f"{LONGEST_TAG}: give fewer rows, or log them with the version's run"
        )
    return {SMOKE_TEST_TAG: text}


def rows_of(sample: str | bytes, where: str) -> Rows:
    """Rows and their predictions from their JSON. Raises ParameterError, which begins with where they stand."""
    try:
        content = json.loads(sample)
        return Rows.of(content["inputs"], content["expected"], where)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ParameterError(f"{where} is not a JSON object with the keys inputs and expected") from error


class ModelTask:
    """The task: compares the parameters with the registry, changes what differs, returns what the module returns."""

    def __init__(self, module: AnsibleModule) -> None:
        """Reads the registered model. Raises MlflowError, and ParameterError if the parameters cannot be."""
        parameters = module.params
        self.check_mode: bool = module.check_mode
        self.warn = module.warn
        self.differences = Differences()

        self.name: str = parameters["name"]
        self.state: str = parameters["state"]
        self.description: str | None = parameters["description"]
        self.tags = tag_values(parameters["tags"])
        self.version_tags = tag_values(parameters["version_tags"])
        self.source: str | None = parameters["source"]
        self.experiment: str = parameters["experiment"] or self.name
        self.version: int | None = parameters["version"]
        self.alias: str | None = parameters["alias"]
        for option in ("name", "alias", "source", "version"):
            if parameters[option] in ("", 0):
                raise ParameterError(f"{option} is {parameters[option]!r}; give it a value or leave it out")
        self.smoke_test = SmokeTest.of(parameters["smoke_test"]) if parameters["smoke_test"] else None
        if self.smoke_test and self.smoke_test.endpoint is None and (self.alias or self.version_tags):
            raise ParameterError(
                "smoke_test has no endpoint, so that nothing is proved: give it one, or leave alias and version_tags "
                "out"
            )
        self.kept_test = kept_test(parameters["smoke_test"])
        self.endpoint = Http(
            timeout=parameters["timeout"],
            patience=self.smoke_test.wait if self.smoke_test and not self.check_mode else 0,
            token=self.smoke_test.token if self.smoke_test else None,
            ca_path=parameters["ca_path"],
            validate_certs=parameters["validate_certs"],
            distrusts=True,
            transient=GATEWAY_STATUSES,
        )

        self.mlflow = Mlflow.of(parameters)
        registered = self.mlflow.registered_model(self.name)
        self.exists = registered is not None
        self.model = registered or RegisteredModel(self.name, description="", tags={}, aliases={}, latest=None)
        self.previous = self.model.aliases.get(self.alias) if self.alias else None

    def run(self) -> dict[str, Any]:
        """Raises MlflowError, ParameterError, SmokeTestError."""
        if self.state == "present":
            return self._ensure_present()
        self._ensure_absent()
        return self._result()

    def _result(self, **details: object) -> dict[str, Any]:
        identity = {"name": self.name, "alias": self.alias, "previous_version": self.previous}
        return identity | details | self.differences.as_result()

    # state: absent

    def _ensure_absent(self) -> None:
        if self.alias and self.version:
            raise ParameterError("alias and version are both given; with state: absent, give the one that shall go")
        if self.alias:
            change = self.differences.record("alias", {self.alias: self.previous}, {self.alias: None})
            if change and not self.check_mode:
                self.mlflow.delete_alias(self.name, self.alias)
        elif self.version:
            self._remove_version(self.version)
        else:
            self._remove_model()

    def _remove_model(self) -> None:
        if self.model.aliases:
            aliases = ", ".join(map(repr, sorted(self.model.aliases)))
            raise ParameterError(f"{self.name!r} is in use by the alias {aliases}; remove the alias first")
        change = self.differences.record("registered_model", self.name if self.exists else None, None)
        if change and not self.check_mode:
            self.mlflow.delete_registered_model(self.name)

    def _remove_version(self, number: int) -> None:
        aliases = sorted(alias for alias, version in self.model.aliases.items() if version == number)
        if aliases:
            raise ParameterError(
                f"version {number} of {self.name!r} is in use by the alias {', '.join(map(repr, aliases))}; "
                "move or remove the alias first"
            )
        present = self.exists and self.mlflow.version(self.name, number)
        change = self.differences.record("version", number if present else None, None)
        if change and not self.check_mode:
            self.mlflow.delete_version(self.name, number)

    # state: present

    def _ensure_present(self) -> dict[str, Any]:
        source = self._resolve(self.source) if self.source else None
        version, identity = self._recognise(source) if source else (self._described_version(), {})
        created = source is not None and version is None
        self._ensure_model()
        if version is not None:
            version = self._ensure_version_tags(version, identity)
        elif source is not None:
            version = self._register(source, identity)
        proof = self._prove(version, self.smoke_test) if self.smoke_test else None
        details = {"created": created, "smoke_test": proof and proof.as_result()}
        if version and self.smoke_test and proof and proof.problems:
            raise SmokeTestError(
                self._failure(version, self.smoke_test, proof), self._result(**details, **_described(version))
            )
        if version and self.kept_test and self.smoke_test and self.smoke_test.endpoint:
            version = self._ensure_version_tags(version, self.kept_test)
        if self.alias:
            self._ensure_alias(self.alias, version)
        # Last, as they say that all this is done: a task that was interrupted before finds them missing.
        if version is not None:
            version = self._ensure_version_tags(version, self.version_tags)
        elif source is not None:
            self._record_tags("version_tags", {}, self.version_tags)
        return self._result(**details, **_described(version))

    def _described_version(self) -> ModelVersion | None:
        """The version that the option version or alias names, None if neither does."""
        if self.alias and self.version is None and self.previous is None:
            raise ParameterError(
                f"{self.name!r} has no alias {self.alias!r} yet; say by source or version what it shall point to"
            )
        number = self.previous if self.version is None else self.version
        if number is None:
            if self.version_tags or self.smoke_test:
                raise ParameterError("version_tags and smoke_test are about a version; give source, version or alias")
            return None
        version = self.mlflow.version(self.name, number)
        if version is None:
            latest = self.model.latest
            found = f"its latest is {latest.version}" if latest else "it has none"
            raise ParameterError(f"{self.name!r} has no version {number}; {found}")
        return version

    def _resolve(self, source: str) -> Source:
        """Raises ParameterError if there is no such model."""
        if match := re.fullmatch(r"runs:/([^/]+)/(.+?)/?", source):
            return self._model_of_run(match[1], match[2])
        if match := re.fullmatch(r"models:/(m-[^/@]+)", source):
            return self._logged_model(match[1])
        if match := re.fullmatch(r"models:/([^/@]+)(?:/(\d+)|@(.+))", source):
            return self._registered_version(source, match[1], match[2], match[3])
        directory = Path(source)
        if (directory / MODEL_FILE).is_file():
            return Source(files=lambda: directory_files(directory))
        raise ParameterError(
            f"source is {source!r}; expected runs:/RUN_ID/PATH, models:/m-ID, models:/NAME/VERSION, "
            f"models:/NAME@ALIAS, or a directory of the target with a file {MODEL_FILE}"
        )

    def _logged_model(self, model_id: str) -> Source:
        return Source(
            files=lambda: remote_files(self.mlflow, self.mlflow.logged_model(model_id).artifact_uri),
            uri=f"models:/{model_id}",
            model_id=model_id,
        )

    def _model_of_run(self, run_id: str, path: str) -> Source:
        run = self.mlflow.run(run_id)
        # Of two models of one name the later one counts.
        models = {model.name: model.model_id for model in map(self.mlflow.logged_model, run.model_ids)}
        if path in models:
            return self._logged_model(models[path])
        uri = f"{run.artifact_uri}/{path}"
        if MODEL_FILE in self.mlflow.files(uri):
            return Source(files=lambda: remote_files(self.mlflow, uri), uri=uri, run_id=run_id)
        logged = ", ".join(sorted(models)) or "none"
        raise ParameterError(f"source: run {run_id} has no model {path!r}; the models that it logged: {logged}")

    def _registered_version(self, source: str, name: str, number: str | None, alias: str | None) -> Source:
        model = self.mlflow.registered_model(name)
        wanted = int(number) if number else model and model.aliases.get(alias or "")
        version = self.mlflow.version(name, wanted) if wanted else None
        if version is None:
            raise ParameterError(f"source: there is no {source}")
        return Source(
            files=lambda: remote_files(self.mlflow, self.mlflow.version_location(name, version.version)),
            uri=f"models:/{name}/{version.version}",
            version=version,
        )

    def _recognise(self, source: Source) -> tuple[ModelVersion | None, dict[str, str | None]]:
        """The newest version with the content of the source, if there is one, and the tag that says what it holds.

        A version refers to files, so that one from the same place has the same content: a digest is calculated only
        for a new place, and for a version that was registered by other means.
        """
        if source.version and source.version.name == self.name:
            same = [source.version]
        else:
            same = self.mlflow.versions(self.name, source=source.uri) if source.uri else []
        if same:
            digest = same[0].tags.get(DIGEST_TAG) or content_digest(source.files())
        else:
            digest = content_digest(source.files())
            same = self.mlflow.versions(self.name, tags={DIGEST_TAG: digest})
        return (same[0] if same else None), {DIGEST_TAG: digest}

    def _ensure_model(self) -> None:
        change = self.differences.record("registered_model", self.name if self.exists else None, self.name)
        if change and not self.check_mode:
            self.mlflow.create_registered_model(self.name)
        if self.description is not None:
            change = self.differences.record("description", self.model.description, self.description)
            if change and not self.check_mode:
                self.mlflow.describe_registered_model(self.name, self.description)
        for key, value in self._record_tags("tags", self.model.tags, self.tags).items():
            if value is None:
                self.mlflow.delete_registered_model_tag(self.name, key)
            else:
                self.mlflow.set_registered_model_tag(self.name, key, value)

    def _ensure_version_tags(self, version: ModelVersion, tags: Mapping[str, str | None]) -> ModelVersion:
        changes = self._record_tags("version_tags", version.tags, tags)
        for key, value in changes.items():
            if value is None:
                self.mlflow.delete_version_tag(self.name, version.version, key)
            else:
                self.mlflow.set_version_tag(self.name, version.version, key, value)
        return replace(version, tags=_without_none({**version.tags, **changes}))

    def _record_tags(
        self, what: str, current: Mapping[str, str], wanted: Mapping[str, str | None]
    ) -> dict[str, str | None]:
        """The changes to make, none in check mode."""
        changes = tag_changes(current, wanted)
        if changes:
            before, after = self.differences.before.get(what, {}), self.differences.after.get(what, {})
            self.differences.record(what, before | {key: current.get(key) for key in changes}, after | changes)
        return {} if self.check_mode else changes

    def _register(self, source: Source, tags: Mapping[str, str | None]) -> ModelVersion | None:
        """Returns None in check mode."""
        self.differences.record("version_tags", {}, tags)
        if self.check_mode:
            self.differences.record("version", None, NEW)
            return None
        uri, model_id = (source.uri, source.model_id) if source.uri else self._upload(source)
        version = self.mlflow.create_version(self.name, uri, source.run_id, model_id, _without_none(tags))
        self.differences.record("version", None, version.version)
        return version

    def _upload(self, source: Source) -> tuple[str, str]:
        """Uploads the files of the source as a model of the tracking server; returns its URI and its id."""
        model = self.mlflow.create_logged_model(self.experiment, self.name)
        try:
            for path, content in source.files():
                self.mlflow.upload(model.artifact_uri, path, content)
        except Exception:
            with contextlib.suppress(MlflowError):  # what went wrong first is what counts
                self.mlflow.finish_logged_model(model.model_id, ready=False)
            raise
        self.mlflow.finish_logged_model(model.model_id, ready=True)
        return f"models:/{model.model_id}", model.model_id

    def _prove(self, version: ModelVersion | None, test: SmokeTest) -> Proof:
        if version is None:  # check mode: it would be registered first
            return Proof(ran=False)
        rows = self._sample(version, test.rows, test.input_example) if isinstance(test.rows, str) else test.rows
        if test.endpoint is None:
            return Proof(ran=False)
        try:
            return run_smoke_test(self.endpoint, test.endpoint, test, rows)
        except MlflowError as error:
            if self.check_mode and error.status is None:
                self.warn(f"The smoke test was left out, its endpoint does not answer: {error}")
                return Proof(ran=False)
            return Proof(problems=(error.answer,))

    def _sample(self, version: ModelVersion, path: str, input_example: bool) -> Rows:
        """Inputs and expected predictions, as they were kept with the version, or by its run; else its input example,
        if it may be."""
        number = f"version {version.version} of {self.name!r}"
        if SMOKE_TEST_TAG in version.tags:
            return rows_of(version.tags[SMOKE_TEST_TAG], f"smoke_test.sample: the tag {SMOKE_TEST_TAG} of {number}")
        if version.run_id is None:
            raise ParameterError(
                f"smoke_test.sample: {number} comes from no run; give smoke_test.inputs and smoke_test.expected"
            )
        run = self.mlflow.run(version.run_id)
        where = f"smoke_test.sample: {path!r} of run {run.run_id}"
        sample = self._read(run.artifact_uri, path)
        if sample is not None:
            return rows_of(sample, where)
        if not input_example:
            raise ParameterError(f"{where} does not exist")
        return self._input_example(version, f"{where} does not exist, and {number}")

    def _input_example(self, version: ModelVersion, where: str) -> Rows:
        """The request that was kept with the version's model; where: begins the message if there is none."""
        example = self._read(self.mlflow.version_location(self.name, version.version), INPUT_EXAMPLE_FILE)
        try:
            request = json.loads(example or b"null")
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            raise ParameterError(
                f"{where} has no input example either, so that there is nothing to test it with: give inputs and "
                "expected"
            )
        return Rows(request, expected=None)

    def _read(self, uri: str, path: str) -> bytes | None:
        """What an artifact holds; None if there is none."""
        try:
            return self.mlflow.read(uri, path, LARGEST)
        except MlflowError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def _failure(self, version: ModelVersion, test: SmokeTest, proof: Proof) -> str:
        outcome = f"Version {version.version} of {self.name!r} failed its smoke test at {test.endpoint}"
        message = f"{outcome}: {'; '.join(proof.problems)}."
        if not self.alias:
            return message
        left = f"still points to version {self.previous}" if self.previous else "was not set"
        return f"{message} The alias {self.alias!r} {left}."

    def _ensure_alias(self, alias: str, version: ModelVersion | None) -> None:
        number = version.version if version else NEW
        change = self.differences.record("alias", {alias: self.previous}, {alias: number})
        if change and version and not self.check_mode:
            self.mlflow.set_alias(self.name, alias, version.version)


def _described(version: ModelVersion | None) -> dict[str, Any]:
    """What the module returns of a version."""
    return {
        "version": version and version.version,
        "source": version and version.source,
        "run_id": version and version.run_id,
        "tags": version and dict(version.tags),
    }


def _without_none(tags: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if value is not None}


ARGUMENTS: dict[str, dict[str, Any]] = {
    **CONNECTION_ARGUMENTS,
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "description": {"type": "str"},
    "tags": {"type": "dict", "default": {}},
    "version_tags": {"type": "dict", "default": {}},
    "source": {"type": "str"},
    "experiment": {"type": "str"},
    "version": {"type": "int"},
    "alias": {"type": "str"},
    "smoke_test": {
        "type": "dict",
        "options": {
            "endpoint": {"type": "str"},
            "token": {"type": "str", "no_log": True},
            "inputs": {"type": "raw"},
            "expected": {"type": "list", "elements": "raw"},
            "sample": {"type": "str"},
            "input_example": {"type": "bool", "default": False},
            "keep": {"type": "bool", "default": False},
            "tolerance": {"type": "float", "default": 1e-6},
            "max_latency_ms": {"type": "float"},
            "wait": {"type": "float", "default": 0.0},
        },
        "required_one_of": [("inputs", "sample")],
        "required_together": [("inputs", "expected")],
        "mutually_exclusive": [("inputs", "sample"), ("expected", "sample")],
        "required_if": [("keep", True, ("inputs", "expected"))],
    },
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_together=CONNECTION_REQUIRED_TOGETHER,
        mutually_exclusive=[("source", "version")],
        supports_check_mode=True,
    )
    try:
        module.exit_json(**ModelTask(module).run())
    except SmokeTestError as failure:
        module.fail_json(msg=str(failure), **failure.result)
    except ParameterError as error:
        module.fail_json(msg=str(error))
    except MlflowError as error:
        module.fail_json(msg=str(error), url=error.url, status=error.status, error_code=error.error_code)


if __name__ == "__main__":
    main()
