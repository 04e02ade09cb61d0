# SPDX-License-Identifier: GPL-3.0-or-later
"""What the second Blender runs: one request in on stdin, one reply out on stdout. Started by worker.py, never imported.

It runs with factory settings, where the extension is not enabled, so it loads the package from the folder that it lies in.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy

PACKAGE = "trellis_import_worker"
ASSET_PICTURE = 256  # pixels a side, as Blender makes them itself


def load_package() -> None:
    """Make the extension's folder importable as PACKAGE, whatever the folder is called."""
    root = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location(
        PACKAGE, root / "__init__.py", submodule_search_locations=[str(root)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)


def module(name: str) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{name}")


def say(reply: dict[str, Any], folder: Path) -> None:
    line = f"\n{module('scene.worker').mark(folder)}{json.dumps(reply)}\n"
    # without a listener there is no parent, and then end_with_parent tidies up
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        os.write(1, line.encode())


def end_with_parent(folder: Path, part: Path | None) -> None:
    """Wait until stdin closes, that is until the parent is gone, then leave nothing and end."""
    sys.stdin.buffer.read()
    if part is not None:
        module("scene.worker").remove_part(part)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def write(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Carry out `request` and describe the result; `folder` is for what nobody is to keep."""
    prepare = module("scene.prepare")
    recipe = module("scene.recipe").Recipe.from_json(request["recipe"])
    model = prepare.prepare(
        Path(request["glb"]),
        recipe,
        name=request["name"],
        height=request["height"],
        metres_per_unit=request["metres_per_unit"],
    )
    root = next(obj for obj in model.objects if obj.parent is None)
    asset = request["asset"]
    picture, size = request["preview"] or (folder / "asset.png", ASSET_PICTURE)
    if request["preview"] or asset is not None:
        module("scene.preview").render(model, Path(picture), size)
    if request["lods"]:
        module("scene.lods").add(model, root, request["lods"])
    if asset is not None:
        library = request["library"] and Path(request["library"])
        module("scene.assets").mark(model, root, asset, Path(picture), library)
    prepare.save(Path(request["blend"]), Path(request["part"]))
    meshes = [obj.data for obj in model.objects if obj.type == "MESH"]
    return {
        "blend": request["blend"],
        "preview": request["preview"] and request["preview"][0],
        "vertices": sum(len(mesh.vertices) for mesh in meshes),
        "faces": sum(len(mesh.polygons) for mesh in meshes),
        "blocks": module("scene.memory").blocks(),
    }


def answer(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What `write` describes, or the error that came of it."""
    try:
        return write(request, folder)
    except module("errors").TrellisError as error:
        return {"error": error.kind, "message": error.message}
    except Exception as error:  # noqa: BLE001 a hostile file may raise anything anywhere in the importer
        return {"error": "ResultError", "message": f"The model cannot be imported: {error!r}"}


def main() -> None:
    folder = Path(sys.argv[-1])
    if hasattr(signal, "SIGPIPE"):
        # what Blender prints after the parent's death must not end this before it has tidied up
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    load_package()
    needed = ("errors", "scene.prepare", "scene.preview", "scene.lods", "scene.assets")
    for name in (*needed, "scene.memory"):
        module(name)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    if hasattr(os, "nice"):
        os.nice(5)
    say({"ready": True}, folder)
    line = sys.stdin.buffer.readline()
    request = json.loads(line) if line else None
    part = Path(request["part"]) if request else None
    threading.Thread(target=end_with_parent, args=(folder, part), daemon=True).start()
    if request is None:
        threading.Event().wait()
        return
    say(answer(request, folder), folder)
    # Blender's own teardown of a large file takes a second, and nobody needs it
    os._exit(0)


if __name__ == "__main__":
    main()
