# SPDX-License-Identifier: GPL-3.0-or-later
"""From what the scene says to an order: what is missing for one, in English as errors are, and the order itself, for a model
or for a batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import bpy

from ..endpoints.schema import schemas, unknown_endpoint
from ..errors import EndpointError, ImageError, TrellisError
from . import installs, preferences, properties, pump
from .text import tr
from .wishes import is_local, wish_for, wish_of

if TYPE_CHECKING:
    from ..config import Config
    from ..generation.request import Request
    from ..generation.rows import Problem, Row
    from .pictures import Picture

RETEXTURE = "fal-ai/trellis-2/retexture"
LOCAL_RETEXTURE = "local/trellis-2/retexture"
OFFLINE = "Allow Online Access in the preferences, under System"
NOT_INSTALLED = "Install TRELLIS.2 on this computer, or choose another endpoint"


class Order(NamedTuple):
    """What the user asked for. `mesh` is a GLB, for an endpoint that works on one; `id` the job's, drawn later where "";
    `cut_out` as in a `Request`.

    Of several in one row each knows all: `wish["row"]` holds their ids.
    """

    endpoint: str
    title: str
    pictures: list[Picture]
    parameters: dict[str, Any]
    wish: dict[str, Any]
    mesh: bytes | None = None
    id: str = ""
    cut_out: bool = False

    def request(self, folder: Path) -> Request:
        """What the runner is asked for, in any thread; what is no file yet is written to `folder`.

        Raises:
            ImageError: a picture cannot be fetched.
        """
        from ..generation.request import Request
        from .pictures import write

        images = [write(picture, folder, number) for number, picture in enumerate(self.pictures)]
        mesh = None
        if self.mesh:
            mesh = folder / "model.glb"
            mesh.write_bytes(self.mesh)
        return Request(
            self.endpoint, images, self.parameters, self.wish, mesh, cut_out=self.cut_out
        )


def missing(scene: bpy.types.Scene) -> str:
    """Why nothing can be generated with the scene's settings: a short sentence that says what to do; "" if it can."""
    settings = scene.trellis
    count = len(settings.images)
    most = schemas()[settings.endpoint]["images"]["maximum"]
    if not count:
        return "Add an image"
    if count > most:
        return f"Remove {count - most} of the images: this takes {most}"
    endpoint: str = settings.endpoint
    return no_mesh(endpoint) or unreachable(endpoint) or _none_of(settings, endpoint)


def _none_of(settings: Any, endpoint: str) -> str:
    """Which parameters the endpoint needs one of, if none is given."""
    needed = {
        documented: prop
        for documented, prop in properties.parameters_of(endpoint)
        if prop["name"] in schemas()[endpoint]["one_of"]
    }
    if not needed or needed.keys() & properties.chosen(settings, endpoint).keys():
        return ""
    names = (f"{tr(prop['stage'].capitalize())} · {tr(prop['title'])}" for prop in needed.values())
    return f"Set one of these: {', '.join(names)}"


def no_mesh(endpoint: str) -> str:
    """Why the active object cannot be what the endpoint works on; "" if it can, or if the endpoint works on pictures alone."""
    if not schemas()[endpoint]["mesh"]:
        return ""
    obj = bpy.context.active_object
    if obj is None or obj.type != "MESH" or not obj.visible_get():
        return "Select a mesh object"
    if not is_local(obj):
        return "Make the selected object local"
    return "" if obj.mode == "OBJECT" else "Go to Object Mode"


def retexture(scene: bpy.types.Scene) -> str:
    """The endpoint that gives an object a new texture: the chosen one if it can, else fal's, or this computer's without a key."""
    chosen: str = scene.trellis.endpoint
    if schemas()[chosen]["mesh"]:
        return chosen
    # While the keychain is asked it is not known whether fal has a key
    elsewhere = not unreachable(RETEXTURE) and not pump.get().keys.busy
    here = not elsewhere and not unreachable(LOCAL_RETEXTURE)
    return LOCAL_RETEXTURE if here else RETEXTURE


