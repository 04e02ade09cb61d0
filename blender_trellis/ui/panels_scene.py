# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a model in the scene: the section "In the Scene" of the panel "Image to 3D".

A draw function reads properties and the pump's board, and nothing that is slower.
"""

from typing import Any

from ..endpoints.schema import schemas


def draw_section(layout: Any, settings: Any) -> None:
    """The section, closed by default; not there for an endpoint whose model becomes the mesh of an object."""
    if schemas()[settings.endpoint]["mesh"]:
        return
    header, body = layout.panel("TRELLIS_scene", default_closed=True)
    header.label(text="In the Scene")
    if not body:
        return
    column = body.column()
    column.use_property_split, column.use_property_decorate = True, False
    column.operator("trellis.place", text="Place…", icon="EYEDROPPER")
    column.prop(settings, "height")
    column.prop(settings, "lods")
    for level in range(1, settings.lods + 1):
        column.prop(settings, f"lod_{level}")
    column.prop(settings, "asset")
    if settings.asset:
        column.prop(settings, "asset_tags")
