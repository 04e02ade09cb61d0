# SPDX-License-Identifier: GPL-3.0-or-later
"""The model's files: what they are, access before the first byte, downloads that break, files from a folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blender_trellis.errors import (
    AccessError,
    CancelledError,
    InputError,
    InstallError,
    StorageError,
    UnreachableError,
)
from blender_trellis.install import hub as client
from blender_trellis.install import installer, weights
from blender_trellis.install.installer import Wish
from harness import sizes
from install.hub import COMMIT, GATED, TOKEN, Hub, Trouble, tensors

ONLY_WEIGHTS = Wish(only=installer.WEIGHTS)
STRUCTURE = "microsoft/TRELLIS.2-4B/ckpts/ss_flow_img_dit_1_3B_64_bf16.safetensors"


def never() -> bool:
    return False


def ignore(_: object) -> None:
    """Nothing."""


def install(home: Path, wish: Wish = ONLY_WEIGHTS) -> installer.Plan:
    return installer.install(home, wish, ignore, never, ignore)


def target(home: Path, name: str = STRUCTURE) -> Path:
    """Where a file of the hub's is to be."""
    files = weights.wanted("all", retexture=True) + weights.wanted("all", without_gate=True)
    (found,) = {file.target for file in files if f"{file.repository}/{file.path}" == name}
    return weights.folder(home) / found


