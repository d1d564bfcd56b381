"""Action that looks at every setting of the platform before anything is changed, and names all that cannot work."""

from __future__ import annotations

import difflib
import ipaddress
import json
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cache
from itertools import chain, combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.vars.plugins import get_vars_from_inventory_sources

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

DOCUMENTATION = """
name: validate_settings
short_description: Refuse settings that cannot work
description:
  - Reads roles/*/meta/argument_specs.yml and playbooks/meta/argument_specs.yml, and checks each variable that they
    name, those that belong together, and that nothing else begins with a prefix of theirs.
  - Types are meant strictly. Ansible's own M(ansible.builtin.validate_argument_spec) converts what it is given
    (C("1,2") to a list, C("no") to a bool), but templates go on to see what was given. Only a number or boolean that is
    a variable of its own may be text, as the command line makes it; roles convert these where they use them.
  - Runs on the control node, needs no connection and generates no secret; fails once, with a sentence for each fault.
  - A sentence says which variable, what was found and what is expected; never the value of a variable with C(no_log).
author: mlflow-stack contributors
"""

EXAMPLES = """
- name: Check the settings
  validate_settings:
"""

ROOT = Path(__file__).resolve().parents[1]

Settings = Mapping[str, Any]
Option = Mapping[str, Any]

# ---------------------------------------------------------------------------------------------------------------------
# What values of one kind have to look like. Each kind says what is wrong with a value, in words that follow the
# variable's name, or None where nothing is.
# ---------------------------------------------------------------------------------------------------------------------

Kind = Callable[[Any], str | None]


def shown(value: object) -> str:
    """A value as the user would write it, short enough for a sentence."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def text(pattern: str, wanted: str, most: int = 255) -> Kind:
    """Text of at most so many characters that matches a regular expression as a whole."""
    expression = re.compile(pattern)

    def fault(value: str) -> str | None:
        if len(value) > most:
            return f"has {len(value)} characters and must not have more than {most}: it must be {wanted}"
        return None if expression.fullmatch(value) else f"is {shown(value)}: it must be {wanted}"

    return fault


def number(low: int, high: int, what: str = "a whole number") -> Kind:
    """A number within limits, given as such or in digits."""
    return lambda value: (
        None if low <= int(value) <= high else f"is {int(value)}: it must be {what} from {low} to {high}"
    )


def mebibytes(low: int) -> Kind:
    """Memory of a container, from what it needs to start; the upper end is one that Docker still takes."""
    return number(low, 4_194_304, "a number of MiB")


def password(least: int = 12, most: int = 256, *, ascii_only: bool = False) -> Kind:
    """A password that everything here can carry: a line of a file without a blank at its ends, a header, a form."""

    def fault(value: str) -> str | None:
        unseen = next((c for c in value if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")), None)
        if unseen is not None:
            return f"has a character that cannot be seen (U+{ord(unseen):04X}): take it out"
        if value != value.strip():
            return "begins or ends with a blank, which not all programs keep: take it away"
        if ascii_only and not value.isascii():
            return "has letters beyond ASCII, which MLflow refuses on its routes for artifacts: use others"
        if len(value) < least:
            return f"has {len(value)} characters and needs {least}: set a longer one"
        if len(value.encode()) > most:
            return f"has {len(value.encode())} bytes and must not have more than {most}: set a shorter one"
        return None

    return fault


def address(value: str) -> str | None:
    """An IPv4 address."""
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        return f"is {shown(value)}: it must be an IPv4 address, as 127.0.0.1 or 0.0.0.0"
    return None


def absolute(value: str) -> str | None:
    """A path in its normal form, whose characters need no quoting in the places where it ends up."""
    wanted = "it must be an absolute path of letters, digits and . _ - without empty or dotted parts"
    good = re.fullmatch(r"(/[\w.+@-]+)+", value, re.ASCII) and not {".", ".."} & set(value.split("/"))
    return None if good else f"is {shown(value)}: {wanted}"


def local_path(value: str) -> str | None:
    """A path on the control node."""
    good = Path(value).is_absolute() and is_line(value)
    return None if good else f"is {shown(value)}: it must be an absolute path on the control node"


def local_file(value: str) -> str | None:
    """A file on the control node."""
    if fault := local_path(value):
        return fault
    return None if Path(value).is_file() else f"is {shown(value)}, which is no file on the control node: set its path"


def local_directory(value: str) -> str | None:
    """A directory on the control node."""
    if fault := local_path(value):
        return fault
    try:
        if Path(value).is_dir():
            return None
    except OSError as error:
        return f"is {shown(value)}: it must be a directory on the control node ({error.strerror})"
    return f"is {shown(value)}, which is no directory on the control node: make it, or unset it"


# Directories of the file system itself: what lies right in the first may be anybody's; what lies anywhere below the
# others vanishes, or belongs to programs.
SHARED = ("/", "/home", "/var", "/usr", "/usr/local")
FOREIGN = (
    *("/bin", "/boot", "/dev", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys", "/var/run"),
    *("/tmp", "/var/tmp"),  # noqa: S108 (to refuse them)
    *("/etc/docker", "/etc/ssl", "/var/lib/docker"),
)


def own_directory(value: str) -> str | None:
    """A directory of the deployment's own on a host."""
    if fault := absolute(value):
        return fault
    if str(Path(value).parent) in SHARED or any(f"{value}/".startswith(f"{tree}/") for tree in FOREIGN):
        return f"is {value}: it must be a directory of the deployment's own, as /etc/mlflow-stack or /srv/mlflow/config"
    return None


def url(value: str) -> str | None:
    """A URL of HTTP, with nothing that a shell or a configuration file would read as its own."""
    wanted = "it must be a URL as http://host:3128 or https://host/path, without blanks and quotes"
    good = re.fullmatch(r"https?://[\w.~:/@%+,=-]+", value, re.ASCII) and port_of(value)
    return None if good else f"is {shown(value)}: {wanted}"


