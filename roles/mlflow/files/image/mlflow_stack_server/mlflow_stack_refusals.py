"""What this platform refuses and MLflow does not: what ends in an error of the server, and what takes from others.

MLflow answers 500 to requests that are none, after which its client tries again for minutes. It takes an artifact
location in a store that this server has no library for, and fails over it ever after, `mlflow gc` included. And it lets
whoever may write to one experiment move a trace there that is in another, write to it, or link one to another's run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import Span, TraceInfo
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy.engine import ExceptionContext
    from starlette.requests import Request
    from werkzeug.sansio.response import Response

    Validator = Callable[[str, Request], Awaitable[bool]]

# Of a location or a source; mlflow_ftps looks at what they name. Without a scheme are the sources of prompts.
SCHEMES = {"", "file", "ftp", "ftps", "http", "https", "mlflow-artifacts", "models", "runs"}
GRAPHQL = {"query": str, "variables": dict | None, "operationName": str | None}


def refuse() -> None:
    """Have MLflow's app in this process refuse all that."""
    refuse_text_that_no_database_takes()
    refuse_bodies_that_are_no_request()
    refuse_queries_that_are_none()
    refuse_stores_that_are_not_here()
    keep_traces_in_their_experiments()
    keep_traces_from_others_runs()


def refuse_text_that_no_database_takes() -> None:
    """Such as with a NUL."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy import Engine, event

    @event.listens_for(Engine, "handle_error")
    def refuse_text(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, ValueError):  # the driver's, before it has sent anything
            raise MlflowException.invalid_parameter_value(
                f"The database does not take this: {context.original_exception}"
            ) from context.original_exception


def refuse_bodies_that_are_no_request() -> None:
    """JSON that is no object, and for GraphQL an object whose parts are of other types.

    They are refused before MLflow looks at what an account may do, which ends in an error over them already.
    """
    from flask import request
    from mlflow.server import app, auth
    from werkzeug.sansio.response import Response

    def refuse_body() -> Response | tuple[Response, int] | None:
        if request.path.endswith("/upload-artifact"):
            return None  # a file, which may be a list of JSON
        is_graphql = request.path.endswith("/graphql")
        if not is_graphql and (not request.content_length or request.get_data().lstrip()[:1] == b"{"):
            return None  # as nearly all are
        body = request.get_json(force=True, silent=True) or {}
        if not isinstance(body, dict):
            fault = f"it is a {type(body).__name__} of JSON, not an object"
        elif is_graphql and (odd := [name for name, kind in GRAPHQL.items() if not isinstance(body.get(name), kind)]):
            fault = f"{odd[0]} is of another type"
        else:
            return None
        if isinstance(login := auth.authenticate_request(), Response):
            return login  # there is none: that comes first
        return app.json.response(error_code="BAD_REQUEST", message=f"This is no request: {fault}."), 400

    app.before_request_funcs.setdefault(None, []).insert(0, refuse_body)


def refuse_queries_that_are_none() -> None:
    """GraphQL that is none, or too deep."""
    from graphql import GraphQLError
    from mlflow.server import app

    def refuse_query(error: Exception) -> tuple[Response, int]:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        return app.json.response(errors=[f"This is no query that can be answered: {reason}"]), 400

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
        if (scheme := get_uri_scheme(uri)) not in SCHEMES:
            raise MlflowException.invalid_parameter_value(
                f"'{field}' is in a store of the kind {scheme!r}, which this server does not reach. Leave it out, or "
                "name what is in the server's own: runs:/…, models:/… or mlflow-artifacts:/…"
            )

    handlers._validate_artifact_uri_scheme = validate_scheme  # type: ignore[assignment]


def keep_traces_in_their_experiments() -> None:
    """A trace that is there is written to by way of its own experiment alone, and an assessment with its own trace."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store: Any = SqlAlchemyStore
    start_trace, log_spans = store.start_trace, store.log_spans

    def start(self: SqlAlchemyStore, trace_info: TraceInfo) -> TraceInfo:
        assessments = [one.assessment_id for one in trace_info.assessments if one.assessment_id]
        check_that_they_are_there(self, trace_info.experiment_id, {trace_info.trace_id}, assessments)
        started: TraceInfo = start_trace(self, trace_info)
        return started

    def log(self: SqlAlchemyStore, location: str, spans: list[Span], tracking_uri: str | None = None) -> list[Span]:
        check_that_they_are_there(self, location, {span.trace_id for span in spans})
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


def check_that_they_are_there(
    store: SqlAlchemyStore, experiment: str | None, traces: Collection[str], assessments: Collection[str] = ()
) -> None:
    """Raise MlflowException if one of these is there already, but the trace elsewhere or the assessment on another."""
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
