# SPDX-License-Identifier: GPL-3.0-or-later
"""What people touch in Blender. Nothing here waits, and enabling it loads no third-party package.

preferences.py      keys, base URLs, results folder, and the Config that follows
properties.py       `scene.trellis`: images, endpoint, parameters made from the schema, seed, height
callbacks.py        what Blender calls when one of those changes
orders.py           from those settings to an order, or what is missing for one
pictures.py         Blender images as files to send      previews.py   pictures to show
captures.py         those of a viewport                clipboard.py  what was copied
sights.py           pictures as the model will see them
pump.py             the timer by which the main thread takes what has happened; it holds all that is on the way:
  session.py          the runner and the journal             clerk.py     the thread for what touches a disk
  work.py             jobs, from a click to the scene        history.py   results, a page at a time
  batches.py          folders of pictures                    jobs.py      the board, what the panels show of all that
  keys.py             keys, in the keychain and at services
background.py       the same where no timer runs: it waits
wishes.py           what is wanted with a result           arrivals.py  results on their way into a scene
thumbnails.py       pictures of models for the history     notices.py   what has just happened, in the status bar
installs.py         the local engine, as panel and preferences show it, and the threads that look and install
recipes.py          how an object was made, in words
money.py            estimates, waits and what was spent, in words
presets.py          presets of parameters: those that come along, and the user's own
places.py           what lies under the mouse        placeholders.py   empties where models will stand
screen.py           Blender's windows: whether there are any, whether somebody is busy in them, redraws
translations/       all of that in other languages
operators*.py       what can be done      panels*.py, menus.py  what is seen      text.py   sentences in a sidebar
"""

from __future__ import annotations

from typing import Any


def _command(arguments: list[str]) -> int:
    from .. import cli

    return cli.main(arguments)


_commands: list[Any] = []


def _classes() -> list[Any]:
    """Everything to register, in order."""
    from . import (
        menus,
        operators,
        operators_batch,
        operators_capture,
        operators_drop,
        operators_images,
        operators_install,
        operators_jobs,
        operators_keys,
        operators_recipe,
        operators_scene,
        operators_services,
        panels,
        panels_images,
        panels_jobs,
        panels_recipe,
        preferences,
        presets,
        properties,
    )

    return [
        preferences.TRELLIS_AddonPreferences,
        *properties.CLASSES,
        *operators_images.CLASSES,
        *operators_capture.CLASSES,
        *operators_drop.CLASSES,
        *operators.CLASSES,
        *operators_batch.CLASSES,
        *operators_jobs.CLASSES,
        *operators_scene.CLASSES,
        *operators_recipe.CLASSES,
        *operators_services.CLASSES,
        *operators_keys.CLASSES,
        *operators_install.CLASSES,
        *panels_images.CLASSES,
        *presets.CLASSES,
        *panels.CLASSES,
        *panels_jobs.CLASSES,
        *panels_recipe.CLASSES,
        *menus.CLASSES,
    ]


def register() -> None:
    """Everything that Blender is to know of."""
    import bpy

    from .. import leftovers
    from . import menus, notices, placeholders, properties, pump, translations

    leftovers.look_at_exit()
    translations.follow()
    for cls in _classes():
        bpy.utils.register_class(cls)
    properties.register()
    placeholders.register(pump.wake)
    notices.register()
    menus.register()
    pump.register()
    _commands.append(bpy.utils.register_cli_command("trellis", _command))


def unregister() -> None:
    """The same backwards; nothing stays behind but a look, when Blender ends, whether the extension is uninstalled by then."""
    import bpy

    from . import installs, menus, notices, placeholders, properties, pump, translations

    while _commands:
        bpy.utils.unregister_cli_command(_commands.pop())
    installs.unregister()
    pump.unregister()
    menus.unregister()
    notices.unregister()
    placeholders.unregister()
    properties.unregister()
    for cls in reversed(_classes()):
        bpy.utils.unregister_class(cls)
    translations.unregister()
