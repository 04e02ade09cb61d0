# SPDX-License-Identifier: GPL-3.0-or-later
"""Trellis for Blender: images become textured 3D models in the scene.

Importing this package imports neither bpy nor a third-party module, so the core also runs without Blender.
"""

__version__ = "0.1.0"


def register() -> None:
    """Called by Blender when the extension is enabled."""
    from . import ui

    ui.register()


def unregister() -> None:
    """Called by Blender when the extension is disabled."""
    from . import ui

    ui.unregister()
