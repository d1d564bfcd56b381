"""What this platform refuses and MLflow does not: what ends in an error of the server, and what takes from others.

MLflow answers 500 to requests that are none, after which its client tries again for minutes. It takes an artifact
location in a store that this server has no library for, and fails over it ever after, `mlflow gc` included. It asks
whether an account may do one thing and does another where a request can be read in two ways. And it lets whoever may
write to one experiment move a trace there that is in another, write to it, or link one to another's run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Request as FlaskRequest
    from mlflow.entities import Span, TraceInfo
    from mlflow.server.auth.permissions import GrantLoadKey, Permission
    from mlflow.server.auth.sqlalchemy_store import RoleGrantRow
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy.engine import ExceptionContext
    from starlette.requests import Request
    from werkzeug.sansio.response import Response

    Validator = Callable[[str, Request], Awaitable[bool]]

# Of an experiment's artifact location, and of a model version's source; mlflow_ftps looks at what they name. Without a
# scheme are the sources of prompts.
LOCATIONS = {"", "file", "ftp", "ftps", "mlflow-artifacts"}
SOURCES = LOCATIONS | {"http", "https", "models", "runs"}
GRAPHQL = {"query": str, "variables": dict | None, "operationName": str | None}
NUMBER = re.compile(r"0|[1-9][0-9]*", re.ASCII)


def refuse() -> None:
    """Have MLflow's app in this process refuse all that."""
    refuse_values_that_no_database_takes()
    refuse_requests_that_are_none()
    refuse_fields_of_other_types()
    refuse_queries_that_are_none()
    refuse_other_spellings_of_numbers()
    refuse_stores_that_are_not_here()
    keep_scorers_with_their_experiments()
    keep_traces_in_their_experiments()
    keep_traces_from_others_runs()
    tell_of_the_server_after_a_login()


def mlflow_auth() -> Any:  # noqa: ANN401
    """MLflow's module, of which what is its own alone is used and replaced here."""
    from mlflow.server import auth

    return auth


def tell_of_the_server_after_a_login() -> None:
    """How it is set up, which MLflow tells everybody; its clients and its page ask with a login anyway."""
    auth = mlflow_auth()
    find = auth._find_fastapi_validator
    public, auth._PUBLIC_ROUTE_SUFFIXES = auth._PUBLIC_ROUTE_SUFFIXES, ()

    async def allow(_username: str, _request: Request) -> bool:
        return True

    def find_validator(path: str, method: str) -> Validator | None:
        found: Validator | None = find(path, method)
        return allow if auth._matches_route_suffix(auth._strip_static_prefix(path), public) else found

    auth._find_fastapi_validator = find_validator


def refuse_values_that_no_database_takes() -> None:
    """Such as text with a NUL, or a number beyond 64 bits."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy import Engine, event

    @event.listens_for(Engine, "handle_error")
    def refuse_value(context: ExceptionContext) -> None:
        if isinstance(
            context.original_exception, ValueError | OverflowError
        ):  # the driver's, before it has sent anything
            raise MlflowException.invalid_parameter_value(
                f"The database does not take this: {context.original_exception}"
            ) from context.original_exception


def refuse_requests_that_are_none() -> None:
    """Those with two readings, and bodies that are no object of JSON.

    They are refused before MLflow looks at what an account may do, which reads them in one way, or ends in an error.
    """
    from flask import request
    from mlflow.server import app, auth
    from werkzeug.sansio.response import Response

    def refuse_request() -> Response | tuple[Response, int] | None:
        fault = fault_of_address(request)
        if not fault and is_plain(request):
            return None
        if isinstance(login := auth.authenticate_request(), Response):
            return login  # there is none: that comes first, and nothing is parsed for strangers
        fault = fault or fault_of_body(request)
        if not fault:
            return None
        return app.json.response(error_code="BAD_REQUEST", message=f"This is no request: {fault}."), 400

    app.before_request_funcs.setdefault(None, []).insert(0, refuse_request)


def rule_of(request: FlaskRequest) -> str:
    """The pattern that a request's path has matched; empty where there is none."""
    return request.url_rule.rule if request.url_rule else ""


