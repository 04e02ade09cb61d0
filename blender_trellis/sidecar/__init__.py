# SPDX-License-Identifier: GPL-3.0-or-later
"""The local process: an HTTP server that speaks fal's queue protocol and makes models with its engines.

It runs on its own (`python -m blender_trellis.sidecar`); the add-on never imports it.

    __main__.py   one per user: the lock, the address file, uvicorn
    app.py        the HTTP routes and who may use them
    store.py      the jobs on disk
    worker.py     the process in which an engine works, and its handle on the server's side
    engines/      what makes models
"""
