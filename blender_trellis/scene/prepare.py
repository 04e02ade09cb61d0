# SPDX-License-Identifier: GPL-3.0-or-later
"""From a GLB to one clean model in an otherwise empty file: imported, flattened, placed, scaled, shaded, stamped.

Runs in the second Blender only; it expects an empty file and owns everything in it.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from bpy.types import Collection, Mesh, Object
from mathutils import Matrix, Vector

from .. import errors
from . import materials
from .recipe import Recipe, stamp


def prepare(
    glb: Path, recipe: Recipe, *, name: str, height: float | None, metres_per_unit: float
) -> Collection:
    """Import `glb` into the current, empty file as a collection called `name`.

    The model is one object, or an empty with the meshes below it; its origin is the centre of its bottom, all scales are 1.
    Raises ResultError for a file that cannot be used.
    """
    gltf = _read_json(glb)
    _refuse_other_files(gltf)
    _import(glb)
    objects = [obj for obj in bpy.data.objects if obj.type == "MESH" and obj.data.polygons]
    if not objects:
        raise errors.ResultError(f"{glb.name} holds no mesh. Generate the model again.")
    _flatten(objects)
    model = _collect(objects, name or "Model")
    _place(objects, height=height, metres_per_unit=metres_per_unit)
    for obj in objects:
        _shade(obj)
    _discard_all_but(model)
    materials.repair(name or "Model", gltf)
    for obj in model.objects:
        if obj.parent is None:
            stamp(obj, recipe)
    return model


def save(blend: Path, part: Path) -> None:
    """Write the file, uncompressed since that reads fastest, so that it is there as a whole or not at all."""
    try:
        bpy.ops.wm.save_as_mainfile(
            filepath=str(part), compress=False, copy=True, check_existing=False
        )
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(blend)
    except (OSError, RuntimeError) as error:
        reason = _reason(error)
        # of a full disk Blender reports whatever error came last
        free = shutil.disk_usage(part.parent).free // 10**6 if part.parent.is_dir() else 0
        raise errors.OutputError(
            f"{blend} cannot be written: {reason} ({free} MB free on that disk)."
        ) from error


def _read_json(glb: Path) -> dict[str, Any]:
    """The JSON chunk: the first one (glTF 2.0 specification, 4.4.3.2)."""
    try:
        with glb.open("rb") as file:
            magic, _, _, length, kind = struct.unpack("<4sIII4s", file.read(20))
            if magic != b"glTF" or kind != b"JSON":
                raise ValueError("no glTF header")
            gltf = json.loads(file.read(length))
        if not isinstance(gltf, dict):
            raise ValueError("no glTF object")
    except (OSError, ValueError, struct.error, RecursionError) as error:
        raise errors.ResultError(f"{glb.name} is not a GLB file: {error}") from error
    return gltf


def _refuse_other_files(gltf: dict[str, Any]) -> None:
    """A service's GLB has everything inside. A path in it would pack a file of this computer into the .blend."""
    for item in [*gltf.get("buffers", []), *gltf.get("images", [])]:
        if not str(item.get("uri", "data:")).startswith("data:"):
            raise errors.ResultError("The model refers to files outside itself, so it is refused.")


def _import(glb: Path) -> None:
    """Blender's own importer. Vertices that are equal in place and normal become one, so a closed surface is closed."""
    try:
        done = bpy.ops.import_scene.gltf(
            filepath=str(glb), merge_vertices=True, import_shading="NORMALS"
        )
    except RuntimeError as error:
        reason = _reason(error)
        raise errors.ResultError(
            f"{glb.name} cannot be imported ({reason}). Generate the model again."
        ) from error
    if done != {"FINISHED"}:
        raise errors.ResultError(f"{glb.name} cannot be imported. Generate the model again.")


