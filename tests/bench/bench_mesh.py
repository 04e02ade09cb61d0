# SPDX-License-Identifier: GPL-3.0-or-later
"""The mesh stage of TRELLIS.2 on shapes of which everything is known: what comes out, how long it takes, and how much memory."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from report import Report, Table, finish, seconds

RESOLUTION = 512
TARGET = 200_000
TEXTURE = 2048
SAMPLES = 200_000
SHAPES = (
    "sphere",
    "torus",
    "thin plate",
    "nested spheres",
    "touching boxes",
    "sphere with a hole",
    "bowl",
    "noisy blob",
)
HEADS = (
    *("shape", "faces before", "remeshed", "closed", "manifold", "wound one way", "Euler number"),
    *("faces after", "voxels away, mean", "largest", "geometry", "in all", "silent"),
    *("texture off, levels of 255", "99 %", "most memory"),
)


def shape(name: str) -> Any:
    """One of `SHAPES`, a third of its faces flipped."""
    from trellis2 import shapes

    half = 1 / RESOLUTION
    ball = shapes.sphere(112)
    made = {
        "sphere": lambda: ball,
        "torus": lambda: shapes.torus(400, 125),
        "thin plate": lambda: shapes.box((-0.4, -0.3, -half), (0.4, 0.3, half), 92),
        "nested spheres": lambda: shapes.together(ball, shapes.sphere(56, 0.2)),
        "touching boxes": lambda: shapes.together(
            shapes.box((-0.3, -0.3, -0.3), (0, 0, 0), 64),
            shapes.box((0, 0, -0.3), (0.3, 0.3, 0), 64),
        ),
        "sphere with a hole": lambda: shapes.below(ball, 0.3),
        "bowl": lambda: shapes.below(ball, 0.0),
        "noisy blob": lambda: shapes.blob(354, RESOLUTION),
    }
    return shapes.flipped(made[name](), 0.3)


def colours(points: np.ndarray) -> np.ndarray:
    """Base colour that tells where a point is; the rest in the middle."""
    return np.concatenate([points + 0.5, np.full((len(points), 3), 0.5)], 1)


def voxels(raw: Any) -> Any:
    """`colours` as the texture decoder leaves them: of the voxels around a surface."""
    from blender_trellis.sidecar.engines.trellis2.volume import Volume, pack, unpack

    middles = raw.points[raw.faces].mean(1)
    on = unpack(np.unique(pack(((middles + 0.5) * RESOLUTION).astype(np.int32))))
    around = [on + np.array(step, np.int32) for step in itertools.product((-1, 0, 1), repeat=3)]
    coords = unpack(np.unique(pack(np.concatenate(around))))
    return Volume(coords, colours((coords + 0.5) / RESOLUTION - 0.5), RESOLUTION)


def measure(name: str, remesh: bool) -> dict[str, Any]:
    """In this process: one row of the table."""
    import resource

    from blender_trellis.sidecar.engines.trellis2.mesh import MeshOptions, finish
    from blender_trellis.sidecar.engines.trellis2.mesh.repair import repair

    raw = shape(name)
    field = voxels(raw)
    options = MeshOptions(
        decimation_target=TARGET, texture_size=TEXTURE, remesh=remesh, resolution=RESOLUTION
    )
    seconds, steps = [time.perf_counter()], [time.perf_counter()]
    original, mesh = repair(raw, options, lambda *_: steps.append(time.perf_counter()))
    seconds.append(time.perf_counter())
    steps.append(seconds[-1])
    data = finish(raw, field, options, lambda *_: steps.append(time.perf_counter()))
    seconds.append(time.perf_counter())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    errors = texture_errors(data, original)
    return {
        "before": len(raw.faces),
        "after": len(mesh.faces),
        "geometry": seconds[1] - seconds[0],
        "total": seconds[2] - seconds[1],
        "silent": max(np.diff(steps)),
        "peak": peak / (2**20 if sys.platform == "darwin" else 2**10),
        "texture": float(errors.mean()),
        "worst": float(np.percentile(errors, 99)),
        **judged(mesh),
        **away(mesh, original),
    }


def judged(mesh: Any) -> dict[str, Any]:
    """What libigl and plain counting say of a mesh."""
    import igl

    faces = mesh.faces.astype(np.int64)
    ends = np.stack([faces, np.roll(faces, -1, axis=1)], -1).reshape(-1, 2)
    key = ends.min(1) << 32 | ends.max(1)
    _, edge = np.unique(key, return_inverse=True)
    rising = np.bincount(edge, ends[:, 0] < ends[:, 1])
    falling = np.bincount(edge, ends[:, 0] > ends[:, 1])
    return {
        "closed": bool(((rising + falling) == 2).all()),
        "manifold": bool(igl.is_edge_manifold(faces)[0] and igl.is_vertex_manifold(faces).all()),
        "wound": bool(max(rising.max(), falling.max()) == 1),
        "euler": int(len(np.unique(faces)) - len(rising) + len(faces)),
    }


def away(mesh: Any, original: Any) -> dict[str, float]:
    """Distance in voxels between two surfaces, of points on either one from the other: the mean and the largest."""
    import igl

    found = []
    for one, other in ((mesh, original), (original, mesh)):
        points = igl.random_points_on_mesh(
            SAMPLES, one.points.astype(float), one.faces.astype(np.int64), seed=1
        )[2]
        squares = igl.point_mesh_squared_distance(
            points, other.points.astype(float), other.faces.astype(np.int64)
        )[0]
        found.append(np.sqrt(squares) * RESOLUTION)
    return {"mean": max(map(np.mean, found)), "largest": max(map(np.max, found))}


def texture_errors(data: bytes, original: Any) -> np.ndarray:
    """Differences, of 255 levels, between the colours on the model and those of the nearest places on the original."""
    import igl
    from PIL import Image

    (length,) = struct.unpack_from("<I", data, 12)
    document, binary = json.loads(data[20 : 20 + length]), data[28 + length :]

    def view(number: int) -> bytes:
        place = document["bufferViews"][number]
        return binary[place.get("byteOffset", 0) :][: place["byteLength"]]

    def values(number: int) -> np.ndarray:
        entry = document["accessors"][number]
        kind = {5125: np.uint32, 5126: np.float32, 5123: np.uint16}[entry["componentType"]]
        flat = np.frombuffer(view(entry["bufferView"])[entry.get("byteOffset", 0) :], kind)
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[entry["type"]]
        return flat[: entry["count"] * width].reshape(-1, width)

    (primitive,) = document["meshes"][0]["primitives"]
    faces = values(primitive["indices"]).reshape(-1, 3).astype(np.int64)
    x, y, z = values(primitive["attributes"]["POSITION"]).astype(float).T
    points = np.stack([x, -z, y], -1)
    uvs = values(primitive["attributes"]["TEXCOORD_0"])
    base = document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["index"]
    image = document["images"][document["textures"][base]["source"]]
    pixels = np.asarray(Image.open(io.BytesIO(view(image["bufferView"]))))
    weights, face, places = igl.random_points_on_mesh(SAMPLES, points, faces, seed=1)
    at = (uvs[faces[face]] * weights[:, :, None]).sum(1)
    column, row = np.clip((at * pixels.shape[0]).astype(int), 0, pixels.shape[0] - 1).T
    nearest = igl.point_mesh_squared_distance(
        places, original.points.astype(float), original.faces.astype(np.int64)
    )[2]
    wanted = 255 * colours(nearest)[:, :3]
    return np.abs(pixels[row, column, :3] - wanted)


def row(name: str, remesh: bool) -> list[str]:
    done = subprocess.run(
        [sys.executable, __file__, name, str(int(remesh))],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    yes = ["yes" if found[key] else "no" for key in ("closed", "manifold", "wound")]
    away_from_it = [f"{found[key]:.2f}" for key in ("mean", "largest")]
    times = [seconds(found[key]) for key in ("geometry", "total", "silent")]
    off = [f"{found[key]:.2f}" for key in ("texture", "worst")]
    shape_of_it = [name, str(found["before"]), "yes" if remesh else "no", *yes, str(found["euler"])]
    return [
        *shape_of_it,
        *(str(found["after"]), *away_from_it, *times, *off, f"{found['peak']:.0f} MiB"),
    ]


def main() -> int:
    if not importlib.util.find_spec("igl"):
        print("The mesh stage of TRELLIS.2 is not measured: this environment has no libigl.\n")
        return 0
    rows = [row(name, remesh) for name in SHAPES for remesh in (False, True)]
    table = Table(
        f"The mesh stage of TRELLIS.2: {RESOLUTION} voxels a side, to {TARGET} faces, texture of {TEXTURE}",
        HEADS,
        rows,
        [
            "Silent is the longest time in which nothing was reported, and nothing could be cancelled.",
            "Aim for the noisy blob on two cores: 30 s in all without remeshing, 60 s with it.",
        ],
    )
    return finish(Report([table]))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        sys.stdout.write(json.dumps(measure(sys.argv[1], sys.argv[2] == "1"), default=float))
    else:
        sys.exit(main())
