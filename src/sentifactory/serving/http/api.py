"""The HTTP interface.

POST /predict, /v1/systemone, /v1/decisions; GET /health, /health/ready, /metrics, /openapi.json, /docs.
"""

# Annotations are not postponed here: FastAPI reads them, and its types are imported within the function.

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

import sentifactory
from sentifactory.serving.http.docs_page import add_docs
from sentifactory.serving.http.middleware import IS_AUTHENTICATED, AuthMiddleware
from sentifactory.serving.http.openapi import API_SUMMARY, describe_routes
from sentifactory.serving.http.prediction_service import PredictionService
from sentifactory.serving.http.problems import Problem
from sentifactory.serving.http.request_body import BodyReader, ClientGoneError
from sentifactory.serving.http.typed_decisions import (
    DECISIONS_ROUTE,
    SYSTEM_ONE_ROUTE,
    DecisionProtocol,
    OpenAiDecisions,
    SystemOne,
)
from sentifactory.serving.service_settings import Access

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

Answer = Callable[[Any], Coroutine[Any, Any, Any]]  # from the JSON of a body to that of its answer

_CLIENT_GONE_STATUS = 499  # for the metrics; it is never sent


def build_app(service: PredictionService, access: Access) -> "FastAPI":
    """Return the ASGI application of a service."""
    from fastapi import FastAPI
    from starlette.middleware.cors import CORSMiddleware

    @contextlib.asynccontextmanager
    async def run_backend(_: FastAPI) -> AsyncIterator[None]:
        await service.backend.open()
        try:
            yield
        finally:
            await service.backend.close()

    app = FastAPI(
        title="SentiFactory",
        version=sentifactory.__version__,
        description=API_SUMMARY,
        lifespan=run_backend,
        docs_url=None,  # FastAPI's own page loads its scripts from another host
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,  # otherwise fields with a default count as required in responses
    )
    add_routes(app, service, has_key=access.key is not None)
    add_docs(app)
    add_error_handlers(app, service)
    routes = [str(getattr(route, "path", "")) for route in app.routes]
    app.add_middleware(AuthMiddleware, access=access, metrics=service.metrics, routes=routes)
    if access.cors_origins:  # outermost: a browser's preflight request carries no key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(access.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return app


def add_routes(app: "FastAPI", service: PredictionService, *, has_key: bool) -> None:
    """Add the routes of the service."""
    from fastapi import Request, Response
    from fastapi.responses import JSONResponse

    bodies = BodyReader(service.limits)

    def answer_with(answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            try:
                return JSONResponse(await answer_while_connected(answer, bodies, request))
            except ClientGoneError:
                service.metrics.disconnects.inc()
                return Response(status_code=_CLIENT_GONE_STATUS)

        return respond

    def answer_typed(protocol: DecisionProtocol) -> Callable[[Request], Awaitable[Response]]:
        return answer_with(partial(service.answer_questions, protocol=protocol))

    async def get_health(request: Request) -> dict[str, Any]:
        formatter = service.formatter
        about = {"model": formatter.model, "task": formatter.task.name, "tuned": service.is_tuned}
        shown = about if request.scope[IS_AUTHENTICATED] else {}
        return {"live": True, "ready": service.backend.is_ready(), **shown}

    async def get_ready(request: Request) -> dict[str, Any]:
        service.check_ready()
        return await get_health(request)

    async def get_metrics() -> Response:
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    described = describe_routes(service.formatter.task, service.limits, has_key=has_key)
    for path, method, endpoint, operation in (
        ("/predict", "POST", answer_with(service.predict), "predict"),
        (SYSTEM_ONE_ROUTE, "POST", answer_typed(SystemOne(service.formatter)), "systemone"),
        (DECISIONS_ROUTE, "POST", answer_typed(OpenAiDecisions(service.formatter)), "decisions"),
        ("/health", "GET", get_health, "health"),
        ("/health/ready", "GET", get_ready, "ready"),
        ("/metrics", "GET", get_metrics, "metrics"),
    ):
        # No response_model: FastAPI would check and copy every answer.
        app.add_api_route(
            path, endpoint, methods=[method], operation_id=operation, response_model=None, **described[path]
        )


def add_error_handlers(app: "FastAPI", service: PredictionService) -> None:
    """Answer every error with the JSON of a `Problem`."""
    from fastapi import Request, Response
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    async def answer_problem(_: Request, error: Exception) -> Response:
        problem = error if isinstance(error, Problem) else Problem("defect", "internal error of the service")
        service.metrics.problems.labels(problem.code).inc()
        return JSONResponse(problem.to_dict(), problem.status, problem.list_headers())

    async def answer_http(request: Request, error: Exception) -> Response:
        is_method = isinstance(error, HTTPException) and error.status_code == Problem("wrong_method", "").status
        problem = (
            Problem("wrong_method", "this address takes another method")
            if is_method
            else Problem("not_found", "there is nothing at this address")
        )
        response = await answer_problem(request, problem)
        response.headers.update(getattr(error, "headers", None) or {})
        return response

    app.add_exception_handler(Problem, answer_problem)
    app.add_exception_handler(HTTPException, answer_http)


async def answer_while_connected(answer: Answer, bodies: BodyReader, request: "Request") -> Any:
    """Return the answer to a request; cancel it as soon as the client disconnects.

    Raises:
        Problem: when there is no result.
        ClientGoneError: when the client has disconnected.
    """
    work = asyncio.ensure_future(answer(await bodies.read(request)))
    disconnect = asyncio.ensure_future(request.receive())  # after the body, nothing else can come
    try:
        await asyncio.wait({work, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        raise ClientGoneError
    finally:
        for task in (work, disconnect):
            task.cancel()
        await asyncio.gather(work, disconnect, return_exceptions=True)
        # An exception refers to this frame, and its task to the exception: this cycle would keep the body in memory
        # until the next garbage collection.
        del task, work, disconnect