def _reason(error: Exception) -> str:
    """The last line of what an operator says, but for the place in Blender's own code where it was called."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Location:")]
    return (told or lines or ["no reason is told"])[-1].strip()[:200]


def _flatten(objects: list[Object]) -> None:
    """Bake every object's place in the GLB's hierarchy into its mesh, and drop what else hangs on it."""
    bpy.context.view_layer.update()
    worlds = {obj: obj.matrix_world.copy() for obj in objects}
    for obj, world in worlds.items():
        obj.animation_data_clear()
        obj.shape_key_clear()
        obj.modifiers.clear()
        obj.vertex_groups.clear()
        obj.parent = None
        obj.rotation_mode = "XYZ"  # what people are used to; the importer leaves quaternions
        obj.matrix_world = Matrix.Identity(4)
        if obj.data.users > 1:
            obj.data = obj.data.copy()
        obj.data.transform(world)
        if world.is_negative:
            obj.data.flip_normals()


def _collect(objects: list[Object], name: str) -> Collection:
    """One collection with the one object, or with an empty that carries several."""
    model = bpy.data.collections.new(name)
    bpy.context.scene.collection.children.link(model)
    for obj in objects:
        for collection in obj.users_collection:
            collection.objects.unlink(obj)
        model.objects.link(obj)
    root = objects[0]
    if len(objects) > 1:
        root = bpy.data.objects.new(name, None)
        model.objects.link(root)
        for obj in objects:
            obj.parent = root
    else:
        # the GLB's own name for it is a word like "geometry_0"
        root.data.name = name
    root.name = name
    for obj in model.objects:
        obj.select_set(True)
    bpy.context.view_layer.objects.active = root
    return model


def coordinates(mesh: Mesh) -> np.ndarray:
    """(vertices, 3) float32, in the mesh's own units."""
    points = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.attributes["position"].data.foreach_get("vector", points)
    return points.reshape(-1, 3)


def _place(objects: list[Object], *, height: float | None, metres_per_unit: float) -> None:
    """Put the centre of the bottom at the origin and scale to `height` metres, in the meshes themselves."""
    bounds = [(p.min(0), p.max(0)) for p in (coordinates(obj.data) for obj in objects)]
    low = np.min([b[0] for b in bounds], axis=0).astype(float)
    high = np.max([b[1] for b in bounds], axis=0).astype(float)
    if not np.isfinite([low, high]).all():
        raise errors.ResultError("The model has vertices at no finite place. Generate it again.")
    tall = high[2] - low[2]
    if height and tall <= 0:
        raise errors.ResultError("The model is flat, so it cannot be scaled to a height.")
    scale = (height / tall if height else 1.0) / metres_per_unit
    bottom = Vector(((low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]))
    matrix = Matrix.Scale(scale, 4) @ Matrix.Translation(-bottom)
    for mesh in {obj.data for obj in objects}:
        mesh.transform(matrix)
        mesh.update()


def _shade(obj: Object) -> None:
    """Smooth, without custom normals unless they say what the shape does not.

    Custom normals cost memory, and go wrong as soon as the mesh is edited. Where the merge kept vertices apart, at hard
    edges, plain smooth shading is hard too; what needs the custom ones is a low-poly mesh with normals of a finer one.
    """
    stored = obj.data
    name = stored.name
    plain = obj.data = stored.copy()
    if plain.has_custom_normals:
        with bpy.context.temp_override(object=obj, active_object=obj):
            bpy.ops.mesh.customdata_custom_splitnormals_clear()
    for attribute in ("sharp_face", "sharp_edge"):
        if attribute in plain.attributes:
            plain.attributes.remove(plain.attributes[attribute])
    cosines = np.einsum("ij,ij->i", _corner_normals(stored), _corner_normals(plain))
    # 15 degrees: what different weights of the faces around a vertex make of slivers; a tenth: more than slivers
    lost = stored.has_custom_normals and np.mean(cosines < np.cos(np.radians(15))) > 0.1
    obj.data = stored if lost else plain
    bpy.data.meshes.remove(plain if lost else stored)
    obj.data.name = name


def _corner_normals(mesh: Mesh) -> np.ndarray:
    """(corners, 3) float32: what is shaded with."""
    normals = np.empty(len(mesh.loops) * 3, np.float32)
    mesh.corner_normals.foreach_get("vector", normals)
    return normals.reshape(-1, 3)


def _discard_all_but(model: Collection) -> None:
    """Remove every object and collection that the GLB brought besides the model, and what only they used."""
    kept = set(model.objects)
    others = [obj for obj in bpy.data.objects if obj not in kept]
    others += [item for item in bpy.data.collections if item != model]
    others += list(bpy.data.actions)
    bpy.data.batch_remove(others)
    bpy.data.orphans_purge(do_recursive=True)
