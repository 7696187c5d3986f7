"""The OpenAPI description of the interface, with the limits that are in force."""

from __future__ import annotations

from typing import Any

import sentifactory
from sentifactory.corpus.cleaning import VISIBLE
from sentifactory.serving.problems import CODES
from sentifactory.serving.settings import Limits
from sentifactory.task import Task

_SUMMARY = (
    "Reads the sentiment of reviews. A text that cannot be answered gets an error in its place; a request that cannot "
    "be answered gets one error in the same shape."
)
# By status, those that POST /predict may answer with.
_WORDS = {
    400: "The request is no HTTP, the body is no JSON, or the text is empty.",
    401: "The key is missing or wrong.",
    408: "The request came too slowly.",
    413: "Body, list or text is too long.",
    415: "The body is not sent as application/json.",
    421: "Without a key the service answers only under the host names that it knows.",
    422: "The JSON is not of the form that is described, or the model named no label.",
    429: "The service is busy; Retry-After says when to come back.",
    431: "The head of the request is too large.",
    500: "The service has made a mistake.",
    503: "There is no model at the moment, or no connection is free; Retry-After says when to come back.",
    504: "There was no answer in time.",
}


def describe_api(task: Task, limits: Limits, *, has_key: bool) -> dict[str, Any]:
    """Return the OpenAPI document."""
    errors = {str(status): _describe_error(status) for status in _WORDS}
    predict = {
        "summary": "Label a text or a list of texts",
        "operationId": "predict",
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("Request")}}},
        "responses": {"200": _describe_json("The result, or the list of results and errors.", "Response"), **errors},
    }
    health = {
        "summary": "Whether the service lives, and whether it has a model",
        "operationId": "health",
        "security": [],
        "responses": {"200": _describe_json("It lives.", "Health")},
    }
    ready = {
        "summary": "200 when texts can be answered, 503 when not",
        "operationId": "ready",
        "security": [],
        "responses": {"200": _describe_json("It has a model.", "Health"), "503": _describe_error(503)},
    }
    text = {"schema": {"type": "string"}}
    metrics = {
        "summary": "Figures for Prometheus",
        "operationId": "metrics",
        "responses": {"200": {"description": "The figures.", "content": {"text/plain": text}}},
    }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "SentiFactory", "version": sentifactory.__version__, "description": _SUMMARY},
        "paths": {
            "/predict": {"post": predict},
            "/health": {"get": health},
            "/health/ready": {"get": ready},
            "/metrics": {"get": metrics},
        },
        "components": {"schemas": describe_schemas(task, limits)},
    }
    if has_key:
        metrics["responses"]["401"] = _describe_error(401)  # type: ignore[index]
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return document


def describe_schemas(task: Task, limits: Limits) -> dict[str, Any]:
    """Return the schemas of bodies and answers."""
    text = {
        "type": "string",
        "minLength": 1,
        "maxLength": limits.text_chars,
        "pattern": VISIBLE,
        "examples": ["房间干净，服务也好"],
    }
    either = {"type": "number", "minimum": 0, "maximum": 1}
    shares = {"type": "object", "properties": dict.fromkeys(task.labels, either), "required": list(task.labels)}
    result = {
        "text": {"type": "string"},
        "label": {"enum": [*task.labels, None], "description": "null for an answer below the threshold"},
        "emoji": {"type": ["string", "null"]},
        "score": {**either, "type": ["number", "null"], "description": "probability of the likeliest label"},
        "probabilities": {"anyOf": [shares, {"type": "null"}]},
        "unsure": {"type": "boolean"},
        "model": {"type": "string"},
        "latency_ms": {"type": "number", "minimum": 0},
    }
    error = {
        "status": {"type": "integer"},
        "code": {"enum": list(CODES)},
        "message": {"type": "string"},
    }
    health = {
        "live": {"type": "boolean"},
        "ready": {"type": "boolean"},
        "model": {"type": "string", "description": "named to who has the key"},
        "task": {"type": "string", "description": "what the model is asked; named to who has the key"},
    }
    return {
        "Text": _describe_object({"text": text}),
        "Request": {
            "anyOf": [
                _ref("Text"),
                {
                    "type": "array",
                    "maxItems": limits.list_items,
                    "items": {
                        "description": 'a string or {"text": "..."}; anything else gets an error in its place',
                        "examples": ["房间干净，服务也好", {"text": "再也不来了"}],
                    },
                },
            ]
        },
        "Result": _describe_object(result),
        "Error": _describe_object({"error": _describe_object(error)}),
        "Response": {
            "anyOf": [_ref("Result"), {"type": "array", "items": {"anyOf": [_ref("Result"), _ref("Error")]}}]
        },
        "Health": {**_describe_object(health), "required": ["live", "ready"]},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _describe_object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _describe_json(words: str, schema: str) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": _ref(schema)}}}


def _describe_error(status: int) -> dict[str, Any]:
    return _describe_json(_WORDS[status], "Error")
