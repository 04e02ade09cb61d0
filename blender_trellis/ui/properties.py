# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user sets, as Blender properties on the scene: `scene.trellis`.

A PropertyGroup for each endpoint is made from `endpoints/schema.json`; a property is called by the schema's `name`, and is
sent only when it was set. The seed is one for all endpoints.
"""

import functools
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import bpy
from bpy.props import (
    BoolProperty,
    CollectionProperty,
    EnumProperty,
    FloatProperty,
    FloatVectorProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)

from ..endpoints.schema import Schema, carry_over, describe_range, schemas, with_unit
from .callbacks import lock_seed, search_results, switch_endpoint
from .pictures import on_the_web
from .text import CONTEXT, tr

MAX_INT = 2**31 - 1  # Blender's integers have 32 bits
# Newer Blenders want to be told that a path may begin with "//"
_HAVE_IT = "is_path_supports_blend_relative" in bpy.types.Property.bl_rna.properties
_BLEND_RELATIVE = {"PATH_SUPPORTS_BLEND_RELATIVE"} if _HAVE_IT else set()
# In the panel itself, in this order; all others are in their stage's section
UP_FRONT = ("resolution",)
# One for all endpoints, under the endpoint's common names
_OF_THE_SCENE = ("seed", "number_results")
_SPELT = {"GLB": "GLB", "png": "PNG", "webp": "WebP"}  # choices that are no words
UNSET = "UNSET"  # the choice of an enum that has no default


@functools.cache
def slug(endpoint: str) -> str:
    """The endpoint's id as a Python name: its group is `scene.trellis.<slug>`."""
    return re.sub(r"\W+", "_", endpoint)


def parameters_of(endpoint: str) -> Iterator[tuple[str, Schema]]:
    """Documented name and schema of each parameter that has a property in the endpoint's group.

    That is all but the seed and the number of results, which are one for all endpoints.
    """
    for documented, prop in schemas()[endpoint]["properties"].items():
        if prop["name"] not in _OF_THE_SCENE:
            yield documented, prop


def _number(text: str) -> int:
    """An enum item's number: it is what a .blend stores, so it must not depend on the order of the items."""
    return zlib.crc32(text.encode()) & MAX_INT


def _description(prop: Schema, say: Callable[[str], str] = str) -> str:
    """What a parameter does, and what it may be; `say` translates the parts."""
    wanted = describe_range(prop, say)
    does = say("{sentence}.").format(sentence=say(prop["description"]))
    return f"{does}\n{wanted[0].upper()}{wanted[1:]}"


def _choices(prop: Schema, say: Callable[[str], str] = str) -> dict[Any, str]:
    """What a parameter may be, each in words."""
    unit = say(prop["unit"]) if prop.get("unit") else ""
    choices = prop.get("enum") or ([prop["const"]] if "const" in prop else ())
    return {choice: with_unit(str(choice), unit, say) for choice in choices}


def tooltips(say: Callable[[str], str]) -> dict[str, str]:
    """What Blender shows of the parameters beside their titles, from English to what `say` makes of the parts."""
    made: dict[str, str] = {}
    for endpoint in schemas():
        for _, prop in parameters_of(endpoint):
            made[_description(prop)] = _description(prop, say)
            made |= zip(_choices(prop).values(), _choices(prop, say).values(), strict=True)
    return made


def _items(prop: Schema) -> list[tuple[str, str, str, int]]:
    unset = [(UNSET, "Automatic", "Not set: what follows from the other settings", 0)]
    return unset * (prop["default"] is None) + [
        (
            str(choice),
            str(choice) if isinstance(choice, int) else _SPELT.get(choice, choice.capitalize()),
            words,
            choice if isinstance(choice, int) else _number(choice),
        )
        for choice, words in _choices(prop).items()
    ]


