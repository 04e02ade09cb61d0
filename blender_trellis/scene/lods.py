# SPDX-License-Identifier: GPL-3.0-or-later
"""Levels of detail: coarser copies of a model's meshes, in a collection of their own that is switched off.

They are made in the second Blender; the first one only switches them off where it links the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import bmesh
import bpy
from bpy.types import Collection, LayerCollection, Mesh, Object

# Where surfaces met at a hard edge, edges of the coarse mesh that are sharper than this are hard as well.
_SHARP = math.radians(50)


def add(model: Collection, root: Object, ratios: Sequence[float]) -> Collection:
    """Give `model` a child collection with a copy of every mesh for each of `ratios`, which fall: name_LOD1, name_LOD2…

    A ratio is the share of the model's faces that the copy has at most. Copies are children of `root`, and so go where it goes;
    they share its materials.
    """
    group = bpy.data.collections.new(f"{model.name} LODs")
    model.children.link(group)
    for obj in [each for each in model.objects if each.type == "MESH"]:
        faces, finer = len(obj.data.polygons), _welded(obj.data)
        hard = len(finer.vertices) < len(obj.data.vertices)
        meshes = [finer]
        for level, ratio in enumerate(ratios, 1):
            finer = _decimated(finer, ratio * faces)
            if hard:
                finer.set_sharp_from_angle(angle=_SHARP)
            meshes.append(finer)
            copy = bpy.data.objects.new(f"{obj.name}_LOD{level}", finer)
            finer.name = copy.name
            copy.parent = root
            group.objects.link(copy)
        bpy.data.meshes.remove(meshes[0])
    switch_off(bpy.context.view_layer.layer_collection, model)
    return group


def switch_off(top: LayerCollection, model: Collection) -> None:
    """Untick the collections within `model`, which is linked below `top`: nothing of them is shown, rendered or evaluated."""
    for layer in top.children:
        if layer.collection == model:
            for inner in layer.children:
                inner.exclude = True


def _welded(mesh: Mesh) -> Mesh:
    """A copy without custom normals, whose vertices at one place are one: else decimating would tear hard edges open."""
    copy: Mesh = mesh.copy()  # type: ignore[assignment]  # never None
    if copy.has_custom_normals:
        copy.attributes.remove(copy.attributes["custom_normal"])
    work = bmesh.new()
    work.from_mesh(copy)
    bmesh.ops.remove_doubles(work, verts=work.verts, dist=1e-6)
    work.to_mesh(copy)
    work.free()
    return copy


def _decimated(mesh: Mesh, faces: float) -> Mesh:
    """A copy of `mesh` with about as many faces as that."""
    obj = bpy.data.objects.new("LOD", mesh)
    bpy.context.scene.collection.objects.link(obj)
    modifier = obj.modifiers.new("Decimate", "DECIMATE")
    modifier.ratio = min(faces / len(mesh.polygons), 1.0)
    depsgraph = bpy.context.evaluated_depsgraph_get()
    try:
        made = bpy.data.meshes.new_from_object(
            obj.evaluated_get(depsgraph), preserve_all_data_layers=True, depsgraph=depsgraph
        )
        assert made is not None
        return made
    finally:
        bpy.data.objects.remove(obj)
