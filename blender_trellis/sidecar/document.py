# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sidecar's OpenAPI document says of keys, bodies and answers, beyond what the routes' own types tell."""

from __future__ import annotations

from typing import Any

from fastapi.security import APIKeyHeader

from ..endpoints import get
from ..endpoints.schema import schemas

_Answers = dict[int | str, dict[str, Any]]

GLB = "data:model/gltf-binary;base64,"
KEY = APIKeyHeader(name="Authorization", auto_error=False)


def _answer(description: str, *keys: str) -> dict[str, Any]:
    """What the OpenAPI document says of an answer: JSON with these keys, all of them texts."""
    texts = {"type": "object", "properties": {key: {"type": "string"} for key in keys}}
    content = {"application/json": {"schema": texts | {"required": [*keys]}}}
    return {"description": description, "content": content}


# Answers of every route, where door.py or the disk decides
REFUSALS: _Answers = {
    401: _answer("The key is missing or wrong", "detail"),
    403: _answer("A web page asks, or a client for what is the owner's", "detail"),
    408: _answer("The body came too slowly", "detail"),
    413: _answer("The body is too long", "detail"),
    421: _answer("The server is not known by that name", "detail"),
    507: _answer("The disk takes nothing", "detail"),
}
# Of single ones
NO_JOB: _Answers = {404: _answer("There is no such job", "status")}
ACCEPTED: _Answers = {202: _answer("Not done yet", "status")}
NOT_NOW: _Answers = {400: _answer("It is too early, or too late")}
NO_JSON: _Answers = {400: _answer("The body is no JSON", "detail")}
FAILED: _Answers = {"default": _answer("Why the job failed", "detail")}


def body_of(endpoint: str) -> dict[str, Any]:
    """What the OpenAPI document says of a request's body."""
    model, about = get(endpoint), schemas()[endpoint]
    picture = {"type": "string", "pattern": "^data:image/"}
    urls = {"type": "array", "items": picture, "minItems": 1, "maxItems": model.max_images}
    inputs: dict[str, Any] = {model.image_key: urls}
    if model.mesh_key:
        inputs[model.mesh_key] = {"type": "string", "pattern": f"^{GLB}"}
    schema = {**about, "properties": inputs | about["properties"], "required": [*inputs]}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}
