# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine TRELLIS.2: Microsoft's networks, written anew in plain torch, from pictures to a textured mesh."""
