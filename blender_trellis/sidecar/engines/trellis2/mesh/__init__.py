# SPDX-License-Identifier: GPL-3.0-or-later
"""The mesh stage: a raw surface and its colours become a GLB. On the CPU, without torch."""

from __future__ import annotations

from .surface import Field, MeshOptions, Surface

__all__ = ["Field", "MeshOptions", "Surface"]