def port_of(value: str) -> bool:
    """Whether a URL has a host, and no port or a possible one."""
    try:
        parts = urlsplit(value)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def store(schemes: tuple[str, ...], example: str) -> Kind:
    """The URL of a store, without a password."""

    def fault(value: str) -> str | None:
        if not re.fullmatch(r"[\w.~:/@%+=?&-]+", value, re.ASCII) or not port_of(value):
            return f"is no URL: it must be one, as {example}"
        if urlsplit(value).password is not None:
            return "has a password in it: take it out, it has a variable of its own"
        if schemes and not value.startswith(schemes):
            return f"is {shown(value)}: it must be a URL as {example}"
        return None

    return fault


def pem(value: str) -> str | None:
    """Certificates or a key."""
    good = re.search(r"(?ams)^-----BEGIN [A-Z0-9 ]+-----\s*\n.*^-----END [A-Z0-9 ]+-----", value)
    return None if good else "is not in PEM form: it must be -----BEGIN …----- to -----END …-----, with its line breaks"


def certificates(value: str) -> str | None:
    """Certificates, and nothing else, as everybody may see them."""
    if "PRIVATE KEY" in value:
        return "has a private key in it, which is nobody's to see: it must have certificates alone"
    return pem(value)


def certificates_file(value: str) -> str | None:
    """A file of certificates on the control node."""
    return local_file(value) or read_as(value, certificates)


def pem_file(value: str) -> str | None:
    """A file of certificates or a key on the control node."""
    return local_file(value) or read_as(value, pem)


