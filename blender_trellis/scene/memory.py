# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory for a model that is about to be appended, made ready before the main thread asks for it.

The system hands fresh memory out page by page, as each is first written to, and that is three quarters of the time which the
append of a large model takes. Blender's allocator on Windows, and on Linux in newer versions (5.2 for one), is tbbmalloc, which
keeps large blocks that are freed for whoever wants one of that size next. Where another allocator gives them back to the
system, the append takes what it always took.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import bpy
import numpy as np
from bpy.types import Mesh

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGE = 2**20  # bytes; smaller blocks come out of what Blender has at hand
_SMALL = (2**14,) * 1024  # with 64, five appends of nine found nothing ready
_BYTES = {
    "BOOLEAN": 1,
    "INT8": 1,
    "INT": 4,
    "FLOAT": 4,
    "INT16_2D": 4,
    "BYTE_COLOR": 4,
    "FLOAT2": 8,
    "INT32_2D": 8,
    "FLOAT_VECTOR": 12,
    "FLOAT_COLOR": 16,
    "QUATERNION": 16,
}


def blocks() -> list[int]:
    """The sizes, in bytes, of the large blocks that the meshes and packed textures of the open file consist of."""
    sizes = [size for mesh in bpy.data.meshes for size in _arrays(mesh)]
    sizes += [image.packed_file.size for image in bpy.data.images if image.packed_file]
    return [size for size in sizes if size >= LARGE]


def _arrays(mesh: Mesh) -> list[int]:
    starts_of_faces = 4 * (len(mesh.polygons) + 1)
    values = [_BYTES.get(each.data_type, 0) * len(each.data) for each in mesh.attributes]
    return [starts_of_faces, *values]


def make_ready(sizes: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Blocks of these sizes that were written to, to be let go of just before they are wanted. For any thread but the main one.

    tbbmalloc does not keep the first block of a size that it sees freed, hence two rounds; and it keeps the next ones for twice
    as many allocations of 8 KiB and more as lay between the rounds. Reading a .blend makes hundreds, hence the small blocks.
    """
    held: list[NDArray[np.uint8]] = []
    for _ in range(2):
        while held:  # one by one, so that others get at Python in between
            held.pop()
        held += [np.full(size, 0, np.uint8) for size in (*sizes, *_SMALL)]
    return held
