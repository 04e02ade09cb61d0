# SPDX-License-Identifier: GPL-3.0-or-later
"""The Draft engine: pictures to a closed, textured mesh with numpy and Pillow alone, in about a second.

In the order of the work: `silhouette` (with `background`) cuts the subject out, `structure` makes a solid of it,
`surface` a mesh, `atlas` and `texture` paint it; `engine` leads, and has `..gltf` write the file. `grids` holds what they
share.
"""

from .engine import DraftEngine

__all__ = ["DraftEngine"]
