# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks and repairs what the importer made of the GLB's materials, and gives materials and textures telling names.

Runs in the second Blender only, where every material and image of the file is the model's.
"""

from __future__ import annotations

from typing import Any

import bpy
from bpy.types import Image, Material, Node, NodeSocket

# glTF's alphaMode, its default; and the extensions that change what light does at a surface's front
OPAQUE = "OPAQUE"
SPECULAR = {"KHR_materials_specular", "KHR_materials_pbrSpecularGlossiness"}
# By the Principled BSDF's socket: what a texture is for
ROLES = {
    "Base Color": "base colour",
    "Metallic": "metallic roughness",
    "Roughness": "metallic roughness",
    "Normal": "normal",
    "Emission Color": "emission",
}


def repair(name: str, gltf: dict[str, Any]) -> None:
    """Hold every material of the file to what `gltf`, the GLB's JSON, says about it. `name` is the model's."""
    opaque = all(m.get("alphaMode", OPAQUE) == OPAQUE for m in gltf.get("materials", []))
    plain = SPECULAR.isdisjoint(gltf.get("extensionsUsed", []))
    for material in bpy.data.materials:
        if len(bpy.data.materials) == 1:
            material.name = name
        # Blended faces of one object hide each other in any order and not at all; dithered ones are right everywhere
        material.surface_render_method = "DITHERED"
        for node in material.node_tree.nodes:
            if node.type != "BSDF_PRINCIPLED":
                continue
            if opaque:
                _reset(material, node.inputs["Alpha"], 1.0)
            if plain:
                _reset(material, node.inputs["Specular IOR Level"], 0.5)
                _reset(material, node.inputs["Specular Tint"], (1.0, 1.0, 1.0, 1.0))
    uses = _image_uses()
    for image, sockets in uses.items():
        if sockets:
            is_colour = any(socket.type == "RGBA" for socket in sockets)
            # a colour space set anew drops the pixels, so only where it is wrong
            space = "sRGB" if is_colour else "Non-Color"
            if image.colorspace_settings.name != space:
                image.colorspace_settings.name = space
        roles = [ROLES[socket.name] for socket in sockets if socket.name in ROLES]
        if roles:
            image.name = f"{name} {roles[0]}"
        if not image.packed_file:
            image.pack()


def _reset(material: Material, socket: NodeSocket, value: Any) -> None:
    for link in list(socket.links):
        material.node_tree.links.remove(link)
    socket.default_value = value


def _image_uses() -> dict[Image, list[NodeSocket]]:
    """Each image and the sockets of shaders that its colour ends in."""
    uses: dict[Image, list[NodeSocket]] = {}
    for material in bpy.data.materials:
        for node in material.node_tree.nodes:
            if node.type == "TEX_IMAGE" and node.image:
                ends = uses.setdefault(node.image, [])
                ends += _ends(node.outputs["Color"], set())
    return uses


def _ends(output: NodeSocket, seen: set[Node]) -> list[NodeSocket]:
    """The sockets of shader nodes that `output` reaches through maths, mixes, channels and normal maps."""
    found: list[NodeSocket] = []
    for link in output.links:
        node = link.to_node
        if any(socket.type == "SHADER" for socket in node.outputs):
            found.append(link.to_socket)
        elif node not in seen:
            seen.add(node)
            for socket in node.outputs:
                found += _ends(socket, seen)
    return found
