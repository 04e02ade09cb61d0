# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's preferences: keys, base URLs, the results folder; and the `Config` that follows from them."""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
from bpy.props import BoolProperty, FloatProperty, IntProperty, StringProperty

from .. import __package__ as root
from ..config import JOBS_AT_ONCE, in_environment
from ..errors import AccessError, StorageError
from ..home import default_home
from .callbacks import preferences_changed

if TYPE_CHECKING:
    from ..config import Config

# The extension's own name: `bl_ext.user_default.blender_trellis`, or `blender_trellis`
ROOT = str(root)

SERVICES = {"fal": "fal", "runware": "Runware"}  # those with a key, and what people call them
KEYS = {"fal_key": "FAL_KEY", "runware_key": "RUNWARE_API_KEY"}
ADDRESSES = {
    "fal_queue_url": "TRELLIS_FAL_QUEUE_URL",
    "fal_rest_url": "TRELLIS_FAL_REST_URL",
    "fal_api_url": "TRELLIS_FAL_API_URL",
    "runware_url": "TRELLIS_RUNWARE_URL",
    "sidecar_url": "TRELLIS_SIDECAR_URL",
    "sidecar_token": "TRELLIS_SIDECAR_TOKEN",
    "sidecar_allow_http": "TRELLIS_SIDECAR_ALLOW_HTTP",
}
LIMITS = {"jobs_at_once": "TRELLIS_JOBS_AT_ONCE"}

ASK_ABOVE = 1.0  # US dollars


def _secret(name: str, description: str):  # type: ignore[no-untyped-def]  # a deferred property
    return StringProperty(
        name=name,
        description=description,
        subtype="PASSWORD",
        options={"HIDDEN"},
        update=preferences_changed,
    )


def _address(name: str, description: str):  # type: ignore[no-untyped-def]
    return StringProperty(name=name, description=description, update=preferences_changed)


class TRELLIS_AddonPreferences(bpy.types.AddonPreferences):
    """Keys stay in Blender's preferences or the keychain: never in a .blend file, a log or a result."""

    bl_idname = ROOT

    fal_key: _secret("fal Key", "Key of your fal account, from fal.ai/dashboard/keys")
    runware_key: _secret("Runware Key", "Key of your Runware account, from my.runware.ai/keys")
    fal_queue_url: _address("fal Queue", "Base URL, for a server of your own. Empty: fal's own")
    fal_rest_url: _address("fal Storage", "Base URL, for a server of your own. Empty: fal's own")
    fal_api_url: _address("fal Account", "Base URL, for a server of your own. Empty: fal's own")
    runware_url: _address("Runware", "Base URL, for a server of your own. Empty: Runware's own")
    sidecar_url: _address(
        "Local Process",
        "Base URL, for a server of your own. Empty: started on this computer when needed",
    )
    sidecar_token: _secret("Local Process Token", "What the server at that address asks for")
    sidecar_allow_http: BoolProperty(
        name="Allow HTTP",
        description="Ask the server at that address without encryption. "
        "Only where nobody else can listen on the way there, since token and pictures can be read",
        default=False,
        update=preferences_changed,
    )
    ask_above: FloatProperty(
        name="Ask Above (USD)",
        description="Generate asks before it makes a model that is estimated to cost more than this, in US dollars. "
        "0 asks whenever something is charged; scripts are never asked",
        default=ASK_ABOVE,
        min=0,
        soft_max=10,
        precision=2,
        step=10,
    )
    jobs_at_once: IntProperty(
        name="Jobs at Once",
        description="How many jobs may be at one remote service at the same time; further ones wait here for their turn. "
        "This computer makes one model after the other",
        default=JOBS_AT_ONCE,
        min=1,
        soft_max=10,
        max=100,
        update=preferences_changed,
    )
    results: StringProperty(
        name="Results Folder",
        description="Folder for the models. Empty: one of this user's that all Blenders share. "
        "Models stay there when the extension is uninstalled",
        subtype="DIR_PATH",
        update=preferences_changed,
    )

    def draw(self, context: bpy.types.Context) -> None:
        from . import panels_install

        layout = self.layout
        layout.use_property_split = True
        column = layout.column()
        for service in SERVICES:
            _draw_key(column, context, self, service)
        column.separator()
        column.prop(self, "ask_above")
        for name, variable in LIMITS.items():
            _draw(column, self, name, variable)
        column.prop(self, "results")
        if not self.results:
            notice = column.box().column(align=True)
            notice.label(
                text="Models stay here, also when the extension is uninstalled:", icon="INFO"
            )
            notice.label(text=str(default_home() / "results"), icon="BLANK1", translate=False)
        panels_install.draw(layout, context)
        header, body = layout.panel("TRELLIS_addresses", default_closed=True)
        header.label(text="Servers of Your Own")
        if body:
            body.use_property_split = True
            for name, variable in ADDRESSES.items():
                if name != "sidecar_allow_http" or _asks_in_plain_http(self):
                    _draw(body, self, name, variable)


