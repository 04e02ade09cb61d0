# SPDX-License-Identifier: GPL-3.0-or-later
"""A new texture for an object of the scene, from the click to the object, with a stand-in of fal; and what the user does to the
object meanwhile."""

import base64

import bpy
import numpy as np
import pytest
from mathutils import Matrix

import blender_trellis
from blender_trellis.endpoints.schema import schemas
from blender_trellis.scene.recipe import read
from blender_trellis.ui import orders
from scene import glbs


def make(name):
    """A wedge that is rotated, unevenly scaled, and below a parent that is too."""
    mesh = bpy.data.meshes.new(f"{name} mesh")
    points = [(0, 0, 0), (3, 0, 0), (0, 2, 0), (0, 0, 1)]
    mesh.from_pydata(points, [], [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)])
    mesh.uv_layers.new()
    parent, obj = bpy.data.objects.new("Parent", None), bpy.data.objects.new(name, mesh)
    for each in (parent, obj):
        bpy.context.scene.collection.objects.link(each)
    parent.rotation_euler, parent.scale = (1, 0.2, 0.7), (2, 0.3, 1)
    obj.parent, obj.matrix_parent_inverse = parent, Matrix.Rotation(0.6, 4, "X")
    obj.location, obj.rotation_euler, obj.scale = (1, 2, 3), (0.4, 1.1, -2), (0.5, 3, 1.5)
    return obj


def choose(obj):
    bpy.ops.object.select_all(action="DESELECT")
    obj.select_set(True)
    bpy.context.view_layer.objects.active = obj


def box(obj):
    bpy.context.view_layer.update()
    points = np.array([obj.matrix_world @ vertex.co for vertex in obj.data.vertices])
    return np.array([points.min(0), points.max(0)])


@pytest.fixture
def wedge(fal, extension, picture):
    """The active object of a scene that is ready for Generate; fal waits before it finishes a job."""
    fal.script.held = True
    settings = bpy.context.scene.trellis
    settings.endpoint = orders.RETEXTURE
    bpy.ops.trellis.add_images(filepath=str(picture))
    obj = make("Wedge")
    choose(obj)
    return obj


@pytest.fixture
def sent(until, fal, wedge):
    """fal's job for the wedge, sent and held there."""
    assert bpy.ops.trellis.generate() == {"FINISHED"}
    until(lambda: len(fal.jobs) == 1)
    (job,) = fal.jobs.values()
    return job


def mesh_of(job):
    return base64.b64decode(job.input["mesh_url"].partition(";base64,")[2])


def finish(fal, job):
    """The service paints what it was sent."""
    with fal.lock:
        job.script.glb = glbs.repaint(mesh_of(job))
        fal.finish(job.request_id)


def models():
    return [obj for obj in bpy.context.scene.objects if read(obj)]


def test_the_endpoint_is_one_that_takes_a_mesh():
    assert schemas()[orders.RETEXTURE]["mesh"]


def test_generate_gives_the_active_object_a_new_mesh(wedge, sent, fal, extension, until, temporary):
    scene, before, matrix = bpy.context.scene, box(wedge), wedge.matrix_world.copy()
    scene.cursor.location = (50, 50, 50)
    scene.trellis.height = 7
    assert sent.endpoint == orders.RETEXTURE
    assert sent.input["image_url"].startswith("data:image/png;base64,")
    assert sent.input["seed"] == scene.trellis.seed
    finish(fal, sent)
    until(lambda: bool(models()))
    (model,) = models()
    assert model == wedge and wedge.name == "Wedge" and wedge.matrix_world == matrix
    assert box(wedge) == pytest.approx(before, abs=1e-4)
    assert len(wedge.data.polygons) == 4 and len(wedge.data.materials) == 1
    (job,) = extension.session.runner.journal.jobs()
    assert read(wedge).job_id == job.id and read(wedge).endpoint == orders.RETEXTURE
    until(lambda: not extension.busy)
    assert not list(temporary.iterdir())
    assert len(scene.objects) == 2 and not scene.collection.children
    assert extension.session.runner.journal.get(job.id).fulfilled


def test_one_undo_brings_the_old_mesh_back(wedge, sent, fal, until):
    had = {kind: len(getattr(bpy.data, kind)) for kind in ("objects", "meshes", "collections")}
    bpy.ops.ed.undo_push(message="Before")
    finish(fal, sent)
    until(lambda: bool(models()))
    after = box(wedge)
    bpy.ops.ed.undo()
    old = bpy.data.objects["Wedge"]
    assert read(old) is None and not old.data.materials and len(old.data.vertices) == 4
    assert had == {kind: len(getattr(bpy.data, kind)) for kind in had}
    bpy.ops.ed.redo()
    again = bpy.data.objects["Wedge"]
    assert read(again) and box(again) == pytest.approx(after, abs=1e-4)
    assert had == {kind: len(getattr(bpy.data, kind)) for kind in had}


