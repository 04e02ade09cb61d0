# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures as arrays, for the add-on and the sidecar alike: numpy and Pillow, and nothing of this package.

grids.py    resizing, labelling, distances, sampling      cutout.py   the subject of an opaque picture
gltf.py     a GLB's triangles                             view.py     a small picture of them
"""
