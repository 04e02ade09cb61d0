# SPDX-License-Identifier: GPL-3.0-or-later
"""What every endpoint is made of: the model's base class, and the functions that describe one parameter.

A parameter's Python name is the same at every endpoint that has it (fal's names for TRELLIS.2 serve as the common ones); its
documented name, which goes on the wire and is given to `--set`, is the alias, dotted where the service nests it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import EndpointError, ParameterError
from .schema import describe_range

STAGES = ("image", "structure", "shape", "texture", "mesh", "delivery")
VIEWS = ("front", "right", "back", "left")


def parameter(
    default: object,
    *,
    stage: str,
    label: str,
    help: str,
    unit: str = "",
    wire: str | None = None,
    header: str | None = None,
    query: str | None = None,
    source: str | None = None,
    advanced: bool = False,
    always: bool = False,
    file: bool = False,
    **limits: Any,
) -> Any:
    """One parameter. `default=None` means that the service does not document its default, so unset stays unset.

    `always` sends the value even when it equals the default, so that price and result do not hang on a default that a
    service may change. `header` and `query` send it as that HTTP header, or as that parameter of the URL, instead of in
    the body. `source` is where the parameter is documented, if elsewhere than its endpoint. `file`: a text that is the path
    of a file.
    """
    assert stage in STAGES
    extra: dict[str, Any] = {"stage": stage, "unit": unit, "advanced": advanced, "always": always}
    extra |= {"header": header} if header else {}
    extra |= {"query": query} if query else {}
    extra |= {"source": source} if source else {}
    extra |= {"format": "file-path"} if file else {}
    return Field(
        default, alias=wire, title=label, description=help, json_schema_extra=extra, **limits
    )


def seed(*, wire: str | None = None, maximum: int = 2**31 - 1) -> Any:
    """The seed; by default up to 2³¹−1, since fal documents no range."""
    return parameter(
        None,
        stage="structure",
        label="Seed",
        help="Start of the random numbers; the same seed, pictures and parameters give the same model",
        wire=wire,
        always=True,
        ge=0,
        le=maximum,
    )


class Endpoint(BaseModel):
    """A checked request to one endpoint, without its images and its mesh."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    id: ClassVar[str]
    title: ClassVar[str]
    service: ClassVar[str]
    source: ClassVar[str]  # where the parameters are documented
    image_key: ClassVar[str]
    max_images: ClassVar[int] = 1
    views: ClassVar[tuple[str, ...]] = ()  # what the pictures show by their order, if it says that
    max_side: ClassVar[int] = 2048  # pixels; a larger picture is scaled down before it is sent
    # Around the subject, in the picture that the model sees: this share of the subject's longer side
    margin: ClassVar[float] = 0.0
    mesh_key: ClassVar[str] = ""  # where the mesh's URL goes, at an endpoint that takes one
    fixed: ClassVar[dict[str, Any]] = {}  # what every body begins with
    # What may be given in place of a picture's file, and goes out as it is: "url", "uuid"
    references: ClassVar[frozenset[str]] = frozenset()
    # Common names of parameters of which at least one must be given
    one_of: ClassVar[tuple[str, ...]] = ()
    unconfirmed: ClassVar[bool] = False  # no documentation of the service itself names it

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """The request with `values`, keyed by documented or common name.

        Raises:
            ParameterError: an unknown parameter or a value out of range, in words.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise cls._in_words(error) from error

    @classmethod
    def _in_words(cls, error: ValidationError) -> ParameterError:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        properties = cls.model_json_schema()["properties"]
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, properties, n=1)
            hint = f" Did you mean {near[0]}?" if near else f" It knows {', '.join(properties)}."
            return ParameterError(f"{cls.id} has no parameter {name!r}.{hint}", parameter=name)
        if first["type"] == "value_error":  # one of our own cross-field checks, already in words
            return ParameterError(str(first["ctx"]["error"]), parameter=name)
        field = cls.model_fields.get(name)
        name = (field.alias if field else None) or name
        wanted = describe_range(properties[name])
        message = f"{name} must be {wanted}, not {first['input']!r}."
        return ParameterError(message, parameter=name)

    @classmethod
    def wire_names(cls) -> dict[str, str]:
        """Documented name of each parameter, by its Python name."""
        return {name: field.alias or name for name, field in cls.model_fields.items()}

    def values(self) -> dict[str, Any]:
        """Every known value by documented name: what journal and recipe record."""
        dump = self.model_dump(by_alias=True)
        return {name: value for name, value in dump.items() if value is not None}

    def _sent(self, place: str) -> dict[str, Any]:
        """What goes into the "body", as a "header" or into the "query", by its name there."""
        sent = {}
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            assert isinstance(extra, dict)
            elsewhere = "header" in extra or "query" in extra
            there = extra.get(place) if place != "body" else not elsewhere and (field.alias or name)
            value = getattr(self, name)
            if there and value is not None and (extra["always"] or value != field.default):
                sent[str(there)] = value
        return sent

    def body(self, images: Sequence[str], mesh: str = "") -> dict[str, Any]:
        """The request's JSON body.

        `images` are URLs, data URIs or other `references`, as many as `max_images` allows; `mesh` is the URL of a mesh.

        Raises:
            EndpointError: a mesh is missing, or is none of this endpoint's inputs.
        """
        if self.mesh_key and not mesh:
            raise EndpointError(f"{self.id} needs a mesh: give one.")
        if mesh and not self.mesh_key:
            raise EndpointError(f"{self.id} takes no mesh: leave it out.")
        inputs: dict[str, Any] = {
            self.image_key: images[0] if self.max_images == 1 else list(images)
        }
        inputs |= {self.mesh_key: mesh} if mesh else {}
        body: dict[str, Any] = {}
        for name, value in {**self.fixed, **inputs, **self._sent("body")}.items():
            *path, last = name.split(".")
            inner = body
            for key in path:
                inner = inner.setdefault(key, {})
            inner[last] = value
        return body

    def headers(self) -> dict[str, str]:
        """Parameters which the service takes as HTTP headers."""
        return {name: str(value) for name, value in self._sent("header").items()}

    def query(self) -> dict[str, str]:
        """Parameters which the service takes in the URL."""
        return {name: str(value) for name, value in self._sent("query").items()}