def unreachable(endpoint: str) -> str:
    """Why the endpoint's service cannot be asked: no online access, no key, a wrong address, not installed; "" if it can."""
    from ..config import LOOPBACK

    service = schemas()[endpoint]["service"]
    try:
        config = preferences.config()
    except TrellisError as error:
        return error.message
    base, key = _access(service, config)
    if base and urlsplit(base).hostname not in LOOPBACK and not bpy.app.online_access:
        return OFFLINE
    if key is not None and not key:
        held = pump.get().keys.held(service)
        # Until the keychain has answered there may be a key
        if held and not held.key:
            name = preferences.SERVICES.get(service, service)
            return held.trouble or f"Set the key for {name} in the preferences"
    # Of another computer only its own answer tells
    if not base and installs.get().lacks(endpoint):
        return NOT_INSTALLED
    return ""


def _access(service: str, config: Config) -> tuple[str, str | None]:
    """Where a service is, and its key; None where it needs none."""
    known: dict[str, tuple[str, str | None]] = {
        "fal": (config.fal_queue_url, config.fal_key),
        "runware": (config.runware_url, config.runware_key),
    }
    return known.get(service, (config.sidecar_url, None))


def order_of(scene: bpy.types.Scene, endpoint: str = "", filepath: str = "") -> Order:
    """The order for the scene's settings; `endpoint` and `filepath` (one picture) come before them.

    Raises:
        TrellisError: something is missing or wrong, in words.
    """
    from . import pictures

    settings: Any = scene.trellis
    endpoint = endpoint or settings.endpoint
    if endpoint not in schemas():
        raise unknown_endpoint(endpoint)
    why = no_mesh(endpoint) or unreachable(endpoint)
    if why:
        raise EndpointError(f"{why}.")
    if filepath:
        taken: list[Picture] = [pictures.from_file(filepath)]
        names = [properties.file_name(filepath)]
    else:
        taken = [pictures.of(item) for item in settings.images]
        names = [properties.label_of(item) for item in settings.images]
    if not taken:
        raise ImageError("There is no image. Add one.")
    mesh, wish = None, wish_of(scene)
    if schemas()[endpoint]["mesh"]:
        mesh, wish = _export(bpy.context.active_object, scene)
    elif not filepath:
        wish["location"] = _place_of(settings) or wish["location"]
    if not settings.seed_locked:
        properties.draw_seed(settings)
    return Order(
        endpoint=endpoint,
        title=Path(names[0]).stem or endpoint,
        pictures=taken,
        parameters=properties.parameters(scene, endpoint),
        wish=wish,
        mesh=mesh,
        cut_out=settings.cut_out,
    )


def _place_of(settings: Any) -> Sequence[float] | None:
    """Where the model is wanted: where its picture was dropped, else at the place that was chosen; None if there is neither."""
    if settings.drop_set:
        return tuple(settings.drop)
    return tuple(settings.place) if settings.place_set else None


def orders_of(scene: bpy.types.Scene, endpoint: str = "", filepath: str = "") -> list[Order]:
    """The orders for all variations that the scene asks for, with the seeds from the shown one on.

    One for all of them where the endpoint makes several results by itself. Raises as `order_of`.
    """
    from uuid import uuid4

    first = order_of(scene, endpoint, filepath)
    count = properties.variations(scene.trellis, first.endpoint)
    if count == 1 or properties.documented_name(first.endpoint, "number_results"):
        return [first]
    row = [str(uuid4()) for _ in range(count)]
    seed = properties.documented_name(first.endpoint, "seed")
    seeds = [
        (first.parameters[seed] + number) % (properties.MAX_INT + 1) for number in range(count)
    ]
    return [
        first._replace(
            id=each, parameters=first.parameters | {seed: drawn}, wish=first.wish | {"row": row}
        )
        for each, drawn in zip(row, seeds, strict=True)
    ]


