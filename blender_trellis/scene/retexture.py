# SPDX-License-Identifier: GPL-3.0-or-later
"""A mesh object on its way to a service and back: exported as it looks, then given what became of it as its new mesh.

Both in world space, since pictures show what stands upright: the object's own transform, sheared or mirrored, never leaves.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import bmesh
import bpy
import numpy as np
from bpy.types import Mesh, Object

from .. import errors
from .prepare import coordinates
from .recipe import PROPERTY

_HAIR = "PARTICLE_SYSTEM"  # a modifier that adds nothing to the mesh


class Sent(TypedDict):
    """What `put_back` needs to know of an object when it was exported; JSON, for a job's wish.

    `matrix` is its 4 × 4 world matrix, by rows; `low` and `high` are its faces' bounding box in the world; `modifiers` are the
    names of those that are in the export.
    """

    matrix: list[list[float]]
    low: list[float]
    high: list[float]
    modifiers: list[str]


def export(obj: Object, glb: Path) -> Sent:
    """Write `obj`, of the present scene, as it looks: modifiers applied, in world space, with its UVs, without materials.

    The file and the selection stay as they are. Raises InputError for an object that cannot be sent, in words.
    """
    depsgraph = bpy.context.evaluated_depsgraph_get()
    matrix = np.array(obj.matrix_world)
    if not np.linalg.det(matrix):
        raise errors.InputError(f"{obj.name} is scaled to nothing. Give it another scale.")
    # The exporter itself would lose a shear, and take the object's own name along
    mesh = bpy.data.meshes.new_from_object(
        obj.evaluated_get(depsgraph), preserve_all_data_layers=True, depsgraph=depsgraph
    )
    try:
        if not mesh.polygons:
            raise errors.InputError(
                f"{obj.name} has no faces to texture. If geometry nodes make instances, realise them."
            )
        mesh.name = "model"
        mesh.materials.clear()
        _transform(mesh, matrix)
        low, high = _box(mesh)
        if not np.isfinite([low, high]).all() or not (high > low).any():
            raise errors.InputError(f"{obj.name} has no size. Scale it, or choose another object.")
        _write(bpy.data.objects.new(mesh.name, mesh), glb, obj.name)
    finally:
        bpy.data.meshes.remove(mesh)  # and with it the object that had it
    return Sent(
        matrix=matrix.tolist(),
        low=low.tolist(),
        high=high.tolist(),
        modifiers=[m.name for m in obj.modifiers if m.show_viewport and m.type != _HAIR],
    )


def put_back(objects: list[Object], target: Object, sent: Sent) -> None:
    """Make the meshes of `objects`, a model that `append` brought, the mesh of `target`, which is in object mode.

    It fills the place that `target` had when it was `sent`: scaled evenly to the box's longest side, centred. Whatever moved
    `target` since then moves it too. Materials, UVs and the recipe are the model's; vertex groups and shape keys were the old
    mesh's. Modifiers that were in the export are switched off, so that nothing is applied twice and nothing is lost.
    """
    meshes = [obj.data for obj in objects if obj.type == "MESH"]
    mesh = _joined(meshes)
    _transform(mesh, np.linalg.inv(sent["matrix"]) @ _fit(_box(mesh), sent))
    for modifier in target.modifiers:
        if modifier.name in sent["modifiers"]:
            modifier.show_viewport = modifier.show_render = False
    target[PROPERTY] = objects[0][PROPERTY]
    old = target.data
    target.data = mesh
    for slot in target.material_slots:
        slot.link = "DATA"
    collection = objects[0].users_collection[0]
    bpy.data.batch_remove([*objects, collection, *(other for other in meshes if other != mesh)])
    if not old.users:
        name = old.name
        bpy.data.meshes.remove(old)
        mesh.name = name


def _write(obj: Object, glb: Path, name: str) -> None:
    """By Blender's own exporter, which takes what is selected in the present scene; `name` is for messages."""
    if not hasattr(bpy.types, "EXPORT_SCENE_OT_gltf"):
        raise errors.InputError(
            f"{name} cannot be exported: Blender's add-on glTF 2.0 is switched off. Enable it in the preferences."
        )
    selected = list(bpy.context.view_layer.objects.selected)
    bpy.context.scene.collection.objects.link(obj)
    try:
        for other in selected:
            other.select_set(False)
        obj.select_set(True)
        bpy.ops.export_scene.gltf(
            filepath=str(glb),
            check_existing=False,
            export_format="GLB",
            use_selection=True,
            use_active_scene=True,
            export_materials="NONE",
            export_animations=False,
            export_current_frame=True,  # else it goes to frame 0, and what was moved without a key jumps back
            export_skins=False,
            export_morph=False,
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise errors.InputError(f"{name} cannot be exported ({reason}).") from error
    finally:
        bpy.context.scene.collection.objects.unlink(obj)
        for other in selected:
            other.select_set(True)


def _joined(meshes: list[Mesh]) -> Mesh:
    """The first one, with all others in it."""
    first, *others = meshes
    if not others:
        return first
    joined = bmesh.new()
    joined.from_mesh(first)
    for mesh in others:
        faces, materials = len(joined.faces), len(first.materials)
        joined.from_mesh(mesh)
        joined.faces.ensure_lookup_table()
        for face in joined.faces[faces:]:
            face.material_index += materials
        for material in mesh.materials:
            first.materials.append(material)
    joined.to_mesh(first)
    joined.free()
    return first


def _box(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest corner of what the faces take up, (3,) each."""
    corners = np.empty(len(mesh.loops), np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    points = coordinates(mesh)[corners].astype(float)
    return points.min(0), points.max(0)


def _fit(box: tuple[np.ndarray, np.ndarray], sent: Sent) -> np.ndarray:
    """(4, 4): from `box` to the one of `sent`."""
    (low, high), (goal_low, goal_high) = box, (np.array(sent["low"]), np.array(sent["high"]))
    scale = (goal_high - goal_low).max() / (high - low).max()
    matrix = np.diag([scale, scale, scale, 1.0])
    matrix[:3, 3] = ((goal_low + goal_high) - (low + high) * scale) / 2
    return matrix


def _transform(mesh: Mesh, matrix: np.ndarray) -> None:
    """In 64 bits, as `Mesh.transform` is not; what looked outwards still does."""
    points = coordinates(mesh).astype(float) @ matrix[:3, :3].T + matrix[:3, 3]
    mesh.attributes["position"].data.foreach_set("vector", points.astype(np.float32).ravel())
    if np.linalg.det(matrix[:3, :3]) < 0:
        mesh.flip_normals()
    mesh.update()
