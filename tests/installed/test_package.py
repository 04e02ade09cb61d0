# SPDX-License-Identifier: GPL-3.0-or-later
"""The package as a user meets it: installed from its zip into an empty profile, enabled, removed."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "images" / "robot.png"
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

INSTALL = """
import bpy
def state():
    handlers = [name for name in dir(bpy.app.handlers) if not name.startswith("_")]
    lists = {name: getattr(bpy.app.handlers, name) for name in handlers}
    return {
        "types": sorted(name for name in dir(bpy.types) if "trellis" in name.lower()),
        "properties": sorted(
            f"{owner.__name__}.{name}"
            for owner in (bpy.types.Scene, bpy.types.Object, bpy.types.WindowManager)
            for name in dir(owner)
            if "trellis" in name.lower()
        ),
        "handlers": {name: len(value) for name, value in lists.items() if type(value) is list},
        "enabled": NAME in bpy.context.preferences.addons,
        "imported": [name for name in THIRD_PARTY if name in sys.modules],
    }
before = state()
bpy.ops.extensions.package_install_files(filepath=ZIP, repo="user_default", enable_on_install=True)
installed = state()
"""

UNINSTALL = """
repos = [repo.module for repo in bpy.context.preferences.extensions.repos]
folder = pathlib.Path(bpy.context.preferences.extensions.repos["User Default"].directory)
bpy.ops.extensions.package_uninstall(
    repo_index=repos.index("user_default"), pkg_id="blender_trellis"
)
report([before, installed, state(), (folder / "blender_trellis").exists()])
"""

GENERATE = """
import bpy
import addon_utils, os
addon_utils.enable("bl_ext.user_default.blender_trellis", default_set=True)
from bl_ext.user_default.blender_trellis import api
from bl_ext.user_default.blender_trellis.services import sidecar
try:
    result = api.generate([IMAGE], endpoint="local/draft", seed=7)
    objects = api.import_result(result)
finally:
    sidecar.stop(pathlib.Path(os.environ["TRELLIS_HOME"]))
import pydantic
report({
    "glb": pathlib.Path(result.files[0]).read_bytes()[:4].decode(),
    "seed": result.seed,
    "vertices": [len(made.data.vertices) for made in objects if made.type == "MESH"],
    "in_scene": all(made.name in bpy.context.scene.objects for made in objects),
    "pydantic": pydantic.__file__,
})
"""


def settings(package: Path) -> str:
    return f"NAME, ZIP, THIRD_PARTY = {NAME!r}, {str(package)!r}, {THIRD_PARTY!r}\n"


def test_the_zip_holds_what_its_manifest_names_and_no_litter(package):
    with zipfile.ZipFile(package) as archive:
        names = archive.namelist()
        manifest = tomllib.loads(archive.read("blender_manifest.toml").decode())
    assert {"__init__.py", "LICENSE", "README.md", "endpoints/schema.json"} <= set(names)
    wheels = [name.removeprefix("./") for name in manifest["wheels"]]
    assert sorted(wheels) == sorted(name for name in names if name.startswith("wheels/"))
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    assert not [name for name in wheels if name.startswith("wheels/numpy-")]


def test_each_compiled_wheel_is_there_for_every_python_and_4_2_0_takes_its_own(package):
    with zipfile.ZipFile(package) as archive:
        wheels = [Path(name).name for name in archive.namelist() if name.endswith(".whl")]
    compiled: dict[str, list[str]] = {}
    for wheel in wheels:
        if not wheel.endswith("-none-any.whl"):
            compiled.setdefault(wheel.split("-")[0], []).append(wheel)
    assert {"pillow", "pydantic_core"} <= compiled.keys()
    for group in compiled.values():
        pythons = sorted(wheel.split("-")[-2] for wheel in group)
        assert pythons == ["cp311", "cp313", "cp314"]
        assert "-cp311-" in max(group)


@pytest.mark.parametrize("target", ["windows-x64", "macos-arm64"])
def test_the_keychains_wheels_are_python_alone_and_need_no_others(build, target, tmp_path):
    wanted, unpacked = build.KEYCHAIN[target.partition("-")[0]], tmp_path / "unpacked"
    build.pip_download(Path(sys.executable), target, "311", ["--no-deps", *wanted], tmp_path)
    wheels = sorted(tmp_path.glob("*.whl"))
    assert len(wheels) == len(wanted)
    for wheel in wheels:
        assert wheel.name.endswith("-py3-none-any.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
    script = (
        f"import sys; sys.path.append({str(unpacked)!r}); import keyring\n"
        "keyring.get_keyring()  # goes through all backends\n"
        "print(keyring.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(unpacked))


def test_enabling_registers_the_operators_and_imports_no_third_party_package(package, blender):
    before, installed = blender(settings(package) + INSTALL + "report([before, installed])")
    assert not before["enabled"] and not before["types"]
    assert installed["enabled"]
    assert "TRELLIS_OT_generate" in installed["types"]
    assert installed["imported"] == before["imported"]


def test_uninstalling_leaves_nothing_behind(package, blender):
    before, installed, after, folder_is_there = blender(settings(package) + INSTALL + UNINSTALL)
    assert installed["enabled"]
    assert after["handlers"] == before["handlers"]
    assert after["types"] == after["properties"] == []
    assert not after["enabled"] and not folder_is_there


def test_after_a_restart_the_installed_copy_makes_and_imports_a_model(package, blender, tmp_path):
    blender(settings(package) + INSTALL + "report(None)")
    home = {"TRELLIS_HOME": str(tmp_path / "home")}
    made = blender(f"IMAGE = {str(EXAMPLE)!r}\n" + GENERATE, **home)
    assert (made["glb"], made["seed"]) == ("glTF", 7)
    assert len(made["vertices"]) == 1 and made["vertices"][0] > 1000
    assert made["in_scene"]
    assert Path(made["pydantic"]).is_relative_to(tmp_path / "profile")
