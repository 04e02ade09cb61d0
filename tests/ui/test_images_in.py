# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way that a picture gets in, and the picture as the model will see it."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import bpy
import numpy as np
import pytest
from mathutils import Matrix, Vector
from PIL import Image

from blender_trellis.generation import images
from blender_trellis.ui import orders, previews
from blender_trellis.ui.panels import TRELLIS_PT_generate
from services.file_host import FileHost, Serve

from . import layouts

PHOTO = Path(__file__).parents[2] / "docs" / "images" / "rocket-photo.jpg"  # in front of a wall


@pytest.fixture
def settings(extension):
    return bpy.context.scene.trellis


@pytest.fixture
def seen(extension, settings, until):
    """How the model will see the picture that is shown large, once that is known."""

    def look():
        def known():
            return extension.previews.seen(settings, settings.images[settings.active])

        until(lambda: known() is not None)
        return known()

    return look


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGBA"))


def files(settings):
    return [item.filepath for item in settings.images]


# -- As the model will see it ---------------------------------------------------------------------


def test_a_photo_is_shown_cut_out_cropped_and_square(settings, seen):
    bpy.ops.trellis.add_images(filepath=str(PHOTO))
    sight = seen()
    assert sight.kind == "cut" and not sight.error
    shown = pixels(sight.path)
    rows, columns = (np.flatnonzero((shown[..., 3] > 127).any(axis)) for axis in (1, 0))
    assert shown.shape[:2] == (512, 512)
    margin = 1 / (1 + 2 * 0.12)  # Draft keeps some space around the subject
    assert (rows[-1] - rows[0]) / 512 == pytest.approx(margin, abs=0.02)
    assert rows[0] + rows[-1] == pytest.approx(511, abs=8)
    assert columns[0] + columns[-1] == pytest.approx(511, abs=8)
    assert not shown[:8, :8, 3].any()


def test_what_is_sent_is_what_is_shown(extension, settings, seen, until, home):
    settings.local_draft.resolution, settings.local_draft.texture_size = "512", "512"
    bpy.ops.trellis.add_images(filepath=str(PHOTO))
    shown = pixels(seen().path)
    bpy.ops.trellis.generate()
    (view,) = extension.board.views.values()
    until(lambda: view.files or view.error)
    (sent,) = (home / "inputs").glob("*.png")
    again = images.seen(images.read(sent, 4096), 0.12, 512)
    (home / "again.png").write_bytes(again)
    assert (pixels(home / "again.png") == shown).all()


def test_without_separation_the_picture_is_shown_and_sent_as_it_is(settings, seen):
    settings.cut_out = False
    bpy.ops.trellis.add_images(filepath=str(PHOTO))
    assert seen().kind == "whole"
    assert (pixels(seen().path)[256, :, 3] == 255).all()
    assert not orders.order_of(bpy.context.scene).cut_out
    assert "The background is left to this computer" in texts()


def test_a_picture_without_a_plain_background_says_who_gets_it(settings, seen, tmp_path):
    spots = np.random.default_rng(1).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(spots).resize((800, 800)).save(tmp_path / "spots.png")
    bpy.ops.trellis.add_images(filepath=str(tmp_path / "spots.png"))
    assert seen().kind == "whole"
    assert "No plain background found: it is left to this computer" in texts()
    settings.endpoint = "fal-ai/trellis-2"
    assert seen().kind == "whole"
    assert "No plain background found: it is left to fal" in texts()


def texts():
    return " ".join(layouts.draw(TRELLIS_PT_generate).texts())


def test_each_model_s_own_margin_is_shown(settings, seen, picture):
    bpy.ops.trellis.add_images(filepath=str(picture))
    heights = {}
    for endpoint in ("local/draft", "fal-ai/trellis", "fal-ai/trellis-2"):
        settings.endpoint = endpoint
        assert seen().kind == "transparent"
        rows = np.flatnonzero((pixels(seen().path)[..., 3] > 127).any(1))
        heights[endpoint] = len(rows) / 512
    assert heights == pytest.approx(
        {"local/draft": 1 / 1.24, "fal-ai/trellis": 1 / 1.2, "fal-ai/trellis-2": 1.0}, abs=0.02
    )


def test_a_picture_that_cannot_be_read_says_so_before_anything_is_sent(settings, seen, tmp_path):
    (tmp_path / "holiday.png").write_text("this is no picture")
    bpy.ops.trellis.add_images(filepath=str(tmp_path / "holiday.png"))
    assert "holiday.png is not a picture that can be read" in seen().error
    drawn = layouts.draw(TRELLIS_PT_generate)
    alarming = " ".join(each.text for each in drawn.drawn if each.kind == "label" and each.alert)
    assert "holiday.png is not a picture" in alarming
    bpy.ops.trellis.add_images(filepath=str(tmp_path / "gone.png"), replace=True)
    assert "There is no image" in seen().error