def _property(prop: Schema) -> Any:
    """The Blender property of one parameter."""
    about: dict[str, Any] = {"name": prop["title"], "description": _description(prop)}
    about["translation_context"] = CONTEXT
    default = prop["default"]
    if "enum" in prop or "const" in prop:
        return EnumProperty(items=_items(prop), default=str(default or UNSET), **about)
    if prop["type"] == "boolean":
        return BoolProperty(default=bool(default), **about)
    if prop["type"] == "string":
        if prop.get("format") == "file-path":
            about |= {"subtype": "FILE_PATH", "options": _BLEND_RELATIVE}
        return StringProperty(default=default or "", **about)
    limits = {"min": prop.get("minimum", prop.get("exclusiveMinimum")), "max": prop.get("maximum")}
    given = {edge: value for edge, value in limits.items() if value is not None}
    start = default if default is not None else given.get("min", 0)
    if prop["type"] == "integer":
        given = {edge: min(value, MAX_INT) for edge, value in given.items()}
        return IntProperty(default=start, **given, **about)
    return FloatProperty(default=start, precision=2, step=10, **given, **about)


def _group(endpoint: str) -> type[bpy.types.PropertyGroup]:
    annotations = {prop["name"]: _property(prop) for _, prop in parameters_of(endpoint)}
    body = {"__annotations__": annotations, "__doc__": f"The parameters of {endpoint}."}
    return type(f"TRELLIS_PG_{slug(endpoint)}", (bpy.types.PropertyGroup,), body)


GROUPS = {endpoint: _group(endpoint) for endpoint in schemas()}


class TRELLIS_PG_image(bpy.types.PropertyGroup):
    """One picture: an image of this file, a file on disk, or an address on the web; with the name it had where the file has
    another.

    Its position in the list says which view it shows.
    """

    image: PointerProperty(name="Image", description="An image of this file", type=bpy.types.Image)
    filepath: StringProperty(
        name="File", description="A picture file", subtype="FILE_PATH", options=set()
    )


class TRELLIS_PG_placeholder(bpy.types.PropertyGroup):
    """An empty that stands where a job's model will be, and the name it was given last."""

    job_id: StringProperty()
    object: PointerProperty(type=bpy.types.Object)
    shown: StringProperty()


def _endpoint_items() -> list[tuple[str, str, str, int]]:
    return [
        (endpoint, schema["title"], schema["description"], _number(endpoint))
        for endpoint, schema in schemas().items()
    ]


_DEFAULT_ENDPOINT = _endpoint_items()[0][0]