def fault_of_address(request: FlaskRequest) -> str | None:
    """What is wrong with a request, its body aside: permissions are asked for one thing, and another is done."""
    for name, value in (request.view_args or {}).items():
        if set(request.args.getlist(name)) - {str(value)}:
            return f"its path has one {name}, and its query another"
    if request.content_length:
        if request.method in ("GET", "HEAD"):
            return f"a {request.method} has no body"
        if request.method in ("DELETE", "PATCH") and not request.is_json:
            return "its body is not said to be application/json"
    if rule_of(request).endswith("/mlflow/demo/generate"):
        return "the demo is not offered here, as only administrators could take it away"
    return None


def is_plain(request: FlaskRequest) -> bool:
    """Whether its body, if it has one, seems to be an object, as nearly all are; or may be anything, as a file."""
    rule = rule_of(request)
    return rule.endswith("/upload-artifact") or (
        rule != "/graphql" and (not request.content_length or request.get_data().lstrip()[:1] == b"{")
    )


def fault_of_body(request: FlaskRequest) -> str | None:
    """What is wrong with a body; nothing is where it is no JSON at all, which MLflow says itself."""
    try:
        body = json.loads(request.get_data() or b"{}")
        if isinstance(body, str):  # MLflow takes an object that was made into text twice
            body = json.loads(body)
    except RecursionError:
        return "it is nested too deeply"
    except ValueError:
        return None
    if not isinstance(body, dict):
        return f"it is a {type(body).__name__} of JSON, not an object"
    if rule_of(request) == "/graphql":
        odd = [name for name, kind in GRAPHQL.items() if not isinstance(body.get(name), kind)]
        return f"{odd[0]} is of another type" if odd else None
    return None


def refuse_fields_of_other_types() -> None:
    """Which MLflow's reading of a request stumbles over."""
    from mlflow.exceptions import MlflowException
    from mlflow.server import handlers

    auth = mlflow_auth()
    read: Callable[..., object] = handlers._get_request_message

    def read_or_refuse(*arguments: object, **options: object) -> object:
        try:
            return read(*arguments, **options)
        except (AttributeError, TypeError, ValueError) as error:
            raise MlflowException.invalid_parameter_value(f"This is no request: {error}") from error

    handlers._get_request_message = auth._get_request_message = read_or_refuse


def refuse_other_spellings_of_numbers() -> None:
    """An experiment's number has one spelling: permissions are looked up by it, while the store takes 02 for 2."""
    from mlflow.exceptions import MlflowException

    auth = mlflow_auth()
    fold: Callable[..., Permission | None] = auth.fold_grants_for_key

    def fold_grants(grants: Sequence[RoleGrantRow], key: GrantLoadKey) -> Permission | None:
        number = str(key.resource_id)
        if key.resource_type == "scorer":  # EXPERIMENT/NAME
            number = number.partition("/")[0]
        elif key.resource_type != "experiment":
            return fold(grants, key)
        if key.resource_id not in (None, "*") and not NUMBER.fullmatch(number):
            raise MlflowException.invalid_parameter_value(f"{number!r} is not the number of an experiment")
        return fold(grants, key)

    auth.fold_grants_for_key = fold_grants


def keep_scorers_with_their_experiments() -> None:
    """Who may not read an experiment may do nothing with its scorers, as with all else in it."""
    auth = mlflow_auth()
    permission_on_scorer: Callable[[], Permission] = auth._get_permission_from_scorer_name

    def permission() -> Permission:
        username = auth.authenticate_request().username
        on_experiment: Permission = auth._get_experiment_permission(auth._get_request_param("experiment_id"), username)
        return permission_on_scorer() if on_experiment.can_read else on_experiment

    auth._get_permission_from_scorer_name = permission


def refuse_queries_that_are_none() -> None:
    """GraphQL that is none; and what else is nested too deeply."""
    from graphql import GraphQLError
    from mlflow.server import app

    def refuse_query(error: Exception) -> tuple[Response, int]:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        return app.json.response(errors=[f"This cannot be answered: {reason}"]), 400

    app.register_error_handler(GraphQLError, refuse_query)
    app.register_error_handler(RecursionError, refuse_query)


