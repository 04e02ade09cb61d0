# SPDX-License-Identifier: GPL-3.0-or-later
"""The result library and output files: names, no overwriting, nothing half written."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from blender_trellis.errors import ImageError, OutputError, StorageError
from blender_trellis.generation.library import Library, check_output, copy_out
from blender_trellis.home import FileLock, atomic_write
from harness import REPOSITORY


def _keep(library: Library, content: bytes, title: str) -> Path:
    part = library.part("job", 0)
    part.write_bytes(content)
    return library.keep(part, title)


def test_names_hold_the_title_and_the_hash(home: Path) -> None:
    library = Library(home)
    path = _keep(library, b"model", "Bär 熊")
    assert path.name == f"Bär 熊-{hashlib.sha256(b'model').hexdigest()[:16]}.glb"
    assert path.read_bytes() == b"model"
    assert not library.part("job", 0).exists()


def test_the_same_content_is_kept_once_and_other_content_beside_it(home: Path) -> None:
    library = Library(home)
    first, same, other = (_keep(library, content, "a") for content in (b"1", b"1", b"2"))
    assert first == same != other
    assert sorted(path.name for path in library.results.iterdir()) == sorted(
        {first.name, other.name}
    )


@pytest.mark.parametrize("title", ["../../up", 'a:b*c?"d', "", " . ", "x" * 300, "nul\x00byte"])
def test_titles_that_are_no_file_names(home: Path, title: str) -> None:
    library = Library(home)
    path = _keep(library, b"1", title)
    assert path.parent == library.results
    assert path.exists() and len(path.name) < 90


def test_a_chosen_results_folder(home: Path, tmp_path: Path) -> None:
    assert _keep(Library(home, tmp_path / "mine"), b"1", "a").parent == tmp_path / "mine"


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot keep files in"):
        Library(tmp_path / "file" / "home")


def test_inputs_come_back(home: Path) -> None:
    library = Library(home)
    assert library.keep_input(b"png") == library.keep_input(b"png")
    assert library.read_input(library.keep_input(b"png")) == b"png"
    assert len(list(library.inputs.iterdir())) == 1


def test_an_input_that_is_gone_is_told(home: Path) -> None:
    library = Library(home)
    name = library.keep_input(b"png")
    (library.inputs / name).unlink()
    with pytest.raises(ImageError, match=f"cannot be read: .*{name}: No such file"):
        library.read_input(name)


def test_copies_replace_whole_files(tmp_path: Path) -> None:
    source, output = tmp_path / "a.glb", tmp_path / "b.glb"
    source.write_bytes(b"new")
    output.write_bytes(b"old and longer")
    copy_out(source, output)
    assert output.read_bytes() == b"new"
    with pytest.raises(OutputError, match="Choose another place"):
        copy_out(tmp_path / "missing", output)
    assert output.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.glb", "b.glb"]


def test_outputs_are_checked_beforehand(tmp_path: Path) -> None:
    check_output(tmp_path / "a.glb")
    check_output(tmp_path / "A.BLEND")
    for bad in ("a.obj", "a", "no/a.glb"):
        with pytest.raises(OutputError):
            check_output(tmp_path / bad)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_is_free_again_when_its_process_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys; from pathlib import Path; from blender_trellis.home import FileLock\n"
        "lock = FileLock(Path(sys.argv[1])); print(lock.acquire(), flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, path],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout and other.stdin
    with other:
        assert other.stdout.readline().strip() == b"True"
        with FileLock(path) as lock:
            assert not lock.acquire()
            other.kill()
            other.wait()
            assert lock.acquire()
            assert not FileLock(path).acquire()
        assert FileLock(path).acquire()
