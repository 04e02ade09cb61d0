# SPDX-License-Identifier: GPL-3.0-or-later
"""The package as a user meets it: installed from its zip into an empty profile, used, updated, removed."""

import functools
import http.server
import re
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import older
from release import ROOT, repository
from release.package import this_platform, version
from release.wheels import PLATFORMS

EXAMPLE = ROOT / "docs" / "images" / "robot.png"
NAME = "bl_ext.user_default.blender_trellis"
THIRD_PARTY = (
    "httpx",
    "pydantic",
    "pydantic_core",
    "PIL",
    "fastapi",
    "uvicorn",
    "anyio",
    "keyring",
)
SETTINGS = f"NAME, IMAGE, THIRD_PARTY = {NAME!r}, {str(EXAMPLE)!r}, {THIRD_PARTY!r}\n"

STATE = """
import bpy
def state():
    lists = [getattr(bpy.app.handlers, name) for name in dir(bpy.app.handlers) if name[0] != "_"]
    handlers = [handler for found in lists if type(found) is list for handler in found]
    return {
        "types": sorted(name for name in dir(bpy.types) if "trellis" in name.lower()),
        "properties": sorted(
            f"{owner.__name__}.{name}"
            for owner in (bpy.types.Scene, bpy.types.Object, bpy.types.WindowManager)
            for name in dir(owner)
            if "trellis" in name.lower()
        ),
        "handlers": sorted({handler.__module__ for handler in handlers}),
        "enabled": NAME in bpy.context.preferences.addons,
        "imported": [name for name in THIRD_PARTY if name in sys.modules],
    }
def install(path):
    bpy.ops.extensions.package_install_files(
        filepath=path, repo="user_default", enable_on_install=True
    )
"""

# Blender as a module does not enable what the profile says by itself, and 4.2's crashes when it reads that again
ENABLE = """
import addon_utils
addon_utils.enable(NAME, default_set=True)
"""

GENERATE = """
from bl_ext.user_default.blender_trellis import __version__, api
from bl_ext.user_default.blender_trellis.services import sidecar
try:
    result = api.generate([IMAGE], endpoint="local/draft", seed=7, texture_size=512)
    objects = api.import_result(result)
finally:
    sidecar.stop(api.config().shared)
"""