def read_as(path: str, kind: Callable[[str], str | None]) -> str | None:
    """What is wrong with what a file holds."""
    try:
        return kind(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        return f"is {shown(path)}, which cannot be read: {error}"


SETTING = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?")
POSTGRES_OWN = ("listen_addresses", "port", "data_directory", "config_file", "hba_file", "unix_socket_directories")


def postgres_settings(value: Settings) -> str | None:
    """Settings by name; whether PostgreSQL knows them, it is asked itself once its image is there."""
    for name, setting in value.items():
        if not SETTING.fullmatch(str(name)):
            return f"has {shown(name)}: it must have names of settings as in postgresql.conf, in lower case"
        if name in POSTGRES_OWN:
            return f"has {name}, which the deployment sets itself: take it out"
        if not isinstance(setting, str | int | float) or (isinstance(setting, str) and not is_line(setting)):
            return f"has {name} as {shown(setting)}: it must be text on one line, a number, true or false"
    return None


def is_line(value: str) -> bool:
    """Whether it is a line of text without control characters."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in value)


def environment(value: Settings) -> str | None:
    """Environment variables."""
    for name, setting in value.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(name)):
            return f"has {shown(name)}: names of environment variables have letters, digits and _, and no digit first"
        if not isinstance(setting, str):
            return f"has {name} as {shown(setting)}: it must be text, so put it in quotes"
        if not is_line(setting) or len(setting) > 30_000:
            return (
                f"has {name} as {shown(setting)}: it must be a line of at most 30000 characters, none of them invisible"
            )
    return None


def daemon_options(value: Settings) -> str | None:
    """Options of the engine, which judges all others itself."""
    root = value.get("data-root", "/var/lib/docker")
    if not isinstance(root, str) or absolute(root):
        return f"has data-root as {shown(root)}: it must be an absolute path, as /srv/docker"
    return None


def versions(value: Settings) -> str | None:
    """Distributions, each with a version in quotes."""
    for name, version in value.items():
        if not isinstance(version, str) or not re.fullmatch(r"\d+(\.\d+)*", version):
            return f"has {shown(version)} for {name}: it must be a version in quotes, as '12'"
    return None


def build(value: Settings) -> str | None:
    """How an image is built; empty where it is not ours."""
    unknown = [str(key) for key in value if key not in ("context", "additional_contexts", "args")]
    if unknown:
        return f"has {shown(unknown[0])}: it may have context, additional_contexts and args"
    contexts = [value.get("context"), *mapping_of(value, "additional_contexts").values()]
    for context in contexts if value else ():
        if not isinstance(context, str) or local_directory(context):
            return f"has {shown(context)} as a context: it must be a directory on the control node"
    for name, argument in mapping_of(value, "args").items():
        if not isinstance(argument, str) or not is_line(argument):
            return f"has {shown(argument)} as args.{name}: it must be text on one line"
    return None


def mapping_of(value: Settings, key: str) -> Settings:
    """A mapping in a mapping; what else may be there counts as one that is no good."""
    part = value.get(key, {})
    return part if isinstance(part, dict) else {key: None}


INVISIBLE = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff"
LINE = text(rf"(?! )[^{INVISIBLE}]+(?<! )", "one line without blanks at its ends and invisible characters")
MODEL = text(
    r"[\w]([\w .()+-]*[\w)+])?", "the name of a registered model, of letters, digits, blanks and _ . - + ( )", most=200
)
SERVICE = text(
    r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(?<!-candidate)(?<!-fetch)(?<!-previous)",
    "1 to 40 small letters, digits or -, not - first or last, and not ending in -candidate, -fetch or -previous",
    most=40,
)
ALIAS = text(
    r"(?!(?i:latest|v\d+)$)[A-Za-z0-9_-]{1,255}", "an alias of letters, digits, _ and -, and neither latest nor like v1"
)
CONTAINER = text(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", "the name of a container")
IMAGE = text(
    r"([a-z0-9.-]+(:\d+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?",
    "an image as docker.io/library/debian:13.8-slim",
)
ROLE = text(
    r"(?!pg_)(?!(postgres|public|none|template[01])$)[A-Za-z_][A-Za-z0-9_.-]{0,62}",
    "1 to 63 letters, digits, _ . or -, no digit first, and none of PostgreSQL's own (postgres, pg_…)",
)
ACCOUNT = text(
    r"(?! )[\x20-\x39\x3b-\x7e]+(?<! )", "an account's name in ASCII, without a colon and blanks at its ends"
)
MLFLOW_PASSWORD = password(ascii_only=True)
PERSON = text(r"[A-Za-z0-9]([A-Za-z0-9_.@-]{0,62}[A-Za-z0-9])?", "letters, digits, _ . @ and -, no sign first or last")
LABELS = r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
# Where the last part is a number, all of it is an address (URL Standard, 3.5), of four numbers here.
HOST = text(
    rf"(?!.*(^|\.)(\d+|0x[0-9a-f]*)$){LABELS}|((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(?!$)|$)){{4}}",
    "a host's name or address in small letters, without a port (xn--… for other letters)",
)
CLIENT = text(
    r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?", "1 to 64 letters, digits, _ . or -, no sign first or last"
)
TOKEN = text(r"[A-Za-z0-9._~+/-]{20,}=*", "20 or more letters, digits and . _ ~ + / -")

# The kinds by name, the first that matches; a variable that none matches gets the kind of its type.
KINDS: dict[str, Kind] = {
    "stack_name": text(
        r"[a-z0-9][a-z0-9_-]{0,39}", "1 to 40 small letters, digits, _ or -, with a letter or digit first"
    ),
    "container_project": text(r"[a-z0-9][a-z0-9_-]{0,39}", "what stack_name is"),
    "*_config_root": own_directory,
    "*_secrets_dir": local_path,
    "stack_other_variables": text(r"[A-Za-z_][A-Za-z0-9_]*", "the name of a variable"),
    "stack_minimum_*_mb": number(0, 1_000_000_000, "a number of MiB"),
    "stack_minimum_password_length": number(12, 32, "a number of characters"),
    "stack_distributions": versions,
    "portainer_admin_password": password(12, 72),
    "serving_models.name": SERVICE,
    "serving_models.model": MODEL,
    "serving_models.alias": ALIAS,
    "serving_max_request_mb": number(1, 1024, "a number of MiB"),
    "serving_models.port": number(1, 65535, "a port"),
    "mlflow_accounts.username": ACCOUNT,
    "mlflow_accounts.password": MLFLOW_PASSWORD,
    "mlflow_accounts.experiment": LINE,
    "mlflow_users.name": PERSON,
    "mlflow_users.password": MLFLOW_PASSWORD,
    "mlflow_admin_password": MLFLOW_PASSWORD,
    "*_mlflow_password": MLFLOW_PASSWORD,
    "example_model": SERVICE,
    "example_alias": ALIAS,
    "example_training_container": CONTAINER,
    "example_max_latency_ms": number(1, 600_000, "a number of milliseconds"),
    "example_endpoint": url,
    "*_port": number(1, 65535, "a port"),
    "ftp_passive_ports": number(1024, 65535, "a port"),
    "ftp_max_connections": number(8, 100_000),
    "ftp_user": text(
        r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", "1 to 64 letters, digits, _ . @ or -, with no sign first but _"
    ),
    "ftp_memory_mb": mebibytes(64),
    "ftp_certificate*": pem,
    "deployment_authority": pem,
    "ftp_advertised_address": address,
    "*_bind_address": address,
    "stack_public_name": HOST,
    "gateway_certificate": pem,
    "gateway_certificate_key": pem,
    "gateway_authority": certificates,
    "gateway_authority_file": certificates_file,
    "gateway_*_file": pem_file,
    "certbot_authority_file": certificates_file,
    "*_authority_file": absolute,
    "gateway_clients.name": CLIENT,
    "gateway_tokens.name": CLIENT,
    "gateway_clients.model": SERVICE,
    "gateway_tokens.model": SERVICE,
    "gateway_clients.token": TOKEN,
    "gateway_tokens.token": TOKEN,
    "certbot_email": text(r"[^@\s,]+@[^@\s,]+\.[^@\s,.]+", "an e-mail address"),
    "certbot_server": url,
    "certbot_memory_mb": mebibytes(64),
    "gateway_refused_logins": number(1, 10_000),
    "gateway_model_requests": number(1, 10_000),
    "gateway_max_connections": number(100, 8_000),  # two files each, of 20,000 that some hosts allow
    "gateway_memory_mb": mebibytes(64),
    "*_token": TOKEN,
    "postgres_user": ROLE,
    "postgres_database": ROLE,
    "postgres_settings": postgres_settings,
    "postgres_max_connections": number(20, 10_000),
    "postgres_memory_mb": mebibytes(128),
    "mlflow_backend_store_uri": store(
        ("postgresql://", "postgresql+"), "postgresql+psycopg2://mlflow@postgres:5432/mlflow"
    ),
    "mlflow_artifacts_destination": store((), "ftps://ftp:2121/"),
    "mlflow_artifacts_authority": pem,
    "mlflow_workers": number(1, 16),
    "mlflow_auth_cache_seconds": number(0, 86_400, "a number of seconds"),
    "mlflow_memory_mb": mebibytes(512),
    "mlflow_allowed_hosts": text(
        r"[a-z0-9*]([a-z0-9*._-]*[a-z0-9*])?|\[[0-9a-f:.]+\]",
        "a host's name or address in small letters, without a port, as browsers send it (xn--… for other letters)",
    ),
    "mlflow_cors_allowed_origins": text(
        r"\*|https?://[a-z0-9.*_-]+(:\d{1,5})?", "an origin as https://host or http://host:8080"
    ),
    "jupyter_experiment": LINE,
    "jupyter_start_page": text(
        r"(?!.*\.\.)[A-Za-z0-9_.-]([A-Za-z0-9_ ./-]*[A-Za-z0-9_.-])?",
        "a path below the user's home, as wine-quality/example.ipynb",
    ),
    "jupyter_examples_dir": local_directory,
    "jupyter_environment": environment,
    "jupyter_memory_mb": mebibytes(512),
    "serving_workers": number(1, 16),
    "serving_memory_mb": mebibytes(512),
    "portainer_memory_mb": mebibytes(64),
    "*_timeout": number(1, 86_400, "a number of seconds"),
    "image_registry": text(
        r"[a-z0-9][a-z0-9.-]*(:\d{1,5})?(/[a-z0-9][a-z0-9._-]*)*", "a registry as host[:port][/path]"
    ),
    "image_archives_dir": local_directory,
    "image_base_upstream": IMAGE,
    "docker_daemon_options": daemon_options,
    "docker_no_proxy": text(r"[A-Za-z0-9.,:*/_-]*", "hosts and domains separated by commas, without blanks", most=4000),
    "docker_registry_mirrors": url,
    "image_debian_*mirror": url,
    "*_proxy": url,
    "*_url": url,
    "*_image": IMAGE,
    "*_image_build": build,
    "*_user": ACCOUNT,
}
KINDS_OF_TYPES: dict[str, Kind] = {
    "str": LINE,
    "path": absolute,
    "int": number(1, 2_147_483_647),
    "bool": lambda _: None,
    "dict": lambda _: None,
}
# What roles hand to each other; nobody sets them.
HANDED_OVER = (
    "image_name",
    "image_build",
    "container_bridges",
    "container_candidate",
    "container_networks",
    "container_service",
    "container_definition",
    "container_files",
    "container_secrets",
    "certbot_certificate",
    "certbot_names",
    "certbot_shown_at",
    "deployment_outcome",
    "gateway_name",
    "gateway_urls",
    "gateway_certbot",
    "gateway_certbot_certificate",
    "gateway_mlflow_servers",
    "gateway_jupyter_servers",
    "gateway_portainer_servers",
    "gateway_models",
    "gateway_tokens",
    "gateway_example",
    "mlflow_people",
)


def kind_of(name: str, option: Option) -> Kind:
    """The kind of a variable, of an element of a list, or of a key of a mapping (as in serving_models.port)."""
    if kind := kind_by_name(name):
        return kind
    return password() if option.get("no_log") and option["type"] == "str" else KINDS_OF_TYPES[option["type"]]


@cache
def kind_by_name(name: str) -> Kind | None:
    """The first of KINDS that a name matches."""
    return next((kind for pattern, kind in KINDS.items() if fnmatchcase(name, pattern)), None)


# ---------------------------------------------------------------------------------------------------------------------
# One variable.
# ---------------------------------------------------------------------------------------------------------------------

WORDS = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a mapping"}


TYPES: dict[str, type] = {"str": str, "path": str, "list": list, "dict": dict, "int": int, "bool": bool}
ON_THE_COMMAND_LINE = {"int": re.compile("-?[0-9]{1,18}"), "bool": re.compile("true|false|yes|no", re.IGNORECASE)}


def is_type(value: object, wanted: str) -> bool:
    """Whether a value is of a type of argument_specs."""
    return isinstance(value, TYPES[wanted]) and (wanted == "bool" or not isinstance(value, bool))


def is_typed_in(value: object, wanted: str) -> bool:
    """Whether a value is the text that the command line makes of a number or boolean."""
    return (
        isinstance(value, str) and wanted in ON_THE_COMMAND_LINE and bool(ON_THE_COMMAND_LINE[wanted].fullmatch(value))
    )


def type_fault(value: object, wanted: str, secret: bool) -> str:
    """What is wrong with a value that is not of its type."""
    found = "null" if value is None else next((w for t, w in WORDS.items() if isinstance(value, t)), "something else")
    if not secret and value is not None:
        found = shown(value)
    expected = {
        "str": "text, so put it in quotes",
        "path": "text, so put it in quotes",
        "int": "a whole number" + ", without quotes" * isinstance(value, str),
        "bool": "true or false" + ", without quotes" * isinstance(value, str),
        "list": "a list, as [one, two]",
        "dict": "a mapping, as {name: value}",
    }[wanted]
    return f"is {found}: it must be {expected}"


def refuse(name: str, value: Any, option: Option, label: str = "") -> Iterator[str]:  # noqa: ANN401 (whatever the user set)
    """A sentence for each fault of a variable, or of a part of one that is called `label`."""
    wanted, secret = option["type"], bool(option.get("no_log"))
    typed_in = not label and is_typed_in(value, wanted)
    label = label or name
    if not is_type(value, wanted) and not typed_in:
        yield f"{label} {type_fault(value, wanted, secret)}."
    elif "choices" in option and value not in option["choices"]:
        yield f"{label} is {shown(value)}: it must be one of {', '.join(option['choices'])}."
    elif value in ("", [], {}) and (option.get("required") or (value == "" and option.get("default") != "")):
        yield f"{label} is empty: set it, or leave it out."
    elif value == "":
        pass
    elif wanted == "list":
        element = {"type": option["elements"], "options": option.get("options"), "no_log": secret, "required": True}
        for position, part in enumerate(value, start=1):
            yield from refuse(name, part, element, f"{label}, entry {position},")
    elif option.get("options"):
        parts = {key: {**part, "no_log": secret or part.get("no_log")} for key, part in option["options"].items()}
        yield from refuse_parts(name, value, parts, label.rstrip(","))
    elif "choices" not in option and (fault := kind_of(name, option)(value)):
        yield f"{label} {fault.replace(shown(value), 'not as it should be') if secret else fault}."


def refuse_parts(name: str, value: Settings, options: Mapping[str, Option], label: str) -> Iterator[str]:
    """The same for a mapping whose keys are known."""
    for key in value:
        if key not in options:
            known = ", ".join(options)
            yield f"{label}, has {shown(key)}, which is unknown{nearest(str(key), options)}: it may have {known}."
    for key, option in options.items():
        if key in value:
            yield from refuse(f"{name}.{key}", value[key], option, f"{label}, {key},")
        elif option.get("required"):
            yield f"{label}, lacks {key}: {option['description'].rstrip('.')}."


def nearest(name: str, known: Iterable[str]) -> str:
    """What a misspelt name was meant to be, in words; nothing where none is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.75)
    return f" (did you mean {close[0]}?)" if close else ""


