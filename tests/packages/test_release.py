# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages: equal bytes from equal input, nothing bundled but what the lock names, all of it licensed and complete."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name, parse_wheel_filename

from release import ROOT, ReleaseError, licences, package, repository, wheels

PARTS = (
    "blender_trellis",
    ".ci",
    "blender_manifest.toml",
    "pyproject.toml",
    "LICENSE",
    "README.md",
)


@pytest.fixture
def pip_finds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The only folder where pip looks for wheels."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    yield tmp_path / "index"


def wheel(folder: Path, *metadata: str, text: str | None = None, name: str = "some") -> Path:
    """A wheel of Python alone with such lines of metadata, and a licence file where there is a text for it."""
    made = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        lines = ["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *metadata]
        archive.writestr(f"{name}-1.0.dist-info/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        if text is not None:
            archive.writestr(f"{name}-1.0.dist-info/licenses/LICENSE", text)
    return made


def copy_project(folder: Path, turn: int = 1) -> None:
    """What packages are made of, in another folder; its files are made in this or the opposite order."""
    folder.mkdir(exist_ok=True)
    for name in PARTS[::turn]:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)


def packed(folder: Path, target: str) -> Path:
    """A small zip that Blender takes for the extension."""
    manifest = package.filled_manifest(target, [])
    made = folder / f"some-{target}.zip"
    package.write_zip({"__init__.py": b"", "blender_manifest.toml": manifest.encode()}, made)
    return made


def test_equal_input_makes_equal_bytes_whoever_makes_it_and_when(tmp_path):
    target = package.this_platform()
    wheels.fetch(target)
    script = "import os; os.umask({umask}); from pathlib import Path; from release import package; "
    script += f"print(package.make({target!r}, Path('dist')))"
    made = []
    for umask, time, turn in ((0o077, 1_000_000_000, 1), (0o002, 1_700_000_000, -1)):
        source = tmp_path / str(umask)
        copy_project(source, turn)
        for path in source.rglob("*"):
            path.chmod(0o700 if turn > 0 or path.is_dir() else 0o644)
            os.utime(path, (time, time))
        (source / ".wheels").symlink_to(wheels.CACHE)
        settings = {"PYTHONHASHSEED": str(time), "TZ": f"X{turn}", "LC_ALL": ("C", "C.UTF-8")[turn]}
        done = subprocess.run(
            [sys.executable, "-c", script.format(umask=umask)],
            cwd=source,
            env={**os.environ, "PYTHONPATH": str(source / ".ci"), **settings},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        made.append((source / "dist" / package.zip_name(target)).read_bytes())
    assert made[0] == made[1]


def test_a_zip_holds_every_file_of_the_extension_and_no_others(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("no git, which knows what the extension's files are")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "blender_trellis"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    files = {name.removeprefix("blender_trellis/") for name in listed if name}
    assert {*package.sources()} == files | {"LICENSE", "README.md"}


def test_what_is_no_part_of_the_extension_is_not_packed_in_silence(monkeypatch, tmp_path):
    copy_project(tmp_path)
    (tmp_path / "blender_trellis" / "notes.orig").write_text("")
    monkeypatch.setattr(package, "ROOT", tmp_path)
    with pytest.raises(ReleaseError, match=r"notes\.orig"):
        package.sources()


def test_the_packages_manifest_names_platform_and_wheels():
    source = tomllib.loads((ROOT / package.MANIFEST).read_text("utf-8"))
    filled = tomllib.loads(package.filled_manifest("linux-x64", ["a.whl", "b.whl"]))
    assert filled.pop("platforms") == ["linux-x64"]
    assert filled.pop("wheels") == ["./wheels/a.whl", "./wheels/b.whl"]
    assert filled == source


@pytest.mark.parametrize("target", wheels.PLATFORMS)
def test_the_lock_names_a_fitting_wheel_for_every_python_and_4_2_0_takes_its_own(target):
    tags: dict[str, set[tuple[str, str]]] = {}
    for name in wheels.locked(target):
        distribution, _version, _build, found = parse_wheel_filename(name)
        for tag in found:
            tags.setdefault(distribution, set()).add((tag.interpreter, tag.platform))
    fitting = {
        "windows-x64": "win_amd64",
        "windows-arm64": "win_arm64",
        "macos-arm64": r"macosx_1[01]_\d+_arm64",
        "macos-x64": r"macosx_1[01]_\d+_x86_64",
        "linux-x64": r"manylinux(2014|_2_\d+)_x86_64",
    }[target]
    compiled = 0
    for found in tags.values():
        if found == {("py3", "any")}:
            continue
        compiled += 1
        assert {python for python, _ in found} == {"cp311", "cp313", "cp314"}
        assert all(re.fullmatch(fitting, platform) for _, platform in found)
    assert compiled >= 2
    for name in wheels.locked(target):
        if "-cp311-" in name:
            same = [
                other for other in wheels.locked(target) if wheels.pin(other) == wheels.pin(name)
            ]
            assert "-cp311-" in max(map(package.packed_name, same))


@pytest.mark.parametrize("target", wheels.PLATFORMS)
def test_all_that_a_bundled_library_needs_is_bundled(target):
    names = [name for name in wheels.locked(target) if not wheels.is_compiled(name)]
    there = {
        parse_wheel_filename(name)[0]: parse_wheel_filename(name)[1]
        for name in wheels.locked(target)
    }
    pure = [wheels.read(path) for path in wheels.fetch(target, names)]
    asked = [need for part in pure for need in wheels.needs(part, target)] + wheels._wishes(target)
    assert len(asked) > len(names)
    for need in asked:
        assert there[canonicalize_name(need.name)] in need.specifier, need


def test_the_docs_name_what_is_bundled():
    assert licences.PAGE.read_text("utf-8") == licences.page()


def test_a_wheel_without_a_licence_or_with_one_that_does_not_go_with_the_gpl_is_refused(tmp_path):
    good = "License-Expression: MIT OR (Apache-2.0 AND BSD-3-Clause)"
    assert "Anyone may" in licences.notices([wheel(tmp_path, good, text="Anyone may.")])
    with pytest.raises(ReleaseError, match="some has no licence text"):
        licences.notices([wheel(tmp_path, good)])
    with pytest.raises(ReleaseError, match="some names no licence"):
        licences.notices([wheel(tmp_path, "Summary: none", text="Nobody may.")])
    for line in ("License-Expression: SSPL-1.0", "License: MIT AND Commercial"):
        with pytest.raises(ReleaseError, match="some's licence is not known"):
            licences.notices([wheel(tmp_path, line, text="Nobody may.")])


def test_what_is_compiled_into_a_wheel_is_named_and_judged_too(tmp_path):
    made = wheel(tmp_path, "License-Expression: MIT", text="Anyone may.")

    def compiled(licence: str, **more: str) -> dict[str, object]:
        return {"name": "inner", "version": "2", "licenses": [{"expression": licence}], **more}

    def bill(*parts: dict[str, object]) -> None:
        with zipfile.ZipFile(made, "a") as archive:
            name = f"some-1.0.dist-info/sboms/{len(archive.namelist())}.cdx.json"
            archive.writestr(name, json.dumps({"components": parts}))

    bill(compiled("(MIT OR Apache-2.0) AND Unicode-3.0"), compiled("SSPL-1.0", scope="excluded"))
    said = licences.notices([made])
    assert "| some | inner | 2 | (MIT OR Apache-2.0) AND Unicode-3.0 |" in said
    assert "SSPL" not in said  # it only served to build the wheel
    bill(compiled("SSPL-1.0"))
    with pytest.raises(ReleaseError, match="inner in some's licence is not known"):
        licences.notices([made])


def test_a_damaged_wheel_of_the_cache_is_fetched_anew_and_a_wrong_one_never_used(
    monkeypatch, tmp_path, pip_finds
):
    right = wheel(pip_finds, "License-Expression: MIT", text="Anyone may.")
    lock, cache = tmp_path / "wheels.toml", tmp_path / "cache"
    monkeypatch.setattr(wheels, "LOCK", lock)
    lock.write_text(f'[linux-x64]\n"{right.name}" = "{wheels._digest(right)}"\n')
    cache.mkdir()
    (cache / right.name).write_bytes(b"damaged")
    assert wheels.fetch("linux-x64", cache=cache) == [cache / right.name]
    assert (cache / right.name).read_bytes() == right.read_bytes()

    (cache / right.name).unlink()
    lock.write_text(f'[linux-x64]\n"{right.name}" = "{"0" * 64}"\n')
    with pytest.raises(ReleaseError, match="pip could not download"):
        wheels.fetch("linux-x64", cache=cache)
    assert not list(cache.iterdir())


def test_what_to_lock_goes_by_each_platforms_own_markers(monkeypatch, tmp_path, pip_finds):
    wheel(pip_finds, 'Requires-Dist: b; sys_platform == "win32"', "Requires-Dist: numpy", name="a")
    wheel(pip_finds, 'Requires-Dist: c>=1; python_version < "3.12"', name="b")
    wheel(pip_finds, 'Requires-Dist: d; extra == "more"', name="c")
    monkeypatch.setattr(wheels, "_wishes", lambda target: [wheels.Requirement("a")])
    chosen = wheels._choose(tmp_path)
    pins = {target: [wheels.pin(path.name) for path in paths] for target, paths in chosen.items()}
    assert pins["linux-x64"] == pins["macos-arm64"] == ["a==1.0"]
    assert pins["windows-x64"] == pins["windows-arm64"] == ["a==1.0", "b==1.0", "c==1.0"]


@pytest.mark.parametrize("target", ["windows-x64", "macos-arm64"])
def test_the_keychains_libraries_are_python_alone_and_find_each_other(target, tmp_path):
    """There Blender's Python has no others; on Linux keyring is not bundled."""
    names = [name for name in wheels.locked(target) if not wheels.is_compiled(name)]
    for path in wheels.fetch(target, names):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path)
    script = f"import sys; sys.path.append({str(tmp_path)!r}); import keyring\n"
    script += "keyring.get_keyring()  # goes through all backends\nprint(keyring.__file__)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path))


def test_a_repository_lists_each_zip_in_one_order_and_nothing_older(tmp_path):
    zips = [packed(tmp_path, target) for target in wheels.PLATFORMS]
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "older.zip").write_bytes(zips[0].read_bytes())
    made = repository.make(zips[::-1], tmp_path / "made", "https://example.org/trellis/")
    listed = json.loads((made / "index.json").read_text())["data"]
    assert [entry["archive_url"] for entry in listed] == sorted(f"./{path.name}" for path in zips)
    for entry in listed:
        path = made / entry["archive_url"]
        assert entry["archive_hash"] == f"sha256:{wheels._digest(path)}"
        assert entry["archive_size"] == path.stat().st_size
    page = (made / "index.html").read_text()
    assert "https://example.org/trellis/index.json" in page
    links = re.findall(r'href="([^"]*)"', page)
    assert len(links) == len(wheels.PLATFORMS)
    for link in links:
        assert re.fullmatch(
            r"\./some-([\w-]+)\.zip\?repository=\.%2Findex\.json"
            r"&amp;blender_version_min=4\.2\.0&amp;platforms=\1",
            link,
        )
