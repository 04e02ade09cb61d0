# SPDX-License-Identifier: GPL-3.0-or-later
"""A small picture of a prepared model, from the front and a little to the side and above.

Runs in the second Blender only. Camera, light and world live in a scene of their own, which is gone afterwards.
"""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
from bpy.types import Camera, Collection, Object, Scene
from mathutils import Vector

from .. import errors
from .prepare import coordinates

# The model looks towards -Y (docs/architecture.md), so the camera stands at its front right.
VIEW = Vector((0.55, -1.0, 0.35))
# What the denoiser makes a clean picture of; without it a few more
SAMPLES, NOISY_SAMPLES = 8, 24
# Framed by this many vertices of each mesh, and with some room around them.
SAMPLED = 5000
AIR = 1.08


def render(model: Collection, path: Path, size: int) -> None:
    """Write a PNG of `size` pixels a side with a transparent background. Raises OutputError."""
    scene = bpy.data.scenes.new("Preview")
    try:
        scene.collection.children.link(model)
        _light(scene)
        _settings(scene, path, size)
        _frame(scene, model)
        bpy.ops.render.render(write_still=True, scene=scene.name)
    except RuntimeError as error:
        raise errors.OutputError(f"The preview {path} cannot be written: {error}") from error
    finally:
        results = [image for image in bpy.data.images if image.type == "RENDER_RESULT"]
        bpy.data.batch_remove([scene, *scene.collection.objects, *results])
        bpy.data.orphans_purge(do_recursive=True)


def _settings(scene: Scene, path: Path, size: int) -> None:
    import _cycles  # type: ignore[import-not-found]  # made by Blender at run time

    render_settings = scene.render
    render_settings.engine = "CYCLES"  # type: ignore[assignment]  # an add-on's engine
    render_settings.resolution_x = render_settings.resolution_y = size
    render_settings.resolution_percentage = 100
    render_settings.film_transparent = True
    render_settings.use_file_extension = False
    render_settings.image_settings.file_format = "PNG"
    render_settings.image_settings.color_mode = "RGBA"
    render_settings.filepath = str(path)
    # AgX, the default, greys the texture's colours, and a thumbnail is looked at for those
    scene.view_settings.view_transform = "Standard"
    scene.cycles.device = "CPU"
    denoise = _cycles.with_openimagedenoise
    scene.cycles.samples = SAMPLES if denoise else NOISY_SAMPLES
    scene.cycles.use_denoising = denoise


def _light(scene: Scene) -> None:
    """A bright sky, and a soft sun from the camera's left."""
    sun = bpy.data.lights.new("Preview Sun", "SUN")
    sun.energy = 2.0
    sun.angle = 0.5
    lamp = bpy.data.objects.new("Preview Sun", sun)
    lamp.rotation_euler = Vector((-0.6, -0.9, 1.2)).to_track_quat("Z", "Y").to_euler()
    scene.collection.objects.link(lamp)
    scene.world = bpy.data.worlds.new("Preview")
    if scene.world.node_tree is None:
        scene.world.use_nodes = True
    background = next(n for n in scene.world.node_tree.nodes if n.type == "BACKGROUND")
    background.inputs["Color"].default_value = (1.0, 1.0, 1.0, 1.0)
    background.inputs["Strength"].default_value = 0.6


def _frame(scene: Scene, model: Collection) -> None:
    """A camera that has the whole model in view, with a little air around it."""
    data: Camera = bpy.data.cameras.new("Preview Camera")
    data.lens = 70.0
    camera: Object = bpy.data.objects.new("Preview Camera", data)
    camera.rotation_euler = VIEW.to_track_quat("Z", "Y").to_euler()
    scene.collection.objects.link(camera)
    scene.camera = camera
    depsgraph = scene.view_layers[0].depsgraph
    scene.view_layers[0].update()
    points = [coordinates(obj.data) for obj in model.objects if obj.type == "MESH"]
    cloud = np.concatenate([p[:: len(p) // SAMPLED + 1] for p in points])
    centre = (cloud.min(0) + cloud.max(0)) / 2
    place, _ = camera.camera_fit_coords(depsgraph, (centre + (cloud - centre) * AIR).ravel())
    camera.location = place
    distance = (place - Vector(centre)).length
    data.clip_start, data.clip_end = distance / 1000, distance * 10