def refuse_names(
    given: Iterable[str], known: Iterable[str], prefixes: Iterable[str], others: Iterable[str]
) -> Iterator[str]:
    """A sentence for each name that begins like one of ours and is none."""
    names, starts = set(known), tuple(f"{prefix}_" for prefix in prefixes)
    for name in sorted(given):
        if name in HANDED_OVER:
            yield f"{name} is set, and is no setting, roles hand it to each other: take it away."
        elif name.startswith(starts) and name not in names and name not in others:
            yield (
                f"{name} is set, and nothing knows it{nearest(name, names)}: correct its name, or, if it is one of "
                "your own, put it into the list stack_other_variables."
            )


# ---------------------------------------------------------------------------------------------------------------------
# Variables that have to fit each other. Each check gets the settings, all of them good in themselves.
# ---------------------------------------------------------------------------------------------------------------------


class Published(NamedTuple):
    """A port on the host."""

    what: str
    address: str
    port: int


def published(settings: Settings) -> list[Published]:
    """The ports that the inventory's services, and its gateway, are published on."""
    services = ["mlflow", "jupyter", *(["portainer"] if settings["groups"].get("portainer") else [])]
    doors = ["gateway", "gateway_http"] if settings["groups"].get("gateway") else []
    if doors and settings["gateway_form"] == "ports":
        doors += [f"gateway_{service}" for service in services]
        doors += ["gateway_models"] if settings["serving_models"] else []
    ports = [
        *(Published(f"{s}_port", settings[f"{s}_bind_address"], int(settings[f"{s}_port"])) for s in services),
        *(Published(f"{door}_port", settings["gateway_bind_address"], int(settings[f"{door}_port"])) for door in doors),
        *(
            Published(
                f"the port of {model['name']} in serving_models", settings["serving_bind_address"], int(model["port"])
            )
            for model in settings["serving_models"]
        ),
    ]
    return [port for port in ports if port.address]


