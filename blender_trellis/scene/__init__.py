# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's data: a GLB becomes a checked model in the user's scene. Nothing here asks a service or draws a panel.

The one road, whoever calls: a second Blender imports and repairs the GLB and writes a .blend; the first one appends it.

    recipe.py       how a model was made, stamped on it
        Recipe(endpoint, parameters, seed=None, job_id=None, request_id=None, cost=None, version="",
               created="", images=())                  .to_json() -> str, Recipe.from_json(text)
        stamp(obj, recipe), read(obj) -> Recipe | None
    worker.py       the second Blender, from the first one's side (no bpy at import)
        ImportWorker()                                 starts the process; early, while a service still computes
            .request(glb, recipe, *, name, height=None, metres_per_unit=1.0, blend=None, preview=None, lods=(), asset=None,
                     library=None)
            .poll() -> None | Prepared                 never waits
            .wait() -> Prepared                        waits
            .close()                                   kills it and removes its files; also a context manager
    append.py       the main thread's part
        append(blend, *, scene, location=None, view_layer=None, select=True) -> list[Object]
        beside(objects) -> Vector                      where the next of several models stands
    assets.py       library_of(blend): the asset library that a file lies in
    retexture.py    an object's mesh to a service and back
        export(obj, glb) -> Sent                       world space, modifiers applied
        put_back(objects, target, sent)                the appended model becomes the object's mesh
    importer.py     the whole road in one call
        import_blocking(glb, recipe, *, name, height=None, scene=None, location=None, lods=(), asset=None) -> list[Object]
        write_blend(glb, recipe, out, *, name, height=None, preview=None) -> Path

What runs inside the second Blender: worker_main.py (reads one request, replies one line), prepare.py (import, place,
scale, shade), materials.py (check and repair), preview.py (a small picture), lods.py (coarser copies) and assets.py.
"""
