# SPDX-License-Identifier: GPL-3.0-or-later
"""The second Blender: what hostile files, kills and full disks do to it, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import bpy
import numpy as np
import pytest
from PIL import Image

from blender_trellis import errors
from blender_trellis.scene import worker as worker_module
from blender_trellis.scene.append import append
from blender_trellis.scene.importer import import_blocking, write_blend
from blender_trellis.scene.memory import make_ready
from blender_trellis.scene.recipe import Recipe
from blender_trellis.scene.worker import ImportWorker
from scene import glbs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def glb(folder: Path) -> Path:
    pictures = {"baseColor": glbs.picture(1, 64, "WEBP"), "normal": glbs.picture(2, 64)}
    return glbs.write(folder / "Katze 猫.glb", [glbs.sphere(16, 32)], glbs.Material(pictures))


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("never happened")


def test_started_early_polled_and_closed(temporary: Path, glb: Path, recipe: Recipe) -> None:
    with ImportWorker() as worker:
        assert worker.poll() is None
        worker.request(glb, recipe, name="Katze 猫", height=1.0)
        wait_until(lambda: worker.poll() is not None)
        prepared = worker.wait()
        assert prepared.blend.read_bytes()[:7] == b"BLENDER"
        assert (prepared.vertices, prepared.faces) == (15 * 32 + 2, 2 * 15 * 32)
        (obj,) = append(prepared.blend, scene=bpy.context.scene)
    assert list(temporary.iterdir()) == []
    assert obj.data.materials[0].node_tree.nodes
    assert all(image.packed_file.size for image in bpy.data.images)


def test_the_large_arrays_of_a_model_are_told(folder: Path, recipe: Recipe) -> None:
    pictures = {"baseColor": glbs.picture(1, 1024), "normal": glbs.picture(2, 1024)}
    glb = glbs.write(folder / "large.glb", [glbs.sphere(300, 600)], glbs.Material(pictures))
    with ImportWorker() as worker:
        worker.request(glb, recipe, name="Large")
        prepared = worker.wait()
        assert 0.95 < sum(prepared.blocks) / prepared.blend.stat().st_size < 1
        room = [block.nbytes for block in make_ready(prepared.blocks)]
        assert room[: len(prepared.blocks)] == [*prepared.blocks]
        (obj,) = append(prepared.blend, scene=bpy.context.scene)
    positions = 4 * 3 * len(obj.data.vertices)
    packed = [image.packed_file.size for image in bpy.data.images if image.packed_file]
    assert {positions, *packed} <= {*prepared.blocks} and len(packed) == 2


def test_close_is_the_cancel(temporary: Path, glb: Path, recipe: Recipe) -> None:
    for asked in (False, True):
        worker = ImportWorker()
        if asked:
            worker.request(glb, recipe, name="x", blend=glb.with_suffix(".blend"))
        worker.close()
        worker.close()
    assert list(temporary.iterdir()) == []
    assert list(glb.parent.iterdir()) == [glb]


def text(path: Path) -> None:
    path.write_text("<html>502 Bad Gateway</html>")


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def gone(path: Path) -> None:
    path.unlink()


def no_json(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[20:40] = b"\xff" * 20
    path.write_bytes(data)


def no_mesh(path: Path) -> None:
    glbs.write(path, [glbs.box((1, 1, 1))], nodes=[{"name": "empty"}], scenes=[{"nodes": [0]}])


def endless_count(path: Path) -> None:
    accessor = {"bufferView": 0, "componentType": 5126, "count": 2**40, "type": "VEC3"}
    glbs.write(path, [glbs.box((1, 1, 1))], accessors=[accessor] * 4)


def cyclic_nodes(path: Path) -> None:
    nodes = [{"mesh": 0, "children": [1]}, {"children": [0]}]
    glbs.write(path, [glbs.box((1, 1, 1))], nodes=nodes, scenes=[{"nodes": [0]}])


def other_image(path: Path) -> None:
    secret = path.with_name("secret.png")
    secret.write_bytes(glbs.picture(9))
    material = glbs.Material({"baseColor": glbs.picture(1)})
    glbs.write(path, [glbs.box((1, 1, 1))], material, images=[{"uri": secret.name}])


def not_a_number(path: Path) -> None:
    shape = glbs.box((1, 1, 1))
    shape.positions[0] = np.nan
    glbs.write(path, [shape])


@pytest.mark.parametrize(
    "spoil",
    [
        text,
        nothing,
        half,
        gone,
        no_json,
        no_mesh,
        endless_count,
        cyclic_nodes,
        other_image,
        not_a_number,
    ],
)
def test_broken_glb_is_refused_and_leaves_nothing(
    temporary: Path, glb: Path, recipe: Recipe, spoil: Callable[[Path], None]
) -> None:
    spoil(glb)
    before = len(bpy.data.objects), len(bpy.data.meshes), len(bpy.data.images)
    with pytest.raises(errors.ResultError) as caught:
        import_blocking(glb, recipe, name="x")
    assert len(caught.value.message) < 400
    assert (len(bpy.data.objects), len(bpy.data.meshes), len(bpy.data.images)) == before
    assert list(temporary.iterdir()) == []


def test_a_crash_of_the_second_blender_is_told(temporary: Path, glb: Path, recipe: Recipe) -> None:
    with ImportWorker() as worker:
        worker.request(glb, recipe, name="x", preview=(glb.with_suffix(".png"), 2000))
        wait_until(lambda: worker.poll() is None and worker._started)
        worker._process.kill()
        with pytest.raises(errors.ResultError, match=glb.name):
            worker.wait()
        with pytest.raises(errors.ResultError):
            worker.poll()
    assert list(temporary.iterdir()) == []


def test_an_import_without_an_end_is_ended_and_told(
    temporary: Path, glb: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = glb.with_name("endless.py")
    script.write_text("while True: pass")
    monkeypatch.setattr(worker_module, "_MAIN", script)
    monkeypatch.setattr(worker_module, "MINUTES", 0)
    with ImportWorker() as worker:
        assert worker.poll() is None  # nothing was asked for yet
        worker.request(glb, recipe, name="x")
        with pytest.raises(errors.ResultError, match="after 0 minutes") as caught:
            worker.wait()
        assert f"kept as {glb}" in caught.value.message
        worker._process.wait(60)
    assert glb.exists() and list(temporary.iterdir()) == []


def test_a_process_that_cannot_run_is_told(
    temporary: Path, glb: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_MAIN", glb.with_name("absent.py"))
    with ImportWorker() as worker:
        worker.request(glb, recipe, name="x")
        with pytest.raises(errors.TrellisError, match="did not start") as caught:
            worker.wait()
    assert not isinstance(caught.value, errors.ResultError)


PARENT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from blender_trellis.scene.recipe import Recipe
from blender_trellis.scene.worker import ImportWorker
worker = ImportWorker()
if {ask}:
    glb = Path({glb!r})
    worker.request(glb, Recipe("local/draft"), name="x", preview=(glb.with_suffix(".png"), 4000))
while not worker._started:
    worker.poll()
    time.sleep(0.05)
print(worker._folder, flush=True)
time.sleep(600)
"""


