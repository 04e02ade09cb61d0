# SPDX-License-Identifier: GPL-3.0-or-later
"""What Blender calls when a property has changed or wants its choices.

Without `bpy` among its globals, on purpose: Blender 4.2 as a Python module never lets go of a callback, so with it of `bpy`,
and then crashes when Python exits.
"""

from __future__ import annotations

from typing import Any

_images: list[
    tuple[str, str, str]
] = []  # Blender keeps no reference to what an enum's callback returns


def preferences_changed(_preferences: Any, _context: Any) -> None:
    """Keys, addresses or the results folder."""
    from . import pump

    pump.reconfigure()


def search_results(manager: Any, _context: Any) -> None:
    """Every letter that is typed."""
    from . import pump

    pump.get().history.look_up(search=manager.trellis_search)


def lock_seed(settings: Any, _context: Any) -> None:
    """Who types a seed means to use it."""
    settings.seed_locked = True


def switch_endpoint(settings: Any, _context: Any) -> None:
    """What both endpoints know moves along."""
    from .properties import GROUPS, carry

    source, target = settings.last_endpoint, settings.endpoint
    settings.notice = "\n".join(carry(settings, source, target)) if source in GROUPS else ""
    settings.last_endpoint = target


def is_render(image: Any) -> bool:
    """Whether an image is the place that renders go to: scripts see no pixels of it."""
    return bool(image.type == "RENDER_RESULT")


def image_items(_operator: Any, context: Any) -> list[tuple[str, str, str]]:
    """The images of this file that have pixels of their own, and the place of renders, which does not say if one is there."""
    _images[:] = [
        (image.name, image.name, "")
        for image in context.blend_data.images
        if image.type != "COMPOSITING"
    ]
    return _images