def refuse_stores_that_are_not_here() -> None:
    """Locations of artifacts and sources of model versions of other schemes than this server serves."""
    from mlflow.exceptions import MlflowException
    from mlflow.server import handlers
    from mlflow.utils.uri import get_uri_scheme

    validate: Callable[[str, str], None] = handlers._validate_artifact_uri_scheme

    def validate_scheme(uri: str, field: str) -> None:
        validate(uri, field)
        known = SOURCES if field == "source" else LOCATIONS
        if (scheme := get_uri_scheme(uri)) not in known:
            cure = "name what is in the server's own, as runs:/… or models:/…" if field == "source" else "leave it out"
            raise MlflowException.invalid_parameter_value(
                f"'{field}' is in a store of the kind {scheme!r}, which this server does not reach: {cure}"
            )

    handlers._validate_artifact_uri_scheme = validate_scheme  # type: ignore[assignment]


def keep_traces_in_their_experiments() -> None:
    """A trace that is there is written to by way of its own experiment alone, and an assessment with its own trace."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracing.constant import TraceMetadataKey

    store: Any = SqlAlchemyStore
    start_trace, log_spans = store.start_trace, store.log_spans

    def start(self: SqlAlchemyStore, trace_info: TraceInfo) -> TraceInfo:
        if not trace_info.trace_id:
            raise MlflowException.invalid_parameter_value("A trace needs an id")
        assessments = {name for one in trace_info.assessments for name in (one.assessment_id, one.overrides) if name}
        refuse_what_is_elsewhere(self, trace_info.experiment_id, {trace_info.trace_id}, assessments)
        refuse_run_of_others(trace_info.trace_metadata.get(TraceMetadataKey.SOURCE_RUN))
        started: TraceInfo = start_trace(self, trace_info)
        return started

    def log(self: SqlAlchemyStore, location: str, spans: list[Span], tracking_uri: str | None = None) -> list[Span]:
        refuse_what_is_elsewhere(self, location, {span.trace_id for span in spans})
        logged: list[Span] = log_spans(self, location, spans, tracking_uri)
        return logged

    store.start_trace, store.log_spans = start, log


def keep_traces_from_others_runs() -> None:
    """Spans name a run that their trace is linked to: one that the account may change, as where a link is asked for."""
    from mlflow.server import auth
    from mlflow.tracing.utils.otlp import MLFLOW_RUN_ID_HEADER

    get_validator = auth._get_otel_validator

    def get_stricter_validator(path: str) -> Validator:
        validate: Validator = get_validator(path)

        async def validate_run_too(username: str, request: Request) -> bool:
            if not await validate(username, request):
                return False
            run = request.headers.get(MLFLOW_RUN_ID_HEADER)
            requirement = auth._run_requirement(run, "update") if run else None
            return not run or bool(requirement and auth.authorize(username, *requirement))

        return validate_run_too

    auth._get_otel_validator = get_stricter_validator


def refuse_run_of_others(run: str | None) -> None:
    """Raise MlflowException if there is this run, and the account of a request of Flask's may not change it."""
    from flask import has_request_context
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

    auth = mlflow_auth()
    if not run or not has_request_context() or auth.sender_is_admin():
        return
    requirement = auth._run_requirement(run, "update")
    if requirement and not auth.authorize(auth.authenticate_request().username, *requirement):
        raise MlflowException(f"The run {run} is another's.", error_code=PERMISSION_DENIED)


def refuse_what_is_elsewhere(
    store: SqlAlchemyStore, experiment: str | None, traces: Collection[str], assessments: Collection[str] = ()
) -> None:
    """Raise MlflowException if one of these is there already, but the trace elsewhere or the assessment on another.

    The look comes before MLflow's own transaction: who makes the same trace in the same millisecond is not seen.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
    from mlflow.store.tracking.dbmodels.models import SqlAssessments, SqlTraceInfo

    with store.ManagedSessionMaker(read_only=True) as session:
        known = session.query(SqlTraceInfo.request_id, SqlTraceInfo.experiment_id)
        elsewhere = [
            f"trace {trace} is in another experiment"
            for trace, place in known.filter(SqlTraceInfo.request_id.in_(traces))
            if str(place) != str(experiment)
        ]
        if assessments:
            attached = session.query(SqlAssessments.assessment_id, SqlAssessments.trace_id)
            elsewhere += [
                f"assessment {assessment} is of another trace"
                for assessment, trace in attached.filter(SqlAssessments.assessment_id.in_(assessments))
                if trace not in traces
            ]
    if elsewhere:
        raise MlflowException(f"The {elsewhere[0]}.", error_code=PERMISSION_DENIED)