def refuse_ports(settings: Settings) -> Iterator[str]:
    """Ports alike."""
    for one, other in combinations(published(settings), 2):
        overlap = one.address == other.address or "0.0.0.0" in (one.address, other.address)  # noqa: S104
        if one.port == other.port and overlap:
            yield f"{other.what} is {other.port}, and so is {one.what}: give each a port of its own."


def refuse_passive_ports(settings: Settings) -> Iterator[str]:
    ports = [int(port) for port in settings["ftp_passive_ports"]]
    if len(ports) != 2 or ports[0] > ports[1]:
        yield f"ftp_passive_ports is {shown(ports)}: it must be two ports, the first and the last, as [30000, 30099]."
    elif ports[0] <= 2121 <= ports[1]:
        yield f"ftp_passive_ports is {shown(ports)}: it must not hold 2121, at which the server itself listens."


LONGEST_LABEL = 63  # characters (RFC 1035, 2.3.4)


def refuse_models(settings: Settings) -> Iterator[str]:
    names = Counter(model["name"] for model in settings["serving_models"])
    yield from (
        f"serving_models has {count} entries with the name {name}: give each its own."
        for name, count in names.items()
        if count > 1
    )
    for name in names:
        container = f"{settings['stack_name']}-serving-{name}"
        if len(container) > LONGEST_LABEL:
            yield (
                f"serving_models has {name}, which is asked as {container}, and a host's name has at most "
                f"{LONGEST_LABEL} characters: shorten it, or stack_name."
            )


def refuse_accounts(settings: Settings) -> Iterator[str]:
    """Accounts without an administrator, alike, or without those that services use."""
    accounts = settings["mlflow_accounts"]
    names = Counter(account["username"] for account in accounts)
    yield from (
        f"mlflow_accounts has {count} entries for {name}: leave one." for name, count in names.items() if count > 1
    )
    if not any(account["admin"] for account in accounts):
        yield "mlflow_accounts has no administrator: give one account admin: true."
    passwords = {account["username"]: account["password"] for account in accounts}
    for service in ("jupyter", "serving", "example"):
        name = settings[f"{service}_mlflow_user"]
        if name not in passwords:
            user = f"{service}_mlflow_user"
            yield f"mlflow_accounts lacks {name}, the account of {user}: add it, or set {user} to one that is there."
        elif passwords[name] != settings[f"{service}_mlflow_password"]:
            yield f"{service}_mlflow_password is not the password that mlflow_accounts has for {name}: set both alike."


def refuse_users(settings: Settings) -> Iterator[str]:
    """People alike, or named like an account of a service."""
    accounts = {account["username"].casefold() for account in settings["mlflow_accounts"]}
    for name, count in Counter(user["name"].casefold() for user in settings["mlflow_users"]).items():
        if count > 1:
            yield f"mlflow_users has {count} entries for {name}: leave one."
        if name in accounts:
            yield f"mlflow_users has {name}, and so has mlflow_accounts, for services: choose another name."


def refuse_store(settings: Settings) -> Iterator[str]:
    scheme = urlsplit(settings["mlflow_artifacts_destination"]).scheme
    if scheme in ("ftp", "ftps"):
        empty = [name for name in ("mlflow_artifacts_user", "mlflow_artifacts_password") if not settings[name]]
        yield from (f"{name} is empty: an FTP store needs one." for name in empty)