class BatchOrder(NamedTuple):
    """What the user asked for of the `pictures` in the folder `source`: a model of each by each of the `variants`, which are
    parameters. What comes of it is written to `folder`.

    `ids` are for the jobs of all rows, `made` those of the jobs that made models in earlier runs.
    """

    title: str
    source: Path
    pictures: Sequence[Path]
    endpoint: str
    variants: list[dict[str, Any]]
    cut_out: bool
    folder: Path
    wish: dict[str, Any]
    ids: list[str]
    made: list[str]

    def rows(self) -> tuple[list[Row], list[Problem]]:
        """The rows of the batch, as the command line has them for the folder; in any thread."""
        from ..generation.request import Request
        from ..generation.rows import rows_of

        asked = [
            Request(self.endpoint, [], parameters, self.wish, cut_out=self.cut_out)
            for parameters in self.variants
        ]
        return rows_of(self.pictures, self.source, asked)


def batch_of(
    scene: bpy.types.Scene, source: Path, pictures: Sequence[Path], *, anew: bool = False
) -> BatchOrder:
    """The order for one model, or all variations, of each of the pictures in a folder, which stand in one row.

    Their results have a folder by what is asked for, so that whoever asks for the same again goes on there; `anew`: in a new one.

    Raises:
        TrellisError: the service cannot be asked, or another process makes the batch at this moment.
    """
    from uuid import uuid4

    from ..generation.library import file_name
    from ..generation.rows import outputs_of

    settings: Any = scene.trellis
    endpoint: str = settings.endpoint
    if why := unreachable(endpoint):
        raise EndpointError(f"{why}.")
    variants = _variants(scene)
    config = preferences.config()
    asked = [str(config.home), str(source.resolve()), endpoint, variants[0], settings.cut_out]
    known = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
    name = file_name(source.resolve().name)
    folder = _latest(config.models / "batches", f"{name}-{known}", anew)
    ids = [str(uuid4()) for _ in pictures for _ in variants]
    made = _made_in(folder, config.home, outputs_of(pictures, source, len(variants)))
    wish = wish_of(scene) | {"in_batch": folder.name}
    return BatchOrder(
        *(name, source, pictures, endpoint, variants, settings.cut_out, folder, wish, ids, made)
    )


def rows_each(settings: Any) -> int:
    """How many rows of a batch each picture has: one where the endpoint makes several results by itself."""
    if properties.documented_name(settings.endpoint, "number_results"):
        return 1
    return properties.variations(settings, settings.endpoint)


def _variants(scene: bpy.types.Scene) -> list[dict[str, Any]]:
    """The parameters of each of the variations, with seeds only where one is locked: else each model draws its own."""
    settings: Any = scene.trellis
    endpoint: str = settings.endpoint
    asked = properties.parameters(scene, endpoint)
    seed = properties.documented_name(endpoint, "seed")
    count = rows_each(settings)
    first = asked.pop(seed)
    if not settings.seed_locked:
        return [asked] * count
    return [asked | {seed: (first + turn) % (properties.MAX_INT + 1)} for turn in range(count)]


def _latest(base: Path, name: str, anew: bool) -> Path:
    """The newest of the folders that a batch had, or with `anew` the one after it."""
    numbers = [
        int(number)
        for path in (base.iterdir() if base.is_dir() else ())
        if (number := path.name.removeprefix(f"{name}-")).isdecimal()
    ]
    latest = max([1, *numbers])
    if anew and (latest > 1 or (base / name).exists()):
        latest += 1
    return base / (name if latest == 1 else f"{name}-{latest}")


def _made_in(folder: Path, home: Path, outputs: Sequence[Sequence[str]]) -> list[str]:
    """The jobs by which earlier runs of a batch made these models."""
    from contextlib import closing

    from ..generation.book import Book

    if not folder.exists():
        return []
    with closing(Book(folder, home)) as book:
        lines = [book.lines[name] for names in outputs for name in names if name in book.lines]
    return [line.job_id for line in lines if line.job_id and line.state == "ready"]


def _export(obj: bpy.types.Object, scene: bpy.types.Scene) -> tuple[bytes, dict[str, Any]]:
    """The object as a GLB, and the wish that the result become its mesh."""
    import tempfile

    from ..generation.library import storage_error
    from ..scene.retexture import export

    try:
        with tempfile.TemporaryDirectory(prefix="trellis-mesh-") as folder:
            path = Path(folder) / "model.glb"
            sent = export(obj, path)
            return path.read_bytes(), wish_for(obj, scene, sent)
    except OSError as error:
        raise storage_error(error, Path(tempfile.gettempdir())) from error