@pytest.fixture
def leave(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub, for somebody who has accepted the licence of the gated file."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


# What there is


@pytest.mark.parametrize(
    ("resolution", "retexture", "expected"),
    [("512", False, 10.4), ("all", False, 15.2), ("512", True, 11.1), ("all", True, 15.9)],
)
def test_the_choices_are_as_large_as_the_documentation_says(
    resolution: str, retexture: bool, expected: float
) -> None:
    files = weights.wanted(resolution, retexture)
    assert round(sum(file.bytes for file in files) / 2**30, 1) == expected


def test_every_revision_is_pinned_and_nothing_under_a_non_commercial_licence_is_listed() -> None:
    files = weights.wanted("all", retexture=True)
    assert all(len(file.revision) == 40 for file in files if not file.url)
    assert {file.licence for file in files} == {"MIT", "DINOv3 License", "Apache-2.0"}
    assert [file.path for file in files if file.url and file.size and file.sha256] == ["u2net.onnx"]
    assert [file.path for file in files if file.without] == ["u2net.onnx"]
    assert not [file for file in files if "rmbg" in file.repository.lower()]
    assert all(file.size is None or file.sha256 for file in files), "a size without its hash"


# From the hub


def test_all_files_come_whole_with_their_records_and_nothing_else(leave: Hub, home: Path) -> None:
    wish = replace(ONLY_WEIGHTS, resolution="all", retexture=True)
    install(home, wish)
    place = weights.folder(home)
    expected = set()
    for file in weights.needed("all", retexture=True):
        content = leave.files[f"{file.repository}/{file.path}"]
        path = place / file.target
        assert path.read_bytes() == content
        assert json.loads(client.record_of(path).read_text()) == {
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "revision": file.revision,
        }
        expected |= {path, client.record_of(path)}
    assert {path for path in place.rglob("*") if path.is_file()} == expected
    leave.calls.clear()
    install(home, wish)
    assert {call.path.rpartition("/")[2] for call in leave.calls} == {"u2net.onnx"}, (
        "what is here is not asked for"
    )


def test_the_token_goes_to_the_hub_alone(leave: Hub, home: Path) -> None:
    install(home)
    asked = [call for call in leave.calls if call.host == "hub" and "/resolve/" in call.path]
    assert asked and all(call.headers["authorization"] for call in asked)
    files = [call for call in leave.calls if call.host == "files"]
    assert files and not [call for call in files if "authorization" in call.headers]


def test_a_token_is_found_where_the_hubs_own_tools_keep_it(
    hub: Hub, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "nobody").mkdir()
    (tmp_path / "nobody" / "token").write_text(f"{TOKEN}\n")
    install(home)
    assert target(home, f"{GATED}/model.safetensors").exists()


@pytest.mark.parametrize(("token", "status"), [("", 401), ("hf_somebodyelses", 403)])
def test_a_gate_is_explained_before_a_single_byte(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch, token: str, status: int
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(AccessError) as told:
        install(home)
    words = told.value.message
    assert told.value.exit_code == 2 and str(status) in words
    for needed in ("Meta", "dinov3-license", f"{hub.url}/{GATED}", "--without-gate", "--from"):
        assert needed in words, needed
    assert ("HF_TOKEN" in words) == (not token)
    assert {call.method for call in hub.calls} == {"HEAD"}, "something was downloaded"
    assert len(hub.calls) == 1, "the gated file is asked for first"


def test_the_ungated_copy_needs_no_token_and_serves_in_its_place(hub: Hub, home: Path) -> None:
    install(home, replace(ONLY_WEIGHTS, without_gate=True))
    copy = target(home, f"{weights.ungated()}/model.safetensors")
    assert json.loads(client.record_of(copy).read_text())["revision"] == COMMIT
    assert not weights.missing(weights.folder(home), weights.needed("512"))


def test_a_download_that_breaks_goes_on_where_it_broke(leave: Hub, home: Path) -> None:
    leave.trouble[STRUCTURE] = Trouble(after=50_000, times=2)
    install(home)
    served = leave.served(STRUCTURE)
    assert [call.begins for call in served] == [0, 50_000, 100_000]
    assert target(home).read_bytes() == leave.files[STRUCTURE]


def test_a_server_that_ignores_ranges_is_put_up_with(leave: Hub, home: Path) -> None:
    leave.deaf = True
    leave.trouble[STRUCTURE] = Trouble(after=50_000)
    install(home)
    assert [call.begins for call in leave.served(STRUCTURE)] == [0, 50_000]
    assert target(home).read_bytes() == leave.files[STRUCTURE]


def test_a_busy_server_is_asked_again_and_one_that_stays_so_is_told_of(
    leave: Hub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave.trouble[STRUCTURE] = Trouble(status=503, times=2)
    install(home)
    assert len(leave.served(STRUCTURE)) == 3
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    shutil.rmtree(weights.folder(home))
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9 does not answer") as told:
        install(home)
    assert told.value.exit_code == 4


def test_another_hash_is_refused_and_the_file_is_not_kept(leave: Hub, home: Path) -> None:
    right = leave.files[STRUCTURE]
    leave.trouble[STRUCTURE] = Trouble(instead=right[:-1] + bytes([right[-1] ^ 1]))
    with pytest.raises(InstallError, match="arrived broken, or somebody has changed it") as told:
        install(home)
    assert told.value.exit_code == 3
    assert not list(target(home).parent.glob(f"{target(home).name}*"))
    install(home)
    assert target(home).read_bytes() == right


def test_a_part_of_another_revision_is_not_gone_on_with(leave: Hub, home: Path) -> None:
    leave.trouble[STRUCTURE] = Trouble(after=50_000, hold=True)

    def half() -> bool:
        return 50_000 in sizes(target(home).parent, "*.part")

    with pytest.raises(CancelledError):
        installer.install(home, ONLY_WEIGHTS, ignore, half, ignore)
    (part,) = target(home).parent.glob("*.part")
    leave.files[STRUCTURE] = tensors(200_000, "a new revision")
    install(home)
    assert [call.begins for call in leave.served(STRUCTURE)] == [0, 0]
    assert not part.exists() and target(home).read_bytes() == leave.files[STRUCTURE]


def test_progress_comes_in_bytes_of_all_files_and_ends_at_one(leave: Hub, home: Path) -> None:
    leave.trouble[STRUCTURE] = Trouble(after=150_000)
    seen = []
    installer.install(home, ONLY_WEIGHTS, seen.append, never, ignore)
    shares = [report.fraction for report in seen if report.step == "weights" and report.fraction]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert all(report.number <= report.count for report in seen)


def test_what_the_hub_does_not_have_is_named(leave: Hub, home: Path) -> None:
    del leave.files[STRUCTURE]
    with pytest.raises(InstallError, match=r"ss_flow_img_dit_1_3B_64_bf16\.safetensors"):
        install(home)
    assert {call.method for call in leave.calls} == {"HEAD"}


def test_a_full_disk_is_told_before_anything_is_downloaded(
    leave: Hub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(home.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    with pytest.raises(StorageError, match="too little room"):
        install(home)
    assert {call.method for call in leave.calls} == {"HEAD"}


def test_offline_nothing_is_asked(leave: Hub, home: Path) -> None:
    with pytest.raises(AccessError, match="may not go online"):
        install(home, replace(ONLY_WEIGHTS, offline=True))
    assert not leave.calls


def test_a_mirror_takes_the_hubs_place(leave: Hub, home: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    install(home, replace(ONLY_WEIGHTS, mirror=leave.url))
    assert target(home).exists()


# What the engine can do without

ONNX = b"a network that is small enough" * 1000


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The list of files as if U²-Net's were the one above."""
    listed = json.loads(weights._MANIFEST.read_text(encoding="utf-8"))
    (entry,) = [entry for entry in listed["files"] if entry["path"] == "u2net.onnx"]
    entry |= {"size": len(ONNX), "sha256": hashlib.sha256(ONNX).hexdigest()}
    (tmp_path / "weights.json").write_text(json.dumps(listed), encoding="utf-8")
    monkeypatch.setattr(weights, "_MANIFEST", tmp_path / "weights.json")
    weights._manifest.cache_clear()
    yield
    weights._manifest.cache_clear()


def test_the_network_that_cuts_subjects_out_comes_from_a_mirror_too(
    leave: Hub, home: Path, network: None
) -> None:
    path = leave.release(ONNX)
    assert install(home).lost == ()
    file = weights.folder(home) / "u2net.onnx"
    assert file.read_bytes() == ONNX and client.record_of(file).exists()
    calls = [call for call in leave.calls if call.path.strip("/") == path]
    assert calls and not [call for call in calls if "authorization" in call.headers], "no hub"
    leave.calls.clear()
    install(home)
    assert not leave.calls


def test_it_is_asked_for_at_its_own_address_without_the_hubs_token(
    leave: Hub, home: Path, network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def look(where: str, revision: str, key: str = "") -> client.Remote:
        asked.append((where, key))
        return real(where, revision, key)

    real = client.look
    monkeypatch.setattr(client, "look", look)
    install(home)
    url = "https://github.com/danielgatis/rembg/releases/download/v0.0.0/u2net.onnx"
    assert [key for where, key in asked if "/rembg/" in where] == ["", ""]
    assert asked[-1][0] == url and asked[0][1] == TOKEN


@pytest.mark.parametrize("trouble", [Trouble(instead=ONNX[:-1] + b"?"), Trouble(status=404)])
def test_one_that_does_not_come_or_is_another_is_told_and_the_rest_is_installed(
    leave: Hub, home: Path, network: None, trouble: Trouble
) -> None:
    path = leave.release(ONNX)
    leave.trouble[path] = replace(trouble, times=9)
    (note,) = install(home).lost
    assert "U²-Net" in note and "by colour" in note
    assert not (weights.folder(home) / "u2net.onnx").exists()
    assert not weights.missing(weights.folder(home), weights.needed("512"))
    assert installer.status(home).weights_words().startswith("512: ready")
    del leave.trouble[path]
    assert install(home).lost == ()
    assert (weights.folder(home) / "u2net.onnx").read_bytes() == ONNX


def test_one_that_was_put_there_by_hand_is_believed_by_its_size(home: Path, network: None) -> None:
    (file,) = [file for file in weights.wanted("512") if file.without]
    place = weights.folder(home)
    place.mkdir(parents=True)
    for content, missing in ((ONNX[:-1], [file]), (ONNX, [])):
        (place / "u2net.onnx").write_bytes(content)
        assert weights.missing(place, [file]) == missing


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_may_have_it_or_not(
    hub: Hub, home: Path, tmp_path: Path, network: None, there: bool
) -> None:
    for file in weights.needed("512"):
        path = as_here(tmp_path / "folder", file.repository, file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hub.files[f"{file.repository}/{file.path}"])
    if there:
        (tmp_path / "folder" / "u2net.onnx").write_bytes(ONNX)
    lost = install(home, replace(ONLY_WEIGHTS, source=tmp_path / "folder", offline=True)).lost
    assert len(lost) == (not there)
    assert (weights.folder(home) / "u2net.onnx").exists() == there


# What is here


def test_a_file_that_was_cut_or_changed_is_missing_again(leave: Hub, home: Path) -> None:
    install(home)
    files, place = weights.needed("512"), weights.folder(home)
    assert not weights.missing(place, files)
    path = target(home)
    path.write_bytes(path.read_bytes()[:-1])
    assert [file.target for file in weights.missing(place, files)] == [
        str(path.relative_to(place).as_posix())
    ]


def test_a_file_put_there_by_hand_is_believed_if_it_is_whole(home: Path) -> None:
    place = weights.folder(home)
    (file,) = [file for file in weights.wanted("512") if STRUCTURE.endswith(file.path)]
    path = place / file.target
    path.parent.mkdir(parents=True)
    for content, here in [
        (tensors(100, "x"), True),
        (tensors(100, "x")[:-1], False),
        (tensors(100, "x") + b"\0", False),
        (b"version https://git-lfs.github.com/spec/v1\n", False),
        (b"", False),
    ]:
        path.write_bytes(content)
        assert (weights.missing(place, [file]) == []) is here, content[:20]


def test_weights_may_lie_elsewhere(home: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TRELLIS_WEIGHTS", str(tmp_path / "elsewhere"))
    assert weights.folder(home) == tmp_path / "elsewhere"
    (tmp_path / "elsewhere").mkdir()
    installer.uninstall(home)
    assert (tmp_path / "elsewhere").exists(), "a folder of the user's own is not ours to delete"


# From a folder


def as_here(folder: Path, repository: str, path: str) -> Path:
    """The weights' folder of another computer."""
    return folder / path if "2-4B" in repository else folder / repository.replace("/", "--") / path


def as_cloned(folder: Path, repository: str, path: str) -> Path:
    return folder / repository.partition("/")[2] / path


def as_cached(folder: Path, repository: str, path: str) -> Path:
    name = repository.replace("/", "--")
    return folder / "hub" / f"models--{name}" / "snapshots" / COMMIT / path


@pytest.mark.parametrize("layout", [as_here, as_cloned, as_cached])
@pytest.mark.parametrize("copy", [GATED, "timm/vit_large_patch16_dinov3.lvd1689m"])
def test_a_folder_takes_the_hubs_place(hub: Hub, home: Path, tmp_path: Path, layout, copy) -> None:
    folder = tmp_path / "Große Dateien"
    for file in weights.wanted("512", without_gate=copy != GATED):
        if file.without:
            continue
        path = layout(folder, file.repository, file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hub.files[f"{file.repository}/{file.path}"])
    install(home, replace(ONLY_WEIGHTS, source=folder, offline=True))
    assert not hub.calls, "nothing goes over the line"
    assert not weights.missing(weights.folder(home), weights.needed("512"))
    source = layout(folder, "microsoft/TRELLIS.2-4B", STRUCTURE.split("/", 2)[2])
    assert target(home).samefile(source), "a link takes no room"
    record = json.loads(client.record_of(target(home)).read_text())
    assert record["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()


def test_a_folder_that_lacks_something_or_holds_a_broken_file_is_refused(
    hub: Hub, home: Path, tmp_path: Path
) -> None:
    wish = replace(ONLY_WEIGHTS, source=tmp_path / "folder")
    for file in weights.needed("512"):
        path = as_here(tmp_path / "folder", file.repository, file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hub.files[f"{file.repository}/{file.path}"])
    broken = as_here(tmp_path / "folder", "2-4B", STRUCTURE.split("/", 2)[2])
    broken.write_bytes(broken.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"cannot be used: it has \d+ bytes and should have"):
        install(home, wish)
    broken.unlink()
    shown: list[installer.Plan] = []
    with pytest.raises(InputError, match="lacks ckpts"):  # before an environment is made for it
        installer.install(home, replace(wish, only=""), ignore, never, shown.append)
    assert shown[0].problem and not (home / "trellis2" / "venv").exists()
    with pytest.raises(InputError, match=r"lacks ckpts/ss_flow_img_dit_1_3B_64_bf16\.safetensors"):
        install(home, wish)
    assert not target(home).exists()