class TRELLIS_PG_scene(bpy.types.PropertyGroup):
    """All of `scene.trellis`, and a pointer to each endpoint's group.

    It has no methods: Blender 4.2 as a module keeps the class beyond Python's end, with it their globals, `bpy` among them, and
    crashes.
    """

    id: StringProperty(
        description="By which a result finds the scene that asked for it", options={"HIDDEN"}
    )
    images: CollectionProperty(type=TRELLIS_PG_image, name="Images")
    cut_out: BoolProperty(
        name="Separate Background",
        description="Take a plain background away here, so that what is shown is what will be sent. Off: opaque pictures are "
        "sent as they are, and cut out where the model is made. Pictures with transparency stay as they are",
        default=True,
    )
    drop: FloatVectorProperty(
        name="Drop Point",
        description="Where an image was dropped, and where the next model will stand",
        subtype="TRANSLATION",
    )
    drop_set: BoolProperty(
        name="Use Drop Point",
        description="The next model stands where an image was dropped, not at the 3D cursor",
    )
    place: FloatVectorProperty(
        name="Place",
        description="Where the model is to stand",
        subtype="TRANSLATION",
    )
    place_set: BoolProperty(
        name="Use Place",
        description="Models stand at the chosen place, not at the 3D cursor",
    )
    active: IntProperty(name="Active Image", description="The image that is shown large", min=0)
    endpoint: EnumProperty(
        name="Made By",
        description="Which model makes it, and where",
        items=_endpoint_items(),
        default=_DEFAULT_ENDPOINT,
        update=switch_endpoint,
    )
    last_endpoint: StringProperty(default=_DEFAULT_ENDPOINT, options={"HIDDEN"})
    notice: StringProperty(options={"HIDDEN", "SKIP_SAVE"})
    seed: IntProperty(
        name="Seed",
        description="Start of the random numbers; the same seed, pictures and parameters give the same model. "
        "Typing one locks it",
        min=0,
        max=MAX_INT,
        update=lock_seed,
    )
    seed_locked: BoolProperty(
        name="Keep This Seed",
        description="Use this seed again; unlocked, each model gets a new one",
    )
    variations: IntProperty(
        name="Variations",
        description="How many models to make, each with a seed of its own: this one and those that follow it. "
        "They stand in a row; each is charged",
        default=1,
        min=1,
        max=4,
    )
    preset: StringProperty(description="The preset that was applied last", options={"HIDDEN"})
    preset_made: StringProperty(description="What it made of the parameters", options={"HIDDEN"})
    height: FloatProperty(
        name="Height",
        description="How tall the model stands in the scene; 0 keeps the size it was made in, about 1 m",
        min=0,
        soft_max=100,
        subtype="DISTANCE",
        precision=2,
        step=10,
    )
    lods: IntProperty(
        name="LODs",
        description="How many coarser copies each model gets, for a game engine or for the distance. They are in a collection of "
        "their own that is switched off",
        min=0,
        max=4,
    )
    asset: BoolProperty(
        name="Mark as Asset",
        description="Show each model in the Asset Browser, with its picture. In a file of an asset library it is put into the "
        "catalogue Trellis",
    )
    asset_tags: StringProperty(
        name="Tags", description="Words to find the asset by, separated by commas"
    )
    placeholders: CollectionProperty(type=TRELLIS_PG_placeholder, options={"HIDDEN"})


# A vector of percentages Blender does not know
TRELLIS_PG_scene.__annotations__.update(
    {
        f"lod_{level}": FloatProperty(
            name=f"LOD {level}",
            description="How many of the model's faces this copy keeps",
            default=share,
            min=0.1,
            max=99,
            precision=0,
            step=500,
            subtype="PERCENTAGE",
        )
        for level, share in enumerate((50, 25, 10, 5), 1)
    }
)
TRELLIS_PG_scene.__annotations__.update(
    {slug(endpoint): PointerProperty(type=group) for endpoint, group in GROUPS.items()}
)

CLASSES = (TRELLIS_PG_image, TRELLIS_PG_placeholder, *GROUPS.values(), TRELLIS_PG_scene)


def group_of(settings: TRELLIS_PG_scene, endpoint: str) -> bpy.types.PropertyGroup:
    """The properties of one endpoint."""
    found: bpy.types.PropertyGroup = getattr(settings, slug(endpoint))
    return found


def use_files(settings: TRELLIS_PG_scene, paths: Sequence[str], *, replace: bool = True) -> None:
    """Take picture files as the views, in place of those that are there or after them, and show the first of them."""
    if replace:
        settings.images.clear()
    if not settings.images:
        settings.drop_set = False
    for path in paths:
        settings.images.add().filepath = path
    settings.active = len(settings.images) - len(paths)


def label_of(item: TRELLIS_PG_image) -> str:
    """What to call one of the images."""
    return str(item.image.name if item.image else item.name or file_name(item.filepath))


def file_name(filepath: str) -> str:
    """What to call a picture file, or a picture on the web."""
    if on_the_web(filepath):
        return unquote(urlsplit(filepath).path.rpartition("/")[2]) or filepath
    return str(bpy.path.basename(filepath))


def _value(group: bpy.types.PropertyGroup, prop: Schema) -> Any:
    value = getattr(group, prop["name"])
    if prop["type"] == "number":  # Blender's floats have 32 bits: 0.7 comes back as 0.699999988
        return float(f"{value:.7g}")
    if prop.get("format") == "file-path":  # it may be relative to the .blend file
        return bpy.path.abspath(value)
    return int(value) if prop["type"] == "integer" else value