def refuse_own_stores(settings: Settings) -> Iterator[str]:
    """MLflow's side of a store of this deployment, which is called postgres or ftp, other than that store's own."""
    backend, artifacts = (
        urlsplit(settings["mlflow_backend_store_uri"]),
        urlsplit(settings["mlflow_artifacts_destination"]),
    )
    if backend.hostname == "postgres":
        own = (settings["postgres_user"], f"/{settings['postgres_database']}")
        if (backend.username, backend.path) != own:
            yield (
                "mlflow_backend_store_uri has another role or database than postgres_user and postgres_database: "
                "set these alone."
            )
        if settings["mlflow_backend_store_password"] != settings["postgres_password"]:
            yield "mlflow_backend_store_password is not postgres_password: set postgres_password alone."
    if artifacts.hostname == "ftp":
        for name, of_store in (("mlflow_artifacts_user", "ftp_user"), ("mlflow_artifacts_password", "ftp_password")):
            if settings[name] != settings[of_store]:
                yield f"{name} is not {of_store}: set {of_store} alone."


def refuse_certificate(settings: Settings) -> Iterator[str]:
    if bool(settings["ftp_certificate"]) != bool(settings["ftp_certificate_key"]):
        yield "ftp_certificate and ftp_certificate_key belong together: set both, or neither."


GATEWAY_CONNECTION_KB = 96  # TLS, and a buffer of 32 for each way


def refuse_memory(settings: Settings) -> Iterator[str]:
    """Less memory than MLflow's processes need, which share what they have loaded, or the gateway's connections."""
    workers, memory = int(settings["mlflow_workers"]), int(settings["mlflow_memory_mb"])
    needed = 256 + 128 * workers
    if memory < needed:
        yield (
            f"mlflow_memory_mb is {memory} and {workers} processes (mlflow_workers) need {needed}: "
            "raise it, or lower mlflow_workers."
        )
    connections, memory = int(settings["gateway_max_connections"]), int(settings["gateway_memory_mb"])
    needed = 64 + connections * GATEWAY_CONNECTION_KB // 1024
    if settings["groups"].get("gateway") and memory < needed:
        yield (
            f"gateway_memory_mb is {memory} and {connections} connections (gateway_max_connections) need {needed}: "
            "raise it, or lower gateway_max_connections."
        )


def refuse_unreachable(settings: Settings) -> Iterator[str]:
    """Services that nobody reaches."""
    if not settings["groups"].get("gateway"):
        yield from (
            f"{service}_bind_address is empty, and the inventory has no group gateway: leave it out, or add the group."
            for service in ("mlflow", "jupyter", "serving", "portainer")
            if not settings[f"{service}_bind_address"]
        )


def refuse_gateway(settings: Settings) -> Iterator[str]:
    """A gateway whose name, certificate or clients do not fit."""
    if not settings["groups"].get("gateway"):
        return
    name, form, tls = settings["stack_public_name"], settings["gateway_form"], settings["gateway_tls"]
    if form == "names" and not address(name):
        yield (
            f"gateway_form is names, and stack_public_name is {name}, below which there are no names: set it "
            "to a name whose names below it (mlflow.NAME, …) lead to the gateway, or gateway_form to ports."
        )
    if not address(name) and not leads_somewhere(name):
        yield f"stack_public_name is {name}, which leads nowhere: set it to a name or address of the gateway's host."
    tokens = {(client["model"], client["name"]): client.get("token") for client in settings["gateway_clients"]}
    if any(count > 1 for token, count in Counter(tokens.values()).items() if token):
        yield "gateway_clients has one token twice: give each program its own."
    if tls == "acme":
        if not settings["certbot_email"]:
            yield "certbot_email is empty, and gateway_tls is acme: set it to where the authority may write to."
        if not address(name):
            yield (
                f"gateway_tls is acme, and stack_public_name is {name}: set it to a name that the authority can look "
                "up, or gateway_tls to own or files."
            )
    if tls == "files":
        empty = [file for file in ("gateway_certificate_file", "gateway_certificate_key_file") if not settings[file]]
        yield from (f"{file} is empty, and gateway_tls is files: set it to the path of a PEM file." for file in empty)
        if not empty:
            services = ("mlflow", "jupyter", "models", "portainer") if form == "names" else ()
            names = {name, *(f"{service}.{name}" for service in services)}
            certificate, key = settings["gateway_certificate"], settings["gateway_certificate_key"]
            yield from refuse_pair(certificate, key, settings["gateway_authority"], names)
    models = {model["name"] for model in settings["serving_models"]}
    if any(client["name"] == settings["stack_name"] for client in settings["gateway_clients"]):
        yield f"gateway_clients has {settings['stack_name']}, which is the deployment itself: choose another name."
    programs = Counter((client["model"], client["name"]) for client in settings["gateway_clients"])
    for (model, program), count in programs.items():
        if model not in models:
            known = ", ".join(sorted(models)) or "none"
            yield f"gateway_clients has {program} for {model}, which is not in serving_models: it has {known}."
        if count > 1:
            yield f"gateway_clients has {count} entries for {program} and {model}: leave one."


def leads_somewhere(value: str) -> bool:
    """Whether an IPv4 address may be a host's."""
    found = ipaddress.IPv4Address(value)
    return not (found.is_unspecified or found.is_multicast or found.is_reserved)


