# SPDX-License-Identifier: GPL-3.0-or-later
"""The geometry half of the mesh stage, on shapes of which everything is known. Distances are in voxels."""

from __future__ import annotations

import numpy as np
import pytest

igl = pytest.importorskip("igl", reason="libigl comes with TRELLIS.2's environment")
pytest.importorskip("fast_simplification", reason="it comes with TRELLIS.2's environment")

from blender_trellis.sidecar.engines.stages import EngineError  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.dual_grid import extract  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.mesh import simplify  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.mesh.clean import split  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.mesh.cubes import COUNT, TRIANGLES  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.mesh.repair import repair  # noqa: E402
from blender_trellis.sidecar.engines.trellis2.mesh.surface import (  # noqa: E402
    MeshOptions,
    Surface,
)
from trellis2 import shapes  # noqa: E402

VOXELS = 64


def finished(surface, *, remesh, target=100_000, **options):
    wished = MeshOptions(
        decimation_target=target, texture_size=64, remesh=remesh, resolution=VOXELS, **options
    )
    return repair(surface, wished, lambda message, fraction: None)[1]


def sides(faces):
    """Every edge's lower and higher point, and whether the face runs from the one to the other, for each face's sides."""
    ends = np.stack([faces, np.roll(faces, -1, axis=1)], -1).reshape(-1, 2)
    return np.sort(ends, axis=1), ends[:, 0] < ends[:, 1]


def counts(mesh):
    """Of each edge, how many faces run along it in one direction, and in the other."""
    ends, rising = sides(mesh.faces)
    edge = np.unique(ends, axis=0, return_inverse=True)[1].ravel()
    return np.bincount(edge, rising), np.bincount(edge, ~rising)


def euler(mesh):
    return len(np.unique(mesh.faces)) - len(counts(mesh)[0]) + len(mesh.faces)