def changed(group: bpy.types.PropertyGroup, prop: Schema) -> bool:
    """Whether the user gave this parameter another value than its default."""
    name = prop["name"]
    if not group.is_property_set(name):
        return False
    value = _value(group, prop)
    return bool(value != prop["default"]) and value not in ("", UNSET)


def chosen(settings: TRELLIS_PG_scene, endpoint: str) -> dict[str, Any]:
    """The parameters that differ from the endpoint's defaults, by documented name, without the seed."""
    group = group_of(settings, endpoint)
    return {
        documented: _value(group, prop)
        for documented, prop in parameters_of(endpoint)
        if changed(group, prop)
    }


def parameters(scene: bpy.types.Scene, endpoint: str | None = None) -> dict[str, Any]:
    """What to ask the endpoint for (the chosen one where None): what was changed, the seed, and how many results."""
    settings = scene.trellis
    endpoint = endpoint or settings.endpoint
    asked = {**chosen(settings, endpoint), documented_name(endpoint, "seed"): settings.seed}
    several = documented_name(endpoint, "number_results")
    return asked | ({several: settings.variations} if several else {})


def documented_name(endpoint: str, name: str) -> str:
    """The endpoint's documented name of the parameter with this common name; "" where it has none."""
    properties = schemas()[endpoint]["properties"].items()
    return next((documented for documented, prop in properties if prop["name"] == name), "")


def variations(settings: TRELLIS_PG_scene, endpoint: str) -> int:
    """How many models to make; one where the active object's mesh gets a new texture."""
    return 1 if schemas()[endpoint]["mesh"] else int(settings.variations)


def assign(settings: TRELLIS_PG_scene, endpoint: str, values: dict[str, Any]) -> None:
    """Set parameters of an endpoint, given by documented name."""
    group, known = group_of(settings, endpoint), dict(parameters_of(endpoint))
    for documented, value in values.items():
        prop = known[documented]
        setattr(group, prop["name"], str(value) if "enum" in prop or "const" in prop else value)


def adopt(
    settings: TRELLIS_PG_scene, endpoint: str, values: dict[str, Any], seed: int | None
) -> None:
    """Set endpoint, parameters and seed to what a model was made with: `values` by documented name, all others as by default.
    A seed that Blender's integers cannot hold is left out."""
    settings.endpoint = endpoint
    group, known = group_of(settings, endpoint), dict(parameters_of(endpoint))
    for prop in known.values():
        group.property_unset(prop["name"])
    different = {
        documented: value
        for documented, value in values.items()
        if documented in known and value not in (None, known[documented]["default"])
    }
    assign(settings, endpoint, different)
    settings.notice, settings.variations = "", 1
    if seed is not None and seed <= MAX_INT:
        settings.seed = seed


def carry(settings: TRELLIS_PG_scene, source: str, target: str) -> list[str]:
    """Take what was changed for `source` over to `target`; a sentence for each value that had to give way."""
    kept, changes = carry_over(chosen(settings, source), source, target)
    assign(settings, target, kept)
    return [
        tr("{stage} · {name}: {before} became {after}, the nearest it takes.").format(
            stage=tr(change.prop["stage"].capitalize()),
            name=tr(change.prop["title"]),
            before=change.before,
            after=change.after,
        )
        for change in changes
    ]


def draw_seed(settings: TRELLIS_PG_scene) -> None:
    """A new random seed, which stays unlocked."""
    import random

    settings.seed = random.SystemRandom().randrange(MAX_INT)
    settings.seed_locked = False


def register() -> None:
    bpy.types.Scene.trellis = PointerProperty(type=TRELLIS_PG_scene, name="Trellis")
    bpy.types.WindowManager.trellis_search = StringProperty(
        name="Search",
        description="Show the results whose pictures' names or endpoint have these words",
        options={"SKIP_SAVE", "TEXTEDIT_UPDATE"},
        update=search_results,
    )


def unregister() -> None:
    del bpy.types.WindowManager.trellis_search
    del bpy.types.Scene.trellis
