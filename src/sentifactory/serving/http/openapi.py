"""Describes each route for FastAPI, which writes the OpenAPI document: schemas, the limits in force, errors."""
# Annotations are not postponed here: pydantic reads them, and they name types of the function.

from typing import Annotated, Any

from sentifactory.clean_text import VISIBLE
from sentifactory.serving.http.decision_forms import build_forms, describe_form
from sentifactory.serving.http.problems import CODES
from sentifactory.serving.http.typed_decisions import DECISIONS_ROUTE, SYSTEM_ONE_ROUTE, has_stars
from sentifactory.serving.service_settings import Limits
from sentifactory.task.task import Task

API_SUMMARY = (
    "Classifies the sentiment of reviews. In a list, a text that cannot be answered gets an error in its place; a "
    "request that cannot be answered gets one error of the same form."
)
_EXAMPLE = "房间干净，服务也好"
_ERRORS = {
    400: "The request is not HTTP, the body is not JSON, or the text is empty.",
    401: "The key is missing or wrong.",
    408: "The request came too slowly.",
    413: "Body, list or text is too long.",
    415: "The body is not sent as application/json.",
    421: "Without a key the service answers only under the host names that it knows.",
    422: "The JSON does not match the schema, the model was not taught the question, or it gave no label.",
    429: "The service is busy; Retry-After says when to try again.",
    431: "The head of the request is too large.",
    500: "Internal error of the service.",
    503: "No model is available, or no connection is free; Retry-After says when to try again.",
    504: "There was no answer in time.",
}


def describe_routes(task: Task, limits: Limits, *, has_key: bool) -> dict[str, dict[str, Any]]:
    """Return, by path, the arguments of FastAPI's `add_api_route` that describe a route.

    The schemas are for the description alone: bodies are read by `BodyReader` and checked by `check_text`, since
    FastAPI would read a body of any size and keep it until the request is answered.
    """
    from fastapi import Depends, Response
    from fastapi.security import HTTPBearer
    from pydantic import BaseModel, ConfigDict, Field

    class Schema(BaseModel):
        model_config = ConfigDict(extra="forbid")

    probability = Annotated[float, Field(ge=0, le=1)]

    class Text(Schema):
        # Not pydantic's `pattern`: its engine knows other classes of characters than JSON Schema.
        text: str = Field(
            min_length=1, max_length=limits.text_chars, examples=[_EXAMPLE], json_schema_extra={"pattern": VISIBLE}
        )

    class Result(Schema):
        text: str
        label: str | None = Field(
            description="null for an answer below the threshold", json_schema_extra={"enum": [*task.labels, None]}
        )
        emoji: str | None
        score: probability | None = Field(description="probability of the likeliest label")
        probabilities: dict[str, probability] | None = Field(json_schema_extra={"required": [*task.labels]})
        unsure: bool
        model: str
        latency_ms: float = Field(ge=0)

    class ErrorDetail(Schema):
        status: int
        code: str = Field(json_schema_extra={"enum": [*CODES]})
        message: str

    class Error(Schema):
        error: ErrorDetail

    class Health(Schema):
        live: bool
        ready: bool
        model: str = Field("", description="only for clients that have the key")
        task: str = Field("", description="task of the model; only for clients that have the key")
        tuned: bool | None = Field(
            None,
            description="whether the model was trained for a task: one that was not guesses; null where that is "
            "unknown; only for clients that have the key",
        )

    items = {
        "description": 'a string or {"text": "..."}; anything else gets an error in its place',
        "examples": [_EXAMPLE, {"text": "再也不来了"}],
    }
    body = {"anyOf": [Text.model_json_schema(), {"type": "array", "maxItems": limits.list_items, "items": items}]}
    errors = {status: {"description": words, "model": Error} for status, words in _ERRORS.items()}
    # Only describes the key: `AuthMiddleware` checks it.
    access = {"dependencies": [Depends(HTTPBearer(scheme_name="key", auto_error=False))] if has_key else []}
    forms = build_forms()
    not_found = {404: {"description": "The service has another model.", "model": Error}}

    def describe_typed(summary: str, request: type[Any], answer: type[Any], example: dict[str, Any]) -> dict[str, Any]:
        content = {"application/json": {"schema": describe_form(request), "example": example}}
        return {
            "summary": summary,
            "openapi_extra": {"requestBody": {"required": True, "content": content}},
            "responses": {200: {"description": "The answers.", "model": answer}, **errors, **not_found},
            **access,
        }

    return {
        SYSTEM_ONE_ROUTE: describe_typed(
            "Answer what the model was taught, as vLLM's typed decisions",
            forms.system_one,
            forms.system_one_answer,
            _show_system_one(task),
        ),
        DECISIONS_ROUTE: describe_typed(
            "Answer what the model was taught, as OpenAI's decisions",
            forms.decisions,
            forms.decisions_answer,
            _show_decisions(task),
        ),
        "/predict": {
            "summary": "Label a text or a list of texts",
            "openapi_extra": {"requestBody": {"required": True, "content": {"application/json": {"schema": body}}}},
            "responses": {
                200: {
                    "description": "The result, or the list of results and errors.",
                    "model": Result | list[Result | Error],
                },
                **errors,
            },
            **access,
        },
        "/health": {
            "summary": "Whether the service is running, and whether it has a model",
            "responses": {200: {"description": "It is running.", "model": Health}},
        },
        "/health/ready": {
            "summary": "200 when texts can be answered, 503 when not",
            "responses": {200: {"description": "It has a model.", "model": Health}, 503: errors[503]},
        },
        "/metrics": {
            "summary": "Metrics for Prometheus",
            "response_class": Response,
            "responses": {
                200: {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}},
                **({401: errors[401]} if has_key else {}),
            },
            **access,
        },
    }


def _show_system_one(task: Task) -> dict[str, Any]:
    question = (
        {"type": "score", "criteria": list(task.labels)}
        if has_stars(task)
        else {"type": "choice", "criteria": dict.fromkeys(task.labels, "")}  # FastAPI leaves out null
    )
    return {"state": _EXAMPLE, "questions": {task.answer_key: question}}


def _show_decisions(task: Task) -> dict[str, Any]:
    asked = {"name": task.answer_key, "instructions": ""}
    question = (
        {"type": "score", **asked, "levels": [{"label": label} for label in task.labels]}
        if has_stars(task)
        else {"type": "choice", **asked, "choices": [{"value": label} for label in task.labels]}
    )
    return {"model": "", "input": _EXAMPLE, "questions": [question]}
