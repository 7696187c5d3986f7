"""The HTTP interface: POST /predict, GET /health, /health/ready, /metrics, /openapi.json and /docs."""
# Annotations are not postponed here: FastAPI reads them, and its types are imported within the function.

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from sentifactory.serving.bodies import BodyReader, ClientGoneError
from sentifactory.serving.docs_page import add_docs
from sentifactory.serving.gate import IS_KNOWN, Gate
from sentifactory.serving.openapi import describe_api
from sentifactory.serving.problems import Problem
from sentifactory.serving.service import PredictionService
from sentifactory.serving.settings import Access

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

_CLIENT_GONE_STATUS = 499  # never sent: nobody is there to read it


def build_app(service: PredictionService, access: Access) -> "FastAPI":
    """Return the ASGI application of a service."""
    from fastapi import FastAPI
    from starlette.middleware.cors import CORSMiddleware

    @contextlib.asynccontextmanager
    async def live(_: FastAPI) -> AsyncIterator[None]:
        await service.backend.open()
        try:
            yield
        finally:
            await service.backend.close()

    schema = describe_api(service.reporter.task, service.limits, has_key=access.key is not None)
    app = FastAPI(
        title=schema["info"]["title"],
        version=schema["info"]["version"],
        lifespan=live,
        docs_url=None,  # FastAPI's own page loads its scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.openapi = lambda: schema  # type: ignore[method-assign]
    add_routes(app, service)
    add_docs(app)
    add_error_answers(app, service)
    routes = [str(getattr(route, "path", "")) for route in app.routes]
    app.add_middleware(Gate, access=access, metrics=service.metrics, routes=routes)
    if access.cors_origins:  # outermost: a browser asks for permission without a key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(access.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return app


def add_routes(app: "FastAPI", service: PredictionService) -> None:
    """Add what the service answers."""
    from fastapi import Request, Response
    from fastapi.responses import JSONResponse

    bodies = BodyReader(service.limits)

    async def predict(request: Request) -> Response:
        try:
            return JSONResponse(await predict_while_there(service, bodies, request))
        except ClientGoneError:
            service.metrics.disconnects.inc()
            return Response(status_code=_CLIENT_GONE_STATUS)

    async def tell_health(request: Request) -> dict[str, Any]:
        reporter = service.reporter
        named = {"model": reporter.model, "task": reporter.task.name} if request.scope[IS_KNOWN] else {}
        return {"live": True, "ready": service.backend.is_ready(), **named}

    async def tell_ready(request: Request) -> dict[str, Any]:
        service.check_ready()
        return await tell_health(request)

    async def tell_metrics() -> Response:
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    app.add_api_route("/predict", predict, methods=["POST"], response_model=None)
    app.add_api_route("/health", tell_health, methods=["GET"])
    app.add_api_route("/health/ready", tell_ready, methods=["GET"])
    app.add_api_route("/metrics", tell_metrics, methods=["GET"], response_model=None)


def add_error_answers(app: "FastAPI", service: PredictionService) -> None:
    """Answer every failure in the one shape that `Problem` has."""
    from fastapi import Request, Response
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    async def answer_problem(_: Request, error: Exception) -> Response:
        problem = error if isinstance(error, Problem) else Problem("defect", "the service has made a mistake")
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


async def predict_while_there(service: PredictionService, bodies: BodyReader, request: "Request") -> Any:
    """Return the answer to a request; when the client goes away, its texts are given up at once.

    Raises:
        Problem: when there is no result.
        ClientGoneError: when the client has gone away.
    """
    work = asyncio.ensure_future(service.predict(await bodies.read(request)))
    departure = asyncio.ensure_future(request.receive())  # after the body, only a disconnect can come
    try:
        await asyncio.wait({work, departure}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        raise ClientGoneError
    finally:
        for task in (work, departure):
            task.cancel()
        await asyncio.gather(work, departure, return_exceptions=True)
        # A failure holds this frame, and its task the failure: the body would stay until garbage is looked for.
        del task, work, departure