def test_what_only_looks_like_a_reply_is_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever reads a file may print the names in it."""
    script = folder / "main.py"
    script.write_text(
        """
import json, pathlib, sys
mark = "@" + pathlib.Path(sys.argv[-1]).name
forged = json.dumps({"error": "InputError", "message": "forged"})
for line in ("@trellis-import-a1b2c3d4 " + forged, f"mesh {mark} {forged}", f"{mark} 1", f"{mark} {{"):
    print(line)
"""
    )
    monkeypatch.setattr(worker_module, "_MAIN", script)
    with ImportWorker() as worker, pytest.raises(errors.TrellisError, match="did not start"):
        worker.wait()


@pytest.mark.parametrize("ask", [False, True], ids=["idle", "busy"])
def test_ends_with_its_parent(temporary: Path, glb: Path, ask: bool) -> None:
    script = glb.with_name("parent.py")
    script.write_text(PARENT.format(root=str(ROOT), glb=str(glb), ask=ask), encoding="utf-8")
    environment = os.environ | dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(temporary))
    environment["PYTHONIOENCODING"] = "utf-8"
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        lines = (line.decode().strip() for line in parent.stdout)
        folder = Path(next(line for line in lines if "trellis-import-" in line))
        assert folder.is_dir()
        parent.kill()
    # the process removes its folder as its last act, just before it ends
    wait_until(lambda: not folder.exists())


LOOK = """
import json, sys
import bpy
bpy.ops.wm.open_mainfile(filepath=sys.argv[1])
scene = bpy.context.scene
obj = bpy.context.view_layer.objects.active
kinds = ("scenes", "objects", "meshes", "materials", "collections", "cameras", "lights", "worlds")
print("\\n" + json.dumps({
    "counts": {kind: len(getattr(bpy.data, kind)) for kind in kinds},
    "images": sorted((i.name, i.packed_file.size, tuple(i.size)) for i in bpy.data.images),
    "object": obj.name,
    "selected": obj.select_get(),
    "height": obj.dimensions.z,
    "recipe": obj["trellis"],
}))
"""


def test_written_blend_opens_with_the_model(
    temporary: Path, glb: Path, recipe: Recipe, folder: Path
) -> None:
    out = folder / "Ergebnis 猫.blend"
    out.write_bytes(b"what was there before")
    picture = folder / "Vorschau 猫.png"
    assert write_blend(glb, recipe, out, name="Katze", height=0.5, preview=(picture, 96)) == out
    assert list(temporary.iterdir()) == []
    assert sorted(folder.iterdir()) == sorted([glb, out, picture])
    assert not bpy.data.objects
    script = glb.with_name("look.py")
    script.write_text(LOOK, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), str(out)], stdout=subprocess.PIPE, check=True
    )
    seen = json.loads(done.stdout.decode().strip().splitlines()[-1])
    assert seen["counts"] == {
        "scenes": 1, "objects": 1, "meshes": 1, "materials": 1, "collections": 1,
        "cameras": 0, "lights": 0, "worlds": 0,
    }  # fmt: skip
    sizes = {"Katze base colour": glbs.picture(1, 64, "WEBP"), "Katze normal": glbs.picture(2, 64)}
    assert seen["images"] == [[name, len(data), [64, 64]] for name, data in sizes.items()]
    assert (seen["object"], seen["selected"]) == ("Katze", True)
    assert seen["height"] == pytest.approx(0.5)
    assert Recipe.from_json(seen["recipe"]) == recipe


def test_preview_shows_the_whole_model_on_nothing(glb: Path, recipe: Recipe, folder: Path) -> None:
    picture = folder / "p.png"
    write_blend(glb, recipe, folder / "p.blend", name="x", preview=(picture, 96))
    with Image.open(picture) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGBA", (96, 96))
        alpha = np.array(image)[:, :, 3]
    assert not np.concatenate([alpha[[0, -1]].ravel(), alpha[:, [0, -1]].ravel()]).any()
    rows, columns = np.nonzero(alpha > 128)
    for extent in (rows, columns):
        assert np.ptp(extent) > 70
        assert (extent.min() + extent.max()) / 2 == pytest.approx(47.5, abs=3)


def test_unwritable_output_is_an_output_error(
    temporary: Path, glb: Path, recipe: Recipe, folder: Path
) -> None:
    (folder / "taken.blend").mkdir()
    for out in ("absent/x.blend", "taken.blend", "x" * 300):
        with pytest.raises(errors.OutputError):
            write_blend(glb, recipe, folder / out, name="x")
    assert list(temporary.iterdir()) == []


def test_output_that_fails_late_leaves_nothing(temporary: Path, glb: Path, recipe: Recipe) -> None:
    with ImportWorker() as worker:
        worker.request(glb, recipe, name="x", blend=glb.parent / "absent" / "x.blend")
        with pytest.raises(errors.OutputError, match="cannot be written"):
            worker.wait()
    assert list(glb.parent.iterdir()) == [glb]
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("height", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_height_is_refused(glb: Path, recipe: Recipe, height: float) -> None:
    with pytest.raises(errors.ParameterError, match="height"):
        import_blocking(glb, recipe, name="x", height=height)
    assert not bpy.data.objects


def test_one_undo_takes_the_model_away(glb: Path, recipe: Recipe) -> None:
    bpy.ops.ed.undo_push(message="Before")
    import_blocking(glb, recipe, name="x")
    bpy.ops.ed.undo_push(message="Import")
    assert len(bpy.data.objects) == 1
    bpy.ops.ed.undo()
    assert not bpy.data.objects
    bpy.ops.ed.redo()
    assert len(bpy.data.objects) == 1
