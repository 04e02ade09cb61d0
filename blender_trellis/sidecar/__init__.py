# SPDX-License-Identifier: GPL-3.0-or-later
"""The local process: an HTTP server that speaks fal's queue protocol and makes models with its engines.

It runs on its own (`python -m blender_trellis.sidecar`); the add-on never imports it.

    __main__.py      one per user: the lock, the address file, uvicorn
    access.py        who may call a server that others reach; door.py turns all others away
    app.py           the HTTP routes
    server.py        the queue, and the loops that bring jobs and places together; metrics.py is its figures
    store.py         the jobs on disk; lanes.py whose turn it is
    executors.py     where jobs are carried out; ray_executor.py: on the machines of a Ray cluster
    worker.py        the process in which an engine works, and its handle on the server's side
    engines/         what makes models
"""
