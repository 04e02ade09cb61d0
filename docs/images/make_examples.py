# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders the example images of this folder from geometry made here, with Cycles on the CPU.

    python docs/images/make_examples.py [robot] [rocket] [truck]

robot.png is a cut-out with alpha; rocket-photo.jpg looks like a photograph, with a backdrop, a
shadow and grain; truck-front/-right/-back/-left.png are four orthographic cut-outs of one object.
Every object stands on z = 0 and looks towards −Y. Lengths are in metres.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import bpy
from mathutils import Vector

HERE = Path(__file__).parent
Vec = tuple[float, float, float]


def srgb(hex_colour: str) -> tuple[float, float, float, float]:
    """Blender's linear RGBA of a colour written as on the web, "ff8800"."""
    channels = [int(hex_colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return red, green, blue, 1.0


def material(
    colour: str, rough: float = 0.35, metal: float = 0.0, glow: float = 0.0
) -> bpy.types.Material:
    made = bpy.data.materials.new(colour)
    if made.node_tree is None:  # from Blender 5.0 on every material has nodes
        made.use_nodes = True
    shader = made.node_tree.nodes["Principled BSDF"]
    shader.inputs["Base Color"].default_value = srgb(colour)
    shader.inputs["Roughness"].default_value = rough
    shader.inputs["Metallic"].default_value = metal
    shader.inputs["Emission Color"].default_value = srgb(colour)
    shader.inputs["Emission Strength"].default_value = glow
    return made


def finish(mat: bpy.types.Material, bevel: float = 0.0, segments: int = 6) -> bpy.types.Object:
    """The object just added, with its material, rounded edges and smooth shading."""
    made = bpy.context.object
    bpy.ops.object.transform_apply(location=False, rotation=False, scale=True)
    made.data.materials.append(mat)
    if bevel:
        rounding = made.modifiers.new("Bevel", "BEVEL")
        rounding.width, rounding.segments = bevel, segments
        rounding.limit_method = "ANGLE"
        made.modifiers.new("Normals", "WEIGHTED_NORMAL").keep_sharp = True
    bpy.ops.object.shade_smooth()
    return made


def box(
    mat: bpy.types.Material, at: Vec, size: Vec, bevel: float = 0.05, turn: Vec = (0, 0, 0)
) -> bpy.types.Object:
    bpy.ops.mesh.primitive_cube_add(size=1, location=at, rotation=turn, scale=size)
    return finish(mat, bevel, segments=10)


def ball(mat: bpy.types.Material, at: Vec, size: Vec) -> bpy.types.Object:
    bpy.ops.mesh.primitive_uv_sphere_add(
        segments=64, ring_count=32, radius=0.5, location=at, scale=size
    )
    return finish(mat)


def rod(
    mat: bpy.types.Material, start: Vec, end: Vec, radius: float, bevel: float = 0.02
) -> bpy.types.Object:
    """A cylinder with rounded rims between two points."""
    along = Vector(end) - Vector(start)
    bpy.ops.mesh.primitive_cylinder_add(
        vertices=96,
        radius=radius,
        depth=along.length,
        location=(Vector(start) + Vector(end)) / 2,
        rotation=along.to_track_quat("Z", "Y").to_euler(),
    )
    return finish(mat, bevel)


def ring(
    mat: bpy.types.Material, at: Vec, radius: float, thickness: float, turn: Vec = (0, 0, 0)
) -> bpy.types.Object:
    bpy.ops.mesh.primitive_torus_add(
        major_segments=96,
        minor_segments=24,
        location=at,
        rotation=turn,
        major_radius=radius,
        minor_radius=thickness,
    )
    return finish(mat)


def turned(mat: bpy.types.Material, profile: Sequence[tuple[float, float]]) -> bpy.types.Object:
    """A surface of revolution about Z; profile holds (radius, z) from bottom to top."""
    mesh = bpy.data.meshes.new("turned")
    edges = [(i, i + 1) for i in range(len(profile) - 1)]
    mesh.from_pydata([(r, 0, z) for r, z in profile], edges, [])
    made = bpy.data.objects.new("turned", mesh)
    bpy.context.collection.objects.link(made)
    screw = made.modifiers.new("Screw", "SCREW")
    screw.steps = screw.render_steps = 128
    screw.use_merge_vertices = screw.use_normal_calculate = True
    mesh.materials.append(mat)
    return made


def smile(mat: bpy.types.Material, at: Vec, width: float, thickness: float) -> None:
    curve = bpy.data.curves.new("smile", "CURVE")
    curve.dimensions, curve.bevel_depth, curve.use_fill_caps = "3D", thickness, True
    line = curve.splines.new("POLY")
    angles = [math.radians(210 + 120 * i / 24) for i in range(25)]
    line.points.add(len(angles) - 1)
    for point, angle in zip(line.points, angles, strict=True):
        point.co = (width / 2 * math.cos(angle), 0, width / 2 * math.sin(angle), 1)
    made = bpy.data.objects.new("smile", curve)
    made.location = at
    curve.materials.append(mat)
    bpy.context.collection.objects.link(made)


def robot() -> None:
    """A toy robot that waves, 2.6 high."""
    shell, orange = material("f4f1e8"), material("ff7a1a")
    teal, dark = material("1fa7a0"), material("2b3038", 0.25)
    face, glow = material("10151c", 0.12), material("7ff3ff", 0.3, glow=4)
    steel = material("8d97a3", 0.3, metal=0.6)

    box(shell, (0, 0, 0.98), (1.0, 0.8, 0.95), 0.3)
    box(teal, (0, 0, 0.62), (0.9, 0.72, 0.34), 0.15)
    rod(orange, (0, -0.36, 1.06), (0, -0.43, 1.06), 0.17)
    rod(shell, (0, -0.42, 1.06), (0, -0.46, 1.06), 0.11)
    rod(dark, (0, 0, 1.38), (0, 0, 1.56), 0.26)

    box(shell, (0, 0, 1.93), (1.3, 0.92, 0.88), 0.36)
    box(face, (0, -0.41, 1.92), (1.0, 0.16, 0.58), 0.075)
    for side in (-1, 1):
        ball(glow, (0.24 * side, -0.485, 1.97), (0.17, 0.04, 0.23))
        rod(orange, (0.6 * side, 0, 1.93), (0.76 * side, 0, 1.93), 0.24, 0.05)
        rod(steel, (0.24 * side, 0, 0.16), (0.24 * side, 0, 0.6), 0.13)
        box(orange, (0.26 * side, -0.06, 0.15), (0.42, 0.6, 0.3), 0.13)
        ball(teal, (0.55 * side, 0, 1.22), (0.36, 0.36, 0.36))
    smile(glow, (0, -0.49, 1.86), 0.22, 0.018)

    rod(steel, (0, 0, 2.3), (0, 0, 2.55), 0.05)
    ball(orange, (0, 0, 2.62), (0.24, 0.24, 0.24))

    rod(steel, (0.58, 0, 1.2), (0.74, -0.04, 0.88), 0.12, 0.05)
    ball(orange, (0.78, -0.06, 0.78), (0.36, 0.36, 0.36))
    rod(steel, (-0.58, 0, 1.22), (-0.95, -0.04, 1.36), 0.12, 0.05)
    ball(orange, (-1.03, -0.06, 1.43), (0.36, 0.36, 0.36))


def rocket() -> None:
    """A toy rocket on three fins, 2.75 high."""
    white, red = material("f7f3ea", 0.25), material("e2352b", 0.25)
    navy, brass = material("20365f", 0.25), material("e0a53a", 0.25, metal=0.9)
    glass = material("5cc3e8", 0.08)

    def radius(z: float) -> float:
        """A cigar, widest at z = 1.1."""
        return 0.55 * math.sqrt(max(0.0, 1 - (abs(z - 1.1) / (1.6 if z > 1.1 else 1.35)) ** 2.1))

    def band(mat: bpy.types.Material, bottom: float, top: float, swell: float) -> None:
        heights = [bottom + (top - bottom) * i / 48 for i in range(49)]
        turned(mat, [(0, bottom), *((radius(z) * swell, z) for z in heights), (0, top)])

    band(white, 0.3, 1.95, 1.0)
    band(red, 1.9, 2.7, 1.02)
    band(navy, 0.55, 0.67, 1.03)
    band(red, 0.3, 0.42, 1.06)
    turned(brass, [(0, 0.32), (0.25, 0.32), (0.33, 0.12), (0.28, 0.12), (0.2, 0.28), (0, 0.28)])
    ball(brass, (0, 0, 2.72), (0.12, 0.12, 0.12))

    for height, size in ((1.42, 0.21), (0.95, 0.14)):
        front = -radius(height)
        ring(brass, (0, front - 0.005, height), size, 0.045, (math.pi / 2, 0, 0))
        ball(glass, (0, front + 0.01, height), (size * 2, 0.12, size * 2))

    outline = [
        (0.3, 0.95),
        (0.62, 0.72),
        (0.86, 0.36),
        (0.92, 0),
        (0.74, 0),
        (0.6, 0.2),
        (0.3, 0.4),
    ]
    for degrees in (0, 120, 240):
        mesh = bpy.data.meshes.new("fin")
        corners = [(x, y, z) for y in (-0.06, 0.06) for x, z in outline]
        count = len(outline)
        rim = [(i, (i + 1) % count, (i + 1) % count + count, i + count) for i in range(count)]
        mesh.from_pydata(
            corners, [], [tuple(range(count))[::-1], tuple(range(count, 2 * count)), *rim]
        )
        made = bpy.data.objects.new("fin", mesh)
        bpy.context.collection.objects.link(made)
        made.rotation_euler.z = math.radians(degrees + 30)
        bpy.ops.object.select_all(action="DESELECT")
        made.select_set(True)
        bpy.context.view_layer.objects.active = made
        finish(red, 0.05)


def truck() -> None:
    """A toy pick-up, 2.9 long, with nothing alike on its two sides: ladder, tank, spare wheel."""
    red, cream = material("e8452f"), material("fbf3df")
    tyre, steel = material("23262b", 0.7), material("aab3bd", 0.25, metal=0.8)
    glass, wood = material("6fc6e6", 0.1), material("c98a4b", 0.6)
    lamp, yellow = material("fff2b0", 0.2, glow=0.6), material("ffc21f")
    blue, rear = material("2f6fd0"), material("b3122a", 0.2)

    box(red, (0, -1.0, 0.68), (1.16, 0.86, 0.6), 0.18)
    box(red, (0, -0.28, 0.95), (1.2, 0.86, 1.1), 0.16)
    box(cream, (0, -0.24, 1.5), (1.16, 0.84, 0.14), 0.06)
    box(glass, (0, -0.7, 1.2), (0.94, 0.06, 0.36), 0.028)
    box(glass, (0, 0.145, 1.2), (0.8, 0.04, 0.34), 0.019)
    box(tyre, (0, 0.05, 0.4), (1.0, 2.5, 0.2), 0.06)

    box(wood, (0, 0.85, 0.62), (1.16, 1.34, 0.14), 0.03)
    for side in (-1, 1):
        box(cream, (0.57 * side, 0.85, 0.82), (0.1, 1.34, 0.46), 0.04)
        box(glass, (0.6 * side, -0.28, 1.2), (0.04, 0.56, 0.36), 0.019)
        for y in (-0.88, 0.85):
            rod(tyre, (0.4 * side, y, 0.34), (0.68 * side, y, 0.34), 0.34, 0.09)
            rod(steel, (0.6 * side, y, 0.34), (0.7 * side, y, 0.34), 0.17, 0.03)
        ball(lamp, (0.38 * side, -1.42, 0.76), (0.26, 0.12, 0.26))
        rod(rear, (0.46 * side, 1.5, 0.68), (0.46 * side, 1.56, 0.68), 0.08)
    box(cream, (0, 1.48, 0.82), (1.24, 0.1, 0.46), 0.04)
    box(steel, (0, -1.43, 0.46), (1.24, 0.14, 0.16), 0.06)
    box(steel, (0, -1.42, 0.74), (0.34, 0.06, 0.2), 0.025)

    rod(tyre, (0, 1.5, 0.82), (0, 1.66, 0.82), 0.27, 0.07)
    rod(yellow, (0, 1.6, 0.82), (0, 1.68, 0.82), 0.13, 0.03)
    rod(blue, (0.25, 0.4, 0.98), (0.25, 1.25, 0.98), 0.27, 0.1)
    for y in (0.6, 1.05):
        ring(steel, (0.25, y, 0.98), 0.27, 0.025, (math.pi / 2, 0, 0))
    box(yellow, (-0.27, 0.8, 0.92), (0.46, 0.5, 0.5), 0.06)
    rod(yellow, (0.36, -0.2, 1.55), (0.36, -0.2, 1.72), 0.11, 0.04)
    for z in (0.76, 0.94):
        box(wood, (-0.66, 0.85, z), (0.05, 1.3, 0.05), 0.015)
    for step in range(6):
        box(wood, (-0.66, 0.35 + step * 0.2, 0.85), (0.04, 0.05, 0.2), 0.012)
    rod(cream, (0.57, -0.25, 0.82), (0.625, -0.25, 0.82), 0.2)
    ball(yellow, (0.62, -0.25, 0.82), (0.05, 0.22, 0.22))


def area_light(at: Vec, target: Vec, size: float, watts: float, colour: str = "ffffff") -> None:
    data = bpy.data.lights.new("area", "AREA")
    data.size, data.energy, data.color = size, watts, srgb(colour)[:3]
    light = bpy.data.objects.new("area", data)
    light.location = at
    light.rotation_euler = (Vector(target) - Vector(at)).to_track_quat("-Z", "Y").to_euler()
    bpy.context.collection.objects.link(light)


def camera(at: Vec, target: Vec, lens: float = 85.0, ortho: float | None = None) -> None:
    """Looks from a point at another; lens in millimetres, or ortho: the width seen, in metres."""
    data = bpy.data.cameras.new("camera")
    data.lens = lens
    if ortho is not None:
        data.type, data.ortho_scale = "ORTHO", ortho
    made = bpy.data.objects.new("camera", data)
    made.location = at
    made.rotation_euler = (Vector(target) - Vector(at)).to_track_quat("-Z", "Y").to_euler()
    bpy.context.collection.objects.link(made)
    bpy.context.scene.camera = made


def empty_scene(sky: float) -> None:
    """An empty scene for Cycles on the CPU, under an even sky of the given strength."""
    bpy.data.batch_remove([*bpy.data.objects, *bpy.data.worlds])
    scene = bpy.context.scene
    scene.world = bpy.data.worlds.new("sky")
    if scene.world.node_tree is None:
        scene.world.use_nodes = True
    background = scene.world.node_tree.nodes["Background"]
    background.inputs["Color"].default_value = (1, 1, 1, 1)
    background.inputs["Strength"].default_value = sky
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.view_settings.view_transform = "Khronos PBR Neutral"


def render(name: str, size: int, samples: int, clean: bool = True) -> None:
    """Writes one image; clean ones are denoised and have alpha, the others keep their grain."""
    scene = bpy.context.scene
    scene.cycles.samples, scene.cycles.use_denoising = samples, clean
    scene.render.film_transparent = clean
    scene.render.resolution_x = scene.render.resolution_y = size
    settings = scene.render.image_settings
    settings.file_format = "PNG" if clean else "JPEG"
    settings.color_mode = "RGBA" if clean else "RGB"
    settings.compression, settings.quality = 100, 88
    scene.render.filepath = str(HERE / name)
    bpy.ops.render.render(write_still=True)


def render_robot() -> None:
    empty_scene(sky=0.55)
    robot()
    area_light((-2.5, -4, 4), (0, 0, 1.3), 3, 270, "fff3e2")
    area_light((3.5, -2.5, 2), (0, 0, 1.2), 3, 95, "dcebff")
    area_light((0.5, 3, 4), (0, 0, 1.5), 2, 260)
    camera((0, -9.5, 1.45), (0, 0, 1.36), lens=108)
    render("robot.png", 1024, 96)


def render_rocket() -> None:
    empty_scene(sky=0.4)
    rocket()
    sweep = [(-5.0, 0.0), (1.5, 0.0), (2.3, 0.1), (3.0, 0.45), (3.5, 1.0), (3.7, 1.8), (3.8, 7.0)]
    mesh = bpy.data.meshes.new("backdrop")
    points = [(x, y, z) for y, z in sweep for x in (-9, 9)]
    faces = [(2 * i, 2 * i + 1, 2 * i + 3, 2 * i + 2) for i in range(len(sweep) - 1)]
    mesh.from_pydata(points, [], faces)
    backdrop = bpy.data.objects.new("backdrop", mesh)
    bpy.context.collection.objects.link(backdrop)
    backdrop.modifiers.new("Round", "SUBSURF").render_levels = 4
    mesh.polygons.foreach_set("use_smooth", [True] * len(mesh.polygons))
    mesh.materials.append(material("79a7b3", 0.9))
    area_light((-3.2, -3.2, 4.2), (0, 0, 1.2), 2.2, 420, "fff0dc")
    area_light((3.5, -2.5, 2.2), (0, 0, 1.2), 2.5, 90, "d6e6ff")
    camera((0.35, -10.5, 2.0), (0, 0, 1.36), lens=100)
    lens = bpy.context.scene.camera.data
    lens.dof.use_dof, lens.dof.focus_distance, lens.dof.aperture_fstop = True, 10.2, 2.0
    render("rocket-photo.jpg", 1024, 24, clean=False)


def render_truck() -> None:
    empty_scene(sky=0.75)
    truck()
    for x, y in ((-4, -4), (4, -4), (4, 4), (-4, 4)):
        area_light((x, y, 4.5), (0, 0, 0.8), 3, 190)
    views: dict[str, Vec] = {
        "front": (0, -9, 0.86),
        "right": (9, 0, 0.86),
        "back": (0, 9, 0.86),
        "left": (-9, 0, 0.86),
    }
    for view, at in views.items():
        camera((at[0], at[1] + 0.08, at[2]), (0, 0.08, 0.86), ortho=3.45)
        render(f"truck-{view}.png", 768, 64)


if __name__ == "__main__":
    drawings = {"robot": render_robot, "rocket": render_rocket, "truck": render_truck}
    for chosen in sys.argv[1:] or drawings:
        drawings[chosen]()