def test_what_is_missing_is_said(wedge, extension):
    scene = bpy.context.scene
    assert orders.missing(scene) == ""
    bpy.ops.object.mode_set(mode="EDIT")
    assert orders.missing(scene) == "Go to Object Mode"
    bpy.ops.object.mode_set(mode="OBJECT")
    wedge.hide_set(True)
    assert orders.missing(scene) == "Select a mesh object"
    wedge.hide_set(False)
    for obj in (wedge.parent, None):
        bpy.context.view_layer.objects.active = obj
        assert orders.missing(scene) == "Select a mesh object"
        with pytest.raises(RuntimeError, match="Select a mesh object"):
            bpy.ops.trellis.generate()
        with pytest.raises(RuntimeError, match="Select a mesh object"):
            bpy.ops.trellis.retexture()
    scene.trellis.endpoint = "fal-ai/trellis-2"
    assert orders.missing(scene) == ""
    assert not extension.board.views


def test_an_object_of_a_library_is_not_touched(wedge, tmp_path):
    path = str(tmp_path / "library.blend")
    bpy.data.libraries.write(path, {wedge})
    with bpy.data.libraries.load(path, link=True) as (_, target):
        target.objects = ["Wedge"]
    (linked,) = (obj for obj in bpy.data.objects if obj.library and obj.name == "Wedge")
    bpy.context.scene.collection.objects.link(linked)
    choose(linked)
    assert orders.missing(bpy.context.scene) == "Make the selected object local"


def test_an_object_that_cannot_be_exported_is_told(wedge, extension, temporary):
    wedge.data.clear_geometry()
    with pytest.raises(RuntimeError, match="Wedge has no faces to texture"):
        bpy.ops.trellis.generate()
    assert not extension.board.views and not list(temporary.iterdir())


def test_renamed_it_is_still_the_one(wedge, sent, fal, until):
    wedge.name = "Roof"
    other = make("Wedge")
    finish(fal, sent)
    until(lambda: bool(models()))
    assert models() == [wedge] and read(other) is None


def test_once_deleted_the_model_comes_to_the_cursor_of_the_click(wedge, sent, fal, until):
    bpy.data.objects.remove(wedge)
    other = make("Wedge")
    bpy.context.scene.cursor.location = (5, 5, 5)
    finish(fal, sent)
    until(lambda: bool(models()))
    (model,) = models()
    assert model.location[:] == (0, 0, 0) and model != other
    assert len(model.users_collection) == 1 and model.select_get()


def test_in_a_file_that_was_saved_and_opened_again_it_is_found_by_name(
    wedge, sent, fal, until, tmp_path
):
    before = box(wedge)
    path = str(tmp_path / "scene.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.wm.open_mainfile(filepath=path)
    finish(fal, sent)
    until(lambda: bool(models()))
    assert models() == [bpy.data.objects["Wedge"]]
    assert box(bpy.data.objects["Wedge"]) == pytest.approx(before, abs=1e-4)


def test_while_it_is_edited_it_waits_and_others_do_not(wedge, sent, fal, until, extension):
    other = make("Other")
    choose(other)
    bpy.ops.trellis.generate()
    until(lambda: len(fal.jobs) == 2)
    choose(wedge)
    bpy.ops.object.mode_set(mode="EDIT")
    finish(fal, sent)
    until(lambda: any(view.importing for view in extension.board.views.values()))
    finish(fal, next(job for job in fal.jobs.values() if job is not sent))
    until(lambda: read(other) is not None)
    assert wedge.mode == "EDIT" and read(wedge) is None and extension.busy
    bpy.ops.object.mode_set(mode="OBJECT")
    until(lambda: read(wedge) is not None)
    assert len(bpy.data.objects) == 4


def test_imported_again_from_the_results_it_stands_at_the_cursor(
    wedge, sent, fal, until, extension
):
    finish(fal, sent)
    until(lambda: bool(models()) and not extension.busy)
    mesh = wedge.data
    bpy.context.scene.cursor.location = (1, 2, 3)
    bpy.ops.trellis.import_result()
    until(lambda: len(models()) == 2)
    (model,) = (obj for obj in models() if obj != wedge)
    assert model.location[:] == (1, 2, 3) and wedge.data == mesh


def test_the_button_says_what_becomes_of_the_modifiers(wedge):
    tip = bpy.types.TRELLIS_OT_generate.description
    given = bpy.context.window_manager.operator_properties_last("trellis.generate")
    assert "modifiers" in tip(bpy.context, given)
    bpy.context.scene.trellis.endpoint = "local/draft"
    assert "3D cursor" in tip(bpy.context, given)


@pytest.fixture
def background(config, fal, temporary):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    blender_trellis.register()
    yield bpy.context.scene
    blender_trellis.unregister()
    bpy.ops.wm.read_factory_settings(use_empty=True)


def test_in_background_mode_the_operator_waits(background, fal, picture, temporary):
    with pytest.raises(RuntimeError, match="Select a mesh object"):
        bpy.ops.trellis.retexture(filepath=str(picture))
    bpy.ops.mesh.primitive_cube_add(size=1, location=(4, 5, 6))
    cube = bpy.context.object
    cube.scale = (3, 3, 6)  # the shape of the stand-in's model
    before = box(cube)
    assert bpy.ops.trellis.retexture(filepath=str(picture)) == {"FINISHED"}
    assert models() == [cube] and box(cube) == pytest.approx(before, abs=1e-4)
    assert read(cube).images == (picture.name,)
    (job,) = fal.jobs.values()
    gltf, _ = glbs.read(mesh_of(job))
    assert "materials" not in gltf
    assert not list(temporary.iterdir())