def test_a_file_that_changes_is_looked_at_again(
    extension, settings, seen, until, tmp_path, monkeypatch
):
    path = tmp_path / "work.png"
    Image.new("RGBA", (64, 64), (250, 0, 0, 255)).save(path)
    bpy.ops.trellis.add_images(filepath=str(path))
    first = seen()
    Image.new("RGBA", (65, 65), (0, 250, 0, 255)).save(path)
    assert seen() is first  # nobody looks at every redraw
    monkeypatch.setattr(previews, "AGAIN", 0.0)
    until(lambda: seen() != first)
    assert tuple(pixels(seen().path)[256, 256, :3]) == (0, 250, 0)


def test_a_painted_image_is_shown_as_it_was_when_it_came_in(settings, seen):
    image = bpy.data.images.new("Bild", 64, 64, alpha=True)
    image.pixels.foreach_set(np.tile(np.float32((0, 0, 1, 1)), 64 * 64))
    bpy.ops.trellis.add_image_datablock(image="Bild")
    assert tuple(pixels(seen().path)[256, 256]) == (0, 0, 255, 255)
    bpy.data.images.remove(image)
    assert settings.images[0].image is None


def test_pictures_that_were_seen_are_kept_and_the_oldest_go(
    settings, seen, home, tmp_path, monkeypatch
):
    from blender_trellis.ui import sights

    monkeypatch.setattr(sights, "_KEPT", 2)
    for number in range(4):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (32, 32), (number, 0, 0)).save(path)
        bpy.ops.trellis.add_images(filepath=str(path), replace=True)
        newest = Path(seen().path)
    found = list((home / "seen").iterdir())
    assert len(found) == 2 and newest in found


# -- Several views --------------------------------------------------------------------------------


def test_views_are_small_pictures_with_their_roles_and_one_is_shown_large(settings, picture):
    for _ in range(3):
        bpy.ops.trellis.add_images(filepath=str(picture))
    drawn = layouts.draw(TRELLIS_PT_generate).drawn
    roles = [each.text for each in drawn if each.name == "trellis.show_image"]
    assert roles == ["Front", "Right", "Back"]
    settings.endpoint = "local/trellis-2"  # it does not know from where a picture was taken
    unnamed = layouts.draw(TRELLIS_PT_generate).drawn
    assert [each.text for each in unnamed if each.name == "trellis.show_image"] == ["1", "2", "3"]
    settings.endpoint = "local/draft"
    assert bpy.ops.trellis.show_image(index=1) == {"FINISHED"} and settings.active == 1
    with pytest.raises(RuntimeError, match="There is no such view"):
        bpy.ops.trellis.show_image(index=3)
    assert "TRELLIS_MT_add_view" in [each.name for each in drawn]
    bpy.ops.trellis.add_images(filepath=str(picture))
    full = layouts.draw(TRELLIS_PT_generate).drawn  # Draft takes four
    assert "TRELLIS_MT_add_view" not in [each.name for each in full]


# -- Pasted ---------------------------------------------------------------------------------------


def test_a_path_is_pasted_however_it_was_copied(settings, picture, tmp_path):
    side = tmp_path / "side view.png"
    shutil.copy(picture, side)
    bpy.ops.trellis.paste_image(text=f' "{picture}"\n')
    assert files(settings) == [str(picture)]
    bpy.ops.trellis.paste_image(text=f"{picture.as_uri()}\r\n{side.as_uri()}\r\n", replace=True)
    assert files(settings) == [str(picture), str(side)]


def test_an_address_is_pasted_fetched_and_sent(extension, settings, seen, until, picture, home):
    settings.local_draft.resolution, settings.local_draft.texture_size = "512", "512"
    with FileHost(picture.read_bytes()) as host:
        bpy.ops.trellis.paste_image(text=f"{host.url}/some/robot%201.png")
        assert seen().kind == "transparent"
        bpy.ops.trellis.generate()
        (view,) = extension.board.views.values()
        until(lambda: view.files or view.error)
    assert view.files and not view.error and view.title == "robot 1"
    assert len(host.calls) == 1
    (sent,) = (home / "inputs").glob("*.png")
    assert (pixels(sent) == pixels(picture)).all()


def test_an_address_that_gives_no_picture_says_so(settings, seen):
    with FileHost(b"") as host:
        host.serves = [Serve(404)]
        bpy.ops.trellis.paste_image(text=f"{host.url}/robot.png")
        assert "does not give the picture out" in seen().error


@pytest.mark.parametrize("text", ["a shopping list\nmilk", "/no/such/file.png"])
def test_other_text_is_refused(settings, text):
    with pytest.raises(RuntimeError, match="no path of a file and no address"):
        bpy.ops.trellis.paste_image(text=text)
    assert not settings.images


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such tools")
def test_an_image_is_pasted_by_the_desktop_s_tool_and_kept(
    settings, picture, home, tmp_path, monkeypatch
):
    """The tool is a stand-in, that gives the picture out when it is asked as xclip is."""
    tool = tmp_path / "bin" / "xclip"
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\ntest "$*" = "-selection clipboard -target image/png -out" && cat "{picture}"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert bpy.ops.trellis.paste_image() == {"FINISHED"}
    (kept,) = (Path(path) for path in files(settings))
    assert kept.parent.parent == home / "pictures" and kept.read_bytes() == picture.read_bytes()
    bpy.ops.trellis.paste_image()  # the same one again
    assert files(settings) == [str(kept)] * 2 and len(list((home / "pictures").iterdir())) == 1
    tool.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(RuntimeError, match="There is no picture on the clipboard"):
        bpy.ops.trellis.paste_image()


