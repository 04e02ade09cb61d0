# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a model in the scene: the section "In the Scene" of the panel "Image to 3D".

A draw function reads properties and the pump's board, and nothing that is slower.
"""

from typing import Any


def draw_section(layout: Any, settings: Any) -> None:
    """The section, closed by default."""
    header, body = layout.panel("TRELLIS_scene", default_closed=True)
    header.label(text="In the Scene")
    if body:
        body.use_property_split, body.use_property_decorate = True, False
        body.prop(settings, "height")