def refuse_pair(certificate: str, key: str, authority: str, names: set[str]) -> Iterator[str]:
    """Certificates and a key, PEM, that do not match, whose time, names or use are others, or that lead elsewhere."""
    from cryptography import x509  # which takes its time, and only some need
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    where = "gateway_certificate_file"
    try:
        certificates = x509.load_pem_x509_certificates(certificate.encode())
        own, private = certificates[0], load_pem_private_key(key.encode(), password=None)
        belong_together = own.public_key() == private.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        yield (
            f"{where} or gateway_certificate_key_file cannot be read: {error}. Both must be PEM, RSA or ECDSA "
            "(P-256 or P-384), the key without a passphrase."
        )
        return
    if not belong_together:
        yield f"gateway_certificate_key_file is not the key of {where}: the chain begins with your own certificate."
    for one in certificates:
        yield from refuse_weak(where, one, "" if one is own else f" has {one.subject.rfc4514_string()}, which")
    missing = sorted(name for name in names if not covers(own, name))
    if missing:
        yield f"{where} is not for {', '.join(missing)}: get one for all of {', '.join(sorted(names))}."
    if not serves(own):
        yield f"{where} is not for servers (its extended key usage lacks serverAuth): get one that is."
    if not signs_handshakes(own):
        yield f"{where} may not sign what a server has to (its key usage lacks digitalSignature): get one that may."
    yield from refuse_chain(certificates, authority)


CURVES = ("secp256r1", "secp384r1", "secp521r1")


def refuse_weak(where: str, certificate: x509.Certificate, which: str) -> Iterator[str]:
    """A certificate that does not hold today, or that browsers or OpenSSL (security level 2) do not take."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= datetime.now(UTC) <= end:
        yield f"{where}{which} holds from {begin:%Y-%m-%d} to {end:%Y-%m-%d}, and not today: renew it."
    key, digest = public_key(certificate), signature_hash(certificate)
    if isinstance(key, RSAPublicKey) and key.key_size < 2048:
        yield f"{where}{which} has a key of {key.key_size} bits, and programs take 2048 or more: get another."
    curve = key.curve.name if isinstance(key, EllipticCurvePublicKey) else "none"
    # Chrome takes the longest one only where it has signed others.
    if not isinstance(key, RSAPublicKey) and curve not in (CURVES if which else CURVES[:2]):
        yield f"{where}{which} has a key that not all browsers take: get one of RSA, or of ECDSA on P-256 or P-384."
    if digest and digest.name in ("md5", "sha1") and certificate.issuer != certificate.subject:
        yield f"{where}{which} is signed with {digest.name}, which programs do not take: get another."


def public_key(certificate: x509.Certificate) -> object:
    """The key of a certificate, None if it is of a kind that nobody knows."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return None


def signature_hash(certificate: x509.Certificate) -> HashAlgorithm | None:
    """The digest that a certificate is signed with, None if it is of a kind that nobody knows."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None


def refuse_chain(certificates: Sequence[x509.Certificate], authority: str) -> Iterator[str]:
    """Certificates that do not lead to the authority, PEM, where there is one, each signed by the one after it."""
    from cryptography import x509

    where = "gateway_certificate_file"
    for signed, signer in pairwise(certificates):
        if not signs(signer, signed):
            subject = signed.subject.rfc4514_string()
            yield f"{where} has {subject}, and next one that did not sign it: put them in order, your own first."
            return
    try:
        authorities = x509.load_pem_x509_certificates(authority.encode()) if authority else []
    except ValueError as error:
        yield f"gateway_authority_file cannot be read: {error}. It must be PEM."
        return
    trusted = [root for root in authorities if any(root == one or signs(root, one) for one in certificates)]
    for root in trusted[:1]:
        yield from refuse_weak("gateway_authority_file", root, f" has {root.subject.rfc4514_string()}, which")
    if authorities and not trusted:
        issuer = certificates[-1].issuer.rfc4514_string()
        yield (
            f"gateway_authority_file has not signed what is in {where}, which ends at {issuer}: set it to the "
            f"certificate of that authority, or add to {where} those that lie between."
        )


def signs(signer: x509.Certificate, signed: x509.Certificate) -> bool:
    """Whether one certificate was signed with the key of another."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        signed.verify_directly_issued_by(signer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def serves(certificate: x509.Certificate) -> bool:
    """Whether a certificate may be a server's (RFC 5280, 4.2.1.12)."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return bool({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usage))


def signs_handshakes(certificate: x509.Certificate) -> bool:
    """Whether a certificate's key may sign, as TLS 1.3 and the ciphers of 1.2 want it (RFC 5280, 4.2.1.3)."""
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    except x509.ExtensionNotFound:
        return True


