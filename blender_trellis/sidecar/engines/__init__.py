# SPDX-License-Identifier: GPL-3.0-or-later
"""The engines, by the endpoint that they carry out. To add one, write a class with the methods of `stages.Engine`."""

from __future__ import annotations

from .stages import Engine


def engine(endpoint: str) -> Engine:
    """The engine behind `endpoint`; its imports are paid on first use."""
    if endpoint == "local/draft":
        from .draft import DraftEngine

        return DraftEngine()
    raise KeyError(endpoint)


ENDPOINTS = ("local/draft",)