def volume(mesh):
    a, b, c = np.moveaxis(mesh.points.astype(np.float64)[mesh.faces], 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


def areas(mesh):
    a, b, c = np.moveaxis(mesh.points.astype(np.float64)[mesh.faces], 1, 0)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def furthest(mesh, other, samples=5000):
    """The largest distance of points on one of two surfaces from the other, each way."""
    found = []
    for one, two in ((mesh, other), (other, mesh)):
        points, faces = one.points.astype(np.float64), one.faces.astype(np.int64)
        at = igl.random_points_on_mesh(samples, points, faces, seed=1)[2]
        there = two.points.astype(np.float64), two.faces.astype(np.int64)
        squares = igl.point_mesh_squared_distance(at, *there)[0]
        found.append(float(np.sqrt(squares.max())) * VOXELS)
    return found


def is_manifold(mesh):
    """As libigl sees it, which is not what made it; that no face is empty or there twice; that no two points coincide."""
    faces = mesh.faces.astype(np.int64)
    return bool(
        igl.is_edge_manifold(faces)[0]
        and igl.is_vertex_manifold(faces).all()
        and areas(mesh).min() > 0
        and len(np.unique(np.sort(faces, axis=1), axis=0)) == len(faces)
        and len(np.unique(mesh.points, axis=0)) == len(np.unique(faces))
    )


def is_closed(mesh):
    """Whether each edge has one face in each direction."""
    return all((count == 1).all() for count in counts(mesh))


def is_wound_one_way(mesh):
    return max(count.max() for count in counts(mesh)) <= 1


def nested():
    return shapes.together(shapes.sphere(30, 0.4), shapes.sphere(20, 0.2))


def touching(shift):
    """Two boxes that share an edge, a side or a corner, as points of a dual grid do."""
    one = shapes.box((-0.3, -0.3, -0.3), (0.0, 0.0, 0.0), 8)
    low = tuple(0.0 if k in shift else -0.3 for k in range(3))
    high = tuple(0.3 if k in shift else 0.0 for k in range(3))
    return shapes.together(one, shapes.box(low, high, 8))


def plate(thickness):
    half = thickness / VOXELS / 2
    return shapes.box((-0.4, -0.3, -half), (0.4, 0.3, half), 20)


CLOSED = [
    ("sphere", shapes.sphere(25), 2, 0.1),
    ("torus", shapes.torus(), 0, 0.2),
    ("noisy blob", shapes.blob(25, VOXELS), 2, 1.0),
    ("nested spheres", nested(), 4, 0.2),
    ("thick plate", plate(3), 2, 1.0),
    ("thin plate", plate(0.7), 2, 1.0),
    ("hair-thin plate", plate(0.05), 2, 0.2),
    ("boxes that touch along an edge", touching((0, 1)), 4, 1.0),
    ("boxes that touch at a corner", touching((0, 1, 2)), 4, 1.0),
]
NAMES = [case[0] for case in CLOSED]


@pytest.mark.parametrize(("name", "shape", "characteristic", "most"), CLOSED, ids=NAMES)
@pytest.mark.parametrize("remesh", [True, False], ids=["remeshed", "as it is"])
def test_a_closed_surface_with_a_third_of_its_faces_flipped_is_made_whole(
    name, shape, characteristic, most, remesh
):
    mesh = finished(shapes.flipped(shape, 0.3), remesh=remesh)
    assert is_closed(mesh)
    assert is_manifold(mesh)
    assert volume(mesh) > 0
    assert euler(mesh) == characteristic
    assert max(furthest(mesh, shape)) < (most if remesh else 0.2)


def test_boxes_that_share_a_side_become_one():
    mesh = finished(touching((0,)), remesh=True)
    assert is_closed(mesh)
    assert is_manifold(mesh)
    assert euler(mesh) == 2
    assert volume(mesh) == pytest.approx(2 * 0.3**3, rel=0.01)


@pytest.mark.parametrize("remesh", [True, False], ids=["remeshed", "as it is"])
@pytest.mark.parametrize("target", [3000, 300, 30])
def test_the_finished_mesh_has_at_most_the_faces_that_were_asked_for(target, remesh):
    shape = shapes.blob(25, VOXELS)
    mesh = finished(shapes.flipped(shape, 0.3), remesh=remesh, target=target)
    assert 0.9 * target <= len(mesh.faces) <= target
    assert is_closed(mesh)
    assert is_manifold(mesh)
    assert volume(mesh) > 0
    assert euler(mesh) == 2
    if target == 3000:
        assert max(furthest(mesh, shape)) < 1.5


@pytest.mark.parametrize("remesh", [True, False], ids=["remeshed", "as it is"])
def test_a_mesh_that_is_simplified_in_blocks_has_no_seams(monkeypatch, remesh):
    monkeypatch.setattr(simplify, "_BLOCK", 2000)
    shape = shapes.blob(40, VOXELS)
    mesh = finished(shapes.flipped(shape, 0.3), remesh=remesh, target=1500)
    assert 1350 <= len(mesh.faces) <= 1500
    assert is_closed(mesh)
    assert is_manifold(mesh)
    assert euler(mesh) == 2
    assert max(furthest(mesh, shape)) < 3
    # The rims of blocks, which are kept, must not remain as lines of small faces.
    assert areas(mesh).max() / np.median(areas(mesh)) < 12


@pytest.mark.parametrize("target", [3000, 6390, 9000, 12700])
def test_blocks_come_close_to_what_was_asked_for_wherever_it_lies(monkeypatch, target):
    monkeypatch.setattr(simplify, "_BLOCK", 6400)
    shape = shapes.blob(40, VOXELS)
    assert len(shape.faces) == 12800
    mesh = finished(shape, remesh=False, target=target)
    assert 0.9 * target <= len(mesh.faces) <= target
    assert is_closed(mesh)
    assert is_manifold(mesh)


def test_a_small_hole_is_filled_and_a_large_one_closed_by_remeshing_alone():
    little = shapes.sphere(25, 0.15)
    small = Surface(little.points, little.faces[1:])
    for remesh in (True, False):
        mesh = finished(small, remesh=remesh)
        assert is_closed(mesh)
        assert max(furthest(mesh, little)) < 0.2
    whole = shapes.sphere(25)
    large = shapes.below(whole, 0.3)
    left = finished(large, remesh=False)
    assert not is_closed(left)
    assert is_wound_one_way(left)
    assert is_manifold(left)
    assert volume(left) > 0
    closed = finished(large, remesh=True)
    assert is_closed(closed)
    assert is_manifold(closed)
    assert euler(closed) == 2
    # Not a second wall inside the first, which would leave next to no volume, but a lid.
    assert volume(closed) == pytest.approx(volume(whole), rel=0.06)
    assert furthest(closed, large)[1] < 0.2


@pytest.mark.parametrize(("project", "away"), [(0.0, 1.0), (0.9, 0.1)])
def test_a_bowl_keeps_its_inside_and_gets_a_wall_as_thick_as_was_asked_for(project, away):
    bowl = shapes.below(shapes.sphere(25), 0.0)
    mesh = finished(bowl, remesh=True, remesh_project=project)
    assert is_closed(mesh)
    assert is_manifold(mesh)
    assert euler(mesh) == 2
    there, back = furthest(mesh, bowl)
    assert there == pytest.approx(away, abs=0.1)
    assert back == pytest.approx(away, abs=0.1)
    wider = finished(bowl, remesh=True, remesh_band=2.0)
    assert furthest(wider, bowl)[1] == pytest.approx(2, abs=0.1)


def test_a_wall_within_a_box_does_not_open_it():
    box = shapes.box((-0.3, -0.3, -0.3), (0.3, 0.3, 0.3), 8)
    middle = shapes.box((-0.3, -0.3, 0.0), (0.3, 0.3, 0.5), 8)
    floor = Surface(middle.points, middle.faces[(middle.points[middle.faces][:, :, 2] == 0).all(1)])
    walled = shapes.flipped(shapes.together(box, floor), 0.3)
    assert counts(walled)[0].max() + counts(walled)[1].max() >= 3
    mesh = finished(walled, remesh=True)
    assert is_closed(mesh)
    assert is_manifold(mesh)
    assert euler(mesh) == 2
    assert volume(mesh) == pytest.approx(0.6**3, rel=0.01)
    left = finished(walled, remesh=False)
    assert is_wound_one_way(left)
    assert is_manifold(left)
    assert volume(left) == pytest.approx(0.6**3, rel=0.01)


def test_a_strip_with_one_side_only_is_cut_once_and_gets_a_shell():
    turns = np.arange(120) * 2 * np.pi / 120
    half = np.stack([np.cos(turns / 2), np.sin(turns / 2)])
    rims = [
        np.stack(
            [(0.3 + s * half[0]) * np.cos(turns), (0.3 + s * half[0]) * np.sin(turns), s * half[1]],
            -1,
        )
        for s in (-0.08, 0.08)
    ]
    i, j = np.arange(120), np.roll(np.arange(120), -1)
    a, b, c, d = i, i + 120, j, j + 120
    c[-1], d[-1] = 120, 0
    faces = np.concatenate([np.stack([a, c, d], -1), np.stack([a, d, b], -1)])
    strip = shapes.surface(np.concatenate(rims), faces)
    cut = finished(strip, remesh=False)
    assert is_wound_one_way(cut)
    assert len(cut.faces) == len(faces)
    mesh = finished(strip, remesh=True)
    assert is_closed(mesh)
    assert is_manifold(mesh)
    assert euler(mesh) == 0
    assert max(furthest(mesh, strip)) < 1.2


def test_faces_that_are_empty_or_there_twice_and_crumbs_are_gone():
    ball = shapes.sphere(20)
    crumb = shapes.surface([[0.45, 0, 0], [0.4501, 0, 0], [0.45, 0.0001, 0]], [[0, 1, 2]])
    both = shapes.together(ball, crumb)
    twice = both.faces[:10, ::-1]
    empty = np.stack([both.faces[:5, 0], both.faces[:5, 0], both.faces[:5, 1]], -1)
    shape = Surface(both.points, np.concatenate([both.faces, twice, empty]))
    mesh = finished(shape, remesh=False)
    assert len(mesh.faces) == len(ball.faces)
    assert is_closed(mesh)
    assert is_manifold(mesh)


def test_the_original_for_the_bake_is_oriented_and_filled_but_not_simplified():
    whole = shapes.blob(70, VOXELS)
    options = MeshOptions(decimation_target=500, texture_size=64, remesh=True, resolution=VOXELS)
    shape = shapes.flipped(Surface(whole.points, whole.faces[1:]), 0.3)
    original, mesh = repair(shape, options, lambda message, fraction: None)
    assert is_closed(original)
    assert volume(original) == pytest.approx(volume(whole), rel=1e-3)
    np.testing.assert_array_equal(original.points[: len(whole.points)], whole.points)
    assert len(original.faces) == len(whole.faces) - 1 + 3
    assert mesh.points.dtype == original.points.dtype == np.float32
    assert mesh.faces.dtype == original.faces.dtype == np.int32


def test_every_case_of_marching_cubes_closes_with_its_neighbours():
    # Random insides and outsides have all cases; libigl's judgement of the result is in the other tests.
    used = [set(TRIANGLES[code, : COUNT[code]].ravel().tolist()) for code in range(256)]
    assert COUNT[0] == COUNT[255] == 0
    for code in range(1, 255):
        cut = {
            edge
            for edge, (low, axis) in enumerate(
                (c, axis) for axis in range(3) for c in range(8) if not c >> axis & 1
            )
            if (code >> low & 1) != (code >> (low | 1 << axis) & 1)
        }
        assert used[code] == cut


@pytest.mark.parametrize("logit", [-1.0, 1.5], ids=["sparse", "dense"])
@pytest.mark.parametrize("seed", range(3))
def test_a_decoder_that_makes_nonsense_gets_a_mesh_of_what_it_made(seed, logit):
    # A dual grid with random flags: edges with up to four faces, holes everywhere, loose faces.
    random = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"), -1).reshape(-1, 3)
    middle = np.abs(np.linalg.norm(places - 11.5, axis=1) - 8) < 1.5
    coords = places[middle].astype(np.int32)
    head = random.normal(size=(len(coords), 7)).astype(np.float32)
    head[:, 3:6] += logit
    points, faces = extract(coords, head, VOXELS)
    soup = shapes.surface(points, faces)
    assert np.add(*counts(soup)).max() > 2
    for target in (100_000, len(faces) // 4):
        mesh = finished(soup, remesh=True, target=target)
        assert is_closed(mesh)
        assert is_manifold(mesh)
        assert volume(mesh) > 0
        assert len(mesh.faces) <= target
        left = finished(soup, remesh=False, target=target)
        assert is_wound_one_way(left)
        assert igl.is_edge_manifold(left.faces.astype(np.int64))[0]
        assert igl.is_vertex_manifold(left.faces.astype(np.int64)).all()
        assert areas(left).min() > 0
        assert len(left.faces) <= target


def test_random_soup_is_made_a_closed_manifold():
    # Nothing that a decoder would make: 300 triangles through one another.
    random = np.random.default_rng(3)
    middles = random.uniform(-0.3, 0.3, (300, 1, 3))
    points = (middles + random.normal(0, 0.05, (300, 3, 3))).reshape(-1, 3)
    soup = shapes.surface(points, np.arange(900).reshape(-1, 3))
    mesh = finished(soup, remesh=True)
    assert is_closed(mesh)
    assert is_manifold(mesh)


def test_a_needle_between_the_lines_of_the_grid_is_not_lost():
    width = 0.2 / VOXELS
    points = [[-0.3, 0, 0], [0.3, 0, 0], [0.3, width, 0], [-0.3, width, 0]]
    needle = shapes.surface(points, [[0, 1, 2], [0, 2, 3]])
    mesh = finished(needle, remesh=True)
    assert is_closed(mesh)
    assert is_manifold(mesh)
    assert max(furthest(mesh, needle)) < 1.1


def test_splitting_parts_bodies_that_decimation_has_pinched_together():
    # Three tetrahedra about one edge, wound outwards: six faces meet there.
    turns = np.arange(6) * np.pi / 3
    rim = np.stack([np.cos(turns), np.sin(turns), np.zeros(6)], -1)
    points = np.concatenate([[[0, 0, -1.0], [0, 0, 1.0]], rim])
    faces = [
        face for k in (2, 4, 6) for face in ([0, 1, k], [1, 0, k + 1], [0, k, k + 1], [1, k + 1, k])
    ]
    parted = shapes.surface(*split(points, np.array(faces)[:, ::-1]))
    assert is_closed(parted)
    assert is_manifold(parted)
    assert euler(parted) == 6


@pytest.mark.parametrize(
    ("points", "faces"),
    [
        (np.empty((0, 3)), np.empty((0, 3))),
        (np.zeros((3, 3)), [[0, 1, 2]]),
        ([[0, 0, 0], [1, 0, 0], [np.nan, 1, 0]], [[0, 1, 2]]),
        ([[0, 0, 0], [0.1, 0, 0]], [[0, 1, 2]]),
    ],
    ids=["nothing", "one empty face", "not a number", "a point that is not there"],
)
@pytest.mark.parametrize("remesh", [True, False])
def test_what_is_no_surface_is_refused_in_words(points, faces, remesh):
    with pytest.raises(EngineError, match=r"model.* (Try|remesh)"):
        finished(shapes.surface(points, faces), remesh=remesh)


def test_what_is_smaller_than_a_voxel_is_refused_by_remeshing_alone():
    low, high = 0.1234, 0.1234 + 0.3 / VOXELS
    speck = shapes.box((low, low, low), (high, high, high))
    assert is_closed(finished(speck, remesh=False))
    with pytest.raises(EngineError, match="smaller than a voxel"):
        finished(speck, remesh=True)


def test_the_work_ends_when_its_caller_has_had_enough():
    seen = []

    class Enough(Exception):
        pass

    def step(message, fraction):
        seen.append(fraction)
        raise Enough

    options = MeshOptions(decimation_target=500, texture_size=64, remesh=True, resolution=VOXELS)
    with pytest.raises(Enough):
        repair(shapes.blob(60, VOXELS), options, step)
    assert len(seen) == 1


def test_progress_goes_forward_from_beginning_to_end():
    seen = []
    options = MeshOptions(decimation_target=500, texture_size=64, remesh=True, resolution=256)
    repair(
        shapes.blob(60, 256), options, lambda message, fraction: seen.append((message, fraction))
    )
    fractions = [fraction for _, fraction in seen]
    assert all(message for message, _ in seen)
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] <= fractions[-1] <= 1