def covers(certificate: x509.Certificate, name: str) -> bool:
    """Whether a certificate is for a host's name or address (RFC 6125)."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    if not address(name):
        return ipaddress.ip_address(name) in names.get_values_for_type(x509.IPAddress)
    known = {known.lower() for known in names.get_values_for_type(x509.DNSName)}
    return bool(known & {name, f"*.{name.partition('.')[2]}"})


# What follows from a setting of the stack, and what must be the same everywhere.
FOLLOWERS = {
    "container_project": "stack_name",
    "deployment_name": "stack_name",
    "docker_firewall_project": "stack_name",
    "container_config_root": "stack_config_root",
    "deployment_config_root": "stack_config_root",
}


def refuse_names_of_stack(settings: Settings) -> Iterator[str]:
    """What follows from settings of the stack and is not set by itself."""
    for follower, leader in FOLLOWERS.items():
        if settings[follower] != settings[leader]:
            yield f"{follower} is {settings[follower]} and {leader} is {settings[leader]}: set {leader} alone."


def refuse_secrets(settings: Settings) -> Iterator[str]:
    """Secrets that others than their owner may read."""
    directory = Path(settings["stack_secrets_dir"])
    try:
        paths = [directory, *sorted(directory.iterdir())] if directory.exists() else []
        for path in paths:
            mode = path.stat().st_mode & 0o777
            if mode & 0o077:
                cure = f"chmod {'700' if path.is_dir() else '600'} {shlex.quote(str(path))}"
                yield f"{path} (stack_secrets_dir) is open to others than its owner (mode {mode:04o}): {cure}"
    except OSError as error:
        yield f"stack_secrets_dir cannot be read: {error}."


def refuse_short_passwords(settings: Settings) -> Iterator[str]:
    """Passwords that are shorter than this deployment wants them."""
    least = int(settings["stack_minimum_password_length"])
    for name in [name for name in settings if name.endswith("_password")]:
        if len(settings[name]) < least:
            yield f"{name} has {len(settings[name])} characters and needs {least}: set a longer one."


TOGETHER: tuple[Callable[[Settings], Iterator[str]], ...] = (
    refuse_ports,
    refuse_passive_ports,
    refuse_models,
    refuse_accounts,
    refuse_users,
    refuse_store,
    refuse_own_stores,
    refuse_certificate,
    refuse_unreachable,
    refuse_gateway,
    refuse_memory,
    refuse_names_of_stack,
    refuse_secrets,
    refuse_short_passwords,
)


class Good(dict[str, Any]):
    """The settings that are good in themselves; a check that asks for another one has nothing to say."""

    class MissingError(Exception):
        """It was refused already."""

    def __missing__(self, name: str) -> Any:  # noqa: ANN401
        raise Good.MissingError(name)


def sources_of(name: str, definitions: Settings) -> set[str]:
    """The variables that a variable is computed from, directly or through others, by the words of their definitions."""
    found: set[str] = set()
    todo = {name}
    while todo:
        words = set(re.findall(r"\w+", str(definitions.get(todo.pop(), ""))))
        new = (words & set(definitions)) - found - {name}
        found |= new
        todo |= new
    return found


def refuse_all(
    settings: Settings,
    options: Mapping[str, Option],
    groups: Settings,
    uncomputable: Mapping[str, str],
    definitions: Settings,
) -> list[str]:
    """A sentence for each fault of the settings, but none for a fault that follows from another variable's.

    `settings` are values, by name; a variable that is not among them has the default of its option.
    `uncomputable` has a sentence for each variable without a value, `definitions` what the values were computed from.
    """
    faults = {name: [sentence] for name, sentence in uncomputable.items()}
    good = Good(groups=groups)
    for name, option in options.items():
        if name not in HANDED_OVER and name not in uncomputable:
            good[name] = settings.get(name, option.get("default", ""))
            faults[name] = list(refuse(name, good[name], option))
    bad = {name for name in faults if faults[name]}
    following = {name for name in {*good, *bad} if bad & sources_of(name, definitions)} if bad else set()
    for name in bad | following:
        good.pop(name, None)
    refusals = [sentence for name in faults if name not in following for sentence in faults[name]]
    for check in TOGETHER:
        try:
            refusals += check(good)
        except Good.MissingError:
            continue
    return refusals


# ---------------------------------------------------------------------------------------------------------------------
# Ansible's side.
# ---------------------------------------------------------------------------------------------------------------------


def load(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file of ours."""
    mapping: dict[str, Any] = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    return mapping


def load_options(root: Path) -> dict[str, Option]:
    """What argument_specs say of each variable, those of the roles and of the deployment as a whole."""
    paths = [root / "playbooks/meta/argument_specs.yml", *sorted(root.glob("roles/*/meta/argument_specs.yml"))]
    return {name: option for path in paths for name, option in load(path)["argument_specs"]["main"]["options"].items()}


def load_wiring(root: Path) -> set[str]:
    """Names of the variables in playbooks/group_vars."""
    return set(chain.from_iterable(load(path) for path in root.glob("playbooks/group_vars/all/*.yml")))


class ActionModule(ActionBase):  # type: ignore[misc]
    """Check the settings of one host."""

    _requires_connection = False

    def run(self, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        host = variables["inventory_hostname"]
        options = load_options(ROOT)
        # What a gateway that is not there is told does not matter, and takes its time to compute.
        unasked = () if variables["groups"].get("gateway") else ("gateway_", "certbot_")
        asked = {name for name in options if not name.startswith(unasked)}
        settings, uncomputable = self._compute(variables, asked)
        known = {*options, *load_wiring(ROOT)}
        prefixes = ["stack", *(path.name for path in (ROOT / "roles").iterdir())]
        others = settings.get("stack_other_variables", [])
        refusals = list(refuse_names(self._given(host), known, prefixes, others))
        refusals += refuse_all(settings, options, variables["groups"], uncomputable, variables)
        if refusals:
            message = "\n- ".join([f"Settings of {host} that cannot work:", *dict.fromkeys(refusals)])
            result |= {"failed": True, "msg": message}
        return result

    def _compute(self, variables: dict[str, Any], names: Iterable[str]) -> tuple[dict[str, Any], dict[str, str]]:
        """The values of the variables that are set, and a sentence for each that cannot be computed."""
        # In check mode lookups generate nothing.
        templar = self._templar.copy_with_new_env(available_variables=variables | {"ansible_check_mode": True})
        values: dict[str, Any] = {}
        uncomputable: dict[str, str] = {}
        for name in set(names) & set(variables):
            try:
                values[name] = templar.template(variables[name])
            except AnsibleError as error:
                uncomputable[name] = sentence(name, error)
        return values, uncomputable

    def _given(self, hostname: str) -> set[str]:
        """Names of the variables that the inventory or the command line sets for a host."""
        manager = self._task.get_variable_manager()
        inventory = manager._inventory
        host = inventory.get_host(hostname)
        groups = host.get_groups()
        files = get_vars_from_inventory_sources(self._loader, inventory._sources, [*groups, host], "task")
        return set(chain(manager.extra_vars, files, host.vars, *(group.vars for group in groups)))


def sentence(name: str, error: AnsibleError) -> str:
    """What a lookup of ours has to say, or why else a variable cannot be computed."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ == "AnsibleLookupError" and isinstance(cause, AnsibleError):
            return str(cause.message)
        cause = cause.__cause__
    reason = str(error.message).splitlines()[0].rstrip(".")
    return (
        f"{name} cannot be computed: {reason}. Text with {{{{ or {{% in it is written with the tag !unsafe before it."
    )