# -- Rendered and captured ------------------------------------------------------------------------


def test_the_last_render_is_used_with_its_alpha_and_the_file_format_stays(settings, seen):
    scene = bpy.context.scene
    scene.render.engine, scene.cycles.samples = "CYCLES", 1
    scene.render.resolution_x, scene.render.resolution_y = 64, 32
    scene.render.film_transparent = True
    scene.render.image_settings.file_format = "OPEN_EXR"
    scene.render.image_settings.color_depth = "16"
    bpy.ops.mesh.primitive_cube_add(size=1)
    bpy.ops.object.camera_add(location=(0, -6, 0), rotation=(1.5708, 0, 0))
    scene.camera = bpy.context.object
    bpy.ops.render.render()
    assert bpy.ops.trellis.add_image_datablock(image="Render Result") == {"FINISHED"}
    found = pixels(files(settings)[0])
    assert found.shape[:2] == (32, 64)
    assert found[16, 32, 3] == 255 and found[2, 2, 3] == 0
    assert seen().kind == "transparent"
    kept = scene.render.image_settings
    assert (kept.file_format, kept.color_depth) == ("OPEN_EXR", "16")


def test_captures_need_a_window_and_say_so(extension):
    for capture in (bpy.ops.trellis.capture_view, bpy.ops.trellis.capture_camera):
        with pytest.raises(RuntimeError, match="no window to take a picture of"):
            capture()


@pytest.mark.parametrize("size", [(40, 60), (60, 40)])
def test_a_capture_comes_closer_until_what_was_found_fills_it(size):
    """A block of pixels, seen by a projection that leaves everything where it is."""
    from blender_trellis.ui import captures

    found = np.zeros(size, bool)
    found[10:30, 5:15] = True
    eye = captures._closer(captures._Eye(Matrix(), Matrix(), size[1] / size[0]), found)
    corners = [
        (eye.projection @ Vector((2 * x / size[1] - 1, 2 * y / size[0] - 1, 0.3, 1)))
        for x, y in ((5, 10), (15, 30))
    ]
    room = 1 + 0.03 * 20
    assert eye.aspect == pytest.approx((10 + 2 * room) / (20 + 2 * room))
    edge = (1 - 2 * room / (10 + 2 * room), 1 - 2 * room / (20 + 2 * room))
    assert corners[0][:] == pytest.approx((-edge[0], -edge[1], 0.3, 1))
    assert corners[1][:] == pytest.approx((*edge, 0.3, 1))


def test_in_quad_view_the_view_that_is_turned_freely_is_captured(monkeypatch):
    from blender_trellis.ui import captures

    taken = []
    monkeypatch.setattr(captures, "_capture", lambda *given: taken.append(given[-1]))
    quads = [
        SimpleNamespace(
            type="WINDOW",
            width=width,
            height=100,
            data=SimpleNamespace(view_matrix=f"{width} seen", window_matrix=f"{width} drawn"),
        )
        for width in (100, 300)
    ]
    header = SimpleNamespace(type="HEADER", width=9, height=9, data=None)
    space = SimpleNamespace(region_3d=quads[0].data)
    area = SimpleNamespace(regions=[header, *quads], spaces=SimpleNamespace(active=space))
    captures.of_view(None, area)
    assert taken == [captures._Eye("300 seen", "300 drawn", 3.0)]


# -- What is kept of what was shown ---------------------------------------------------------------


@pytest.fixture
def shown(extension, until):
    """Draws picture files, in background mode without an icon, until they are all loaded."""

    def draw(*paths):
        def loaded():
            for path in paths:
                extension.previews.of_file(str(path))
            return {str(path) for path in paths} <= set(extension.previews._loaded or ())

        until(loaded)

    return draw


@pytest.fixture
def many(tmp_path, monkeypatch):
    """More picture files than are kept, if they are not drawn any more."""
    monkeypatch.setattr(previews, "KEPT", 3)
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for path in paths:
        shutil.copy(PHOTO.with_name("robot.png"), path)
    return paths


def test_of_many_pictures_those_shown_last_stay_loaded(
    extension, settings, shown, seen, many, monkeypatch
):
    monkeypatch.setattr(previews, "_LATELY", 0.0)
    for path in many:
        bpy.ops.trellis.add_images(filepath=str(path), replace=True)
        seen()
        shown(path, many[0])
    kept = extension.previews
    assert set(kept._loaded) == set(kept._drawn) == {str(many[0]), *map(str, many[-2:])}
    assert len(kept._looks) <= 4  # those at rest, and the one at hand
    shown(many[1])  # an old one comes back


def test_however_many_pictures_are_shown_at_once_they_stay_loaded(extension, shown, many):
    shown(*many)
    assert len(extension.previews._loaded) == len(many)