def files(folder: Path) -> set[str]:
    """All files in a folder, but for the lists and caches that Blender keeps, and Python's byte code."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not {".blender_ext", ".cache", "__pycache__"} & {*path.parts}
    }


def test_the_zip_holds_what_its_manifest_names_and_no_litter(package):
    with zipfile.ZipFile(package) as archive:
        names = archive.namelist()
        manifest = tomllib.loads(archive.read("blender_manifest.toml").decode())
        notices = archive.read("THIRD_PARTY.md").decode()
    assert {"__init__.py", "LICENSE", "README.md", "endpoints/schema.json"} <= set(names)
    wheels = [name.removeprefix("./") for name in manifest["wheels"]]
    assert sorted(wheels) == sorted(name for name in names if name.startswith("wheels/"))
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    assert not [name for name in wheels if name.startswith("wheels/numpy-")]
    assert "## pydantic_core" in notices and "Permission is hereby granted" in notices


def test_the_guard_of_these_tests_bites(bare_python, blender):
    source = ROOT / "blender_trellis" / "__init__.py"
    said = blender(
        "import socket, subprocess\n"
        f"code = {f'open({str(source)!r})'!r}\n"
        "child = subprocess.run([sys.executable, '-c', code], capture_output=True).returncode\n"
        "try: socket.create_connection(('192.0.2.1', 80), timeout=1)\n"
        "except OSError as error: report([child, str(error)])\n"
    )
    assert said == [1, "not in a test: socket.getaddrinfo 192.0.2.1"]
    log = bare_python.parents[1] / "forbidden.log"
    forbidden = [f"open {source}", "socket.getaddrinfo 192.0.2.1"]
    assert log.read_text().splitlines() == [f"Error: not in a test: {each}" for each in forbidden]
    log.unlink()


def test_enabling_registers_the_operators_and_imports_no_third_party_package(package, blender):
    before, installed = blender(
        SETTINGS + STATE + f"before = state(); install({str(package)!r}); report([before, state()])"
    )
    assert not before["enabled"] and not before["types"]
    assert installed["enabled"]
    assert "TRELLIS_OT_generate" in installed["types"]
    assert installed["imported"] == before["imported"]


def test_the_installed_copy_makes_models_and_uninstalling_leaves_nothing_but_them(
    package, blender, tmp_path
):
    profile, user = tmp_path / "profile", tmp_path / "user"
    there = blender(SETTINGS + STATE + f"install({str(package)!r}); report(state())")
    assert NAME + ".ui.placeholders" in there["handlers"], there["handlers"]
    made = blender(SETTINGS + STATE + ENABLE + GENERATE + UNINSTALL)
    assert made["glb"].startswith("glTF") and made["seed"] == 7
    assert len(made["vertices"]) == 1 and made["vertices"][0] > 1000
    assert made["in_scene"]
    assert Path(made["pydantic"]).is_relative_to(profile)

    after = made["after"]
    assert not [name for name in after["handlers"] if "trellis" in name], after["handlers"]
    assert after["types"] == after["properties"] == []
    assert not after["enabled"]
    wheels = "extensions/.local/"  # Blender 4.2.0 leaves any extension's there; later ones do not
    left = {name for name in files(profile) if made["blender"] > [4, 2, 0] or wheels not in name}
    assert not left
    model = Path(made["file"])
    assert model.parent == user / "blender_trellis" / "results" and model.stat().st_size > 10_000
    assert [path.name for path in (user / "blender_trellis").iterdir()] == ["results"]
    assert {name.rpartition("/")[0] for name in files(user)} == {"blender_trellis/results"}
    assert not files(tmp_path / "temporary")


UNINSTALL = """
import pydantic
said = {
    "blender": list(bpy.app.version),
    "file": str(result.files[0]),
    "glb": pathlib.Path(result.files[0]).read_bytes()[:4].decode(),
    "seed": result.seed,
    "vertices": [len(made.data.vertices) for made in objects if made.type == "MESH"],
    "in_scene": all(made.name in bpy.context.scene.objects for made in objects),
    "pydantic": pydantic.__file__,
}
repos = [repo.module for repo in bpy.context.preferences.extensions.repos]
bpy.ops.extensions.package_uninstall(
    repo_index=repos.index("user_default"), pkg_id="blender_trellis"
)
report({**said, "after": state()})
"""


def test_an_update_keeps_journal_results_and_preferences(package, previous, blender):
    before = blender(
        SETTINGS + STATE + f"install({str(previous)!r})" + GENERATE + "def preferences():\n"
        "    return bpy.context.preferences.addons[NAME].preferences\n"
        "preferences().ask_above, preferences().jobs_at_once = 7, 2\n"
        "preferences().fal_key = 'mine'\n"
        f"install({str(package)!r})\n"
        "kept = [preferences().ask_above, preferences().jobs_at_once, preferences().fal_key]\n"
        "report([__version__, str(result.files[0]), kept])"
    )
    assert before[0] == older.VERSION
    assert before[2] == [7, 2, "mine"]
    newer = blender(
        SETTINGS
        + STATE
        + ENABLE
        + "from bl_ext.user_default.blender_trellis import __version__, api\n"
        "from bl_ext.user_default.blender_trellis.generation.journal import Journal\n"
        "found, count = Journal(api.config().home).results('', 9, 0)\n"
        "report([__version__, count, *map(str, found[0].files)])"
    )
    assert newer == [version(), 1, before[1]]
    assert Path(before[1]).exists()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that is not there yet, and the address at which a web server gives out what is in it."""
    folder = tmp_path / "served"
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def with_other_systems(package: Path, folder: Path) -> list[Path]:
    """The zip among those for other systems, of which the manifest is enough: they must not be taken."""
    found = [package]
    with zipfile.ZipFile(package) as archive:
        manifest = archive.read("blender_manifest.toml").decode()
    for target in PLATFORMS.keys() - {this_platform()}:
        found.append(folder / package.name.replace(this_platform(), target))
        with zipfile.ZipFile(found[-1], "w") as archive:
            other = manifest.replace(f'"{this_platform()}"', f'"{target}"')
            archive.writestr(
                "blender_manifest.toml", re.sub(r"wheels = \[.*?\]", "", other, flags=re.S)
            )
            archive.writestr("__init__.py", "raise ImportError('This is for another system.')")
    return found


def test_blender_installs_from_the_repository_and_updates_by_itself(
    package, previous, served, blender, tmp_path
):
    folder, url = served
    repository.make(with_other_systems(previous, tmp_path), folder, url)
    repository.make(with_other_systems(package, tmp_path), tmp_path / "newer", url)
    said = blender(
        f"URL, FOLDER, NEWER = {url!r}, {str(folder)!r}, {str(tmp_path / 'newer')!r}" + UPDATE
    )
    assert said == [older.VERSION, version()]


UPDATE = """
import bpy
def version():
    from bl_ext.ours import blender_trellis
    assert "bl_ext.ours.blender_trellis" in bpy.context.preferences.addons
    return blender_trellis.__version__

repos = bpy.context.preferences.extensions.repos
remote = [repo.use_remote_url for repo in repos]
bpy.ops.preferences.extension_repo_remove(index=remote.index(True))  # Blender's own, on the internet
bpy.context.preferences.system.use_online_access = True
bpy.ops.preferences.extension_repo_add(name="ours", remote_url=URL + "/index.json", type="REMOTE")
index = [repo.module for repo in repos].index("ours")
bpy.ops.extensions.repo_sync(repo_index=index)
bpy.ops.extensions.package_install(
    repo_index=index, pkg_id="blender_trellis", enable_on_install=True
)
first = version()
pathlib.Path(FOLDER).rename(FOLDER + ".old")
pathlib.Path(NEWER).rename(FOLDER)
bpy.ops.extensions.repo_sync_all()
bpy.ops.extensions.package_upgrade_all()
report([first, version()])
"""