def _draw_key(layout: Any, context: Any, preferences: Any, service: str) -> None:
    """A key, a button that tries it, those that move it, and beneath it which one is used and what the service said."""
    from . import pump
    from .text import said, tr, wrapped

    name = f"{service}_key"
    typed = getattr(preferences, name)
    given = in_environment(service)
    held = None if given else pump.get().keys.held(service)
    row = layout.row()
    setting = row.row()
    setting.active = not (given or (held and held.key))
    setting.prop(preferences, name)
    row.operator("trellis.check_key", text="Check").service = service
    used = tr("{variable} of the environment is used").format(variable=KEYS[name]) if given else ""
    if held and held.name and typed:
        row.operator("trellis.keep_key", text="Keep in Keychain").service = service
        used = tr("The key in the preferences is used")
    if held and held.key:
        used = tr("The key in the keychain is used")
    if used:
        beneath = layout.row()
        beneath.label(text=used, icon="INFO", translate=False)
        if held and held.key:
            beneath.operator("trellis.remove_key", text="Remove from Keychain").service = service
    words = pump.get().board.keys.get(service) or (held.trouble if held else "")
    for line in wrapped(context, said(words)):
        layout.label(text=line)


def _asks_in_plain_http(preferences: Any) -> bool:
    given: str = os.environ.get(ADDRESSES["sidecar_url"]) or preferences.sidecar_url
    return given.startswith("http://")


def _draw(layout: Any, preferences: Any, name: str, variable: str) -> Any:
    """One setting, and its row; the environment wins, so then it says that it does."""
    from .text import tr

    overridden = bool(os.environ.get(variable))
    row = layout.row()
    setting = row.row()
    setting.active = not overridden
    setting.prop(preferences, name)
    if overridden:
        words = tr("Set by the environment variable {name}").format(name=variable)
        layout.label(text=words, icon="INFO", translate=False)
    return row


def typed(service: str) -> str:
    """The key of a service that stands in the preferences."""
    addon = bpy.context.preferences.addons.get(ROOT)
    return str(getattr(addon and addon.preferences, f"{service}_key", ""))


def drop(service: str, key: str) -> None:
    """Take a key that is kept elsewhere now out of the preferences and of their file, unless another one was typed meanwhile.

    Raises:
        AccessError: the file could not be written.
    """
    if typed(service) != key:
        return
    addon = bpy.context.preferences.addons[ROOT]
    setattr(addon.preferences, f"{service}_key", "")
    # With factory settings the file holds other preferences than these, and is not to be replaced by them
    if bpy.app.use_userpref_skip_save_on_exit:
        return
    try:
        bpy.ops.wm.save_userpref()
    except RuntimeError:
        raise AccessError(
            "The key is in the keychain now, but Blender could not save its preferences, whose file may still hold it. "
            "Save them."
        ) from None


def ask_above() -> float:
    """Above which sum Generate asks first, in US dollars."""
    addon = bpy.context.preferences.addons.get(ROOT)
    return float(getattr(addon and addon.preferences, "ask_above", ASK_ABOVE))


@functools.cache  # Blender looks at the disk each time
def _home() -> Path | None:
    """The extension's own folder, which Blender deletes with it; None where it runs as a plain add-on."""
    if not ROOT.startswith("bl_ext."):
        return None
    home = bpy.utils.extension_path_user(ROOT, path="", create=True)
    if not home:
        raise StorageError(
            "Blender cannot make the extension's folder. See whether its profile can be written."
        )
    return Path(home)


def config() -> "Config":
    """What the runner needs to know, from environment and preferences.

    Raises:
        InputError: a base URL is not one.
    """
    from ..config import Config

    addon = bpy.context.preferences.addons.get(ROOT)
    preferences = addon.preferences if addon else None
    given = {name: getattr(preferences, name, "") for name in (*KEYS, *ADDRESSES, *LIMITS)}
    results = getattr(preferences, "results", "")
    return Config.load(
        home=_home(),
        results=Path(bpy.path.abspath(results)) if results else None,
        offline=not bpy.app.online_access,
        **given,
    )
