# SPDX-License-Identifier: GPL-3.0-or-later
"""What a batch is made of: the rows of a manifest, or the pictures of a folder or a pattern, each of which becomes a model.

A manifest is a CSV file with a header, or a JSONL file with an object a line; docs/batch.md describes it. Importing this module
imports nothing third-party, since the panel knows its suffixes.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from ..endpoints.schema import schemas
from ..errors import ImageError, InputError, OutputError, ParameterError, TrellisError
from .library import numbered

if TYPE_CHECKING:
    from .request import Request

# Of the files that images.py reads
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".tga", ".gif", ".avif")
# What a batch itself writes into its folder, beside models and results
IDENTITY = "batch.json"
SHEET = "contact-sheet.png"
THUMBNAILS = ".thumbnails"
_SHEETS = re.compile(r"contact-sheet(-\d+)?\.png")
_MANIFESTS = (".csv", ".jsonl")
_MODELS = (".glb", ".blend")
_LONGEST_NAME = 255 - len(".01234567.part")  # as it is called while it is written
_OWN = ("images", "output", "endpoint", "mesh", "cut_out")  # every other column is a parameter
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Row:
    """One model of a batch.

    `number` is the line in the manifest, or counts from 1; `place` says it in words. `output` is the model's path below the
    batch's folder, with forward slashes, by which the row is known from one run to the next.
    """

    number: int
    place: str
    output: str
    request: Request

    @property
    def outputs(self) -> list[str]:
        """The paths of all models that it makes."""
        from ..endpoints import get

        asked = get(self.request.endpoint).parse(self.request.parameters)
        paths = [numbered(Path(self.output), n) for n in range(getattr(asked, "number_results", 1))]
        return [path.as_posix() for path in paths]

    @property
    def mark(self) -> str:
        """What tells later whether it still asks for the same: of its parameters and names, of its files' sizes and times, and
        of their contents."""
        return f"{self._asked}:{self._of_files(_look)}:{self._of_files(_content)}"

    def fits(self, mark: str) -> bool:
        """Whether it asks for the same as the row did that had this mark.

        Folders may be moved: of a file that looks different the content decides. What is gone by now is not compared. A mark that
        tells of no files fits any, as those of older versions do.
        """
        asked, _, files = mark.partition(":")
        looks, _, contents = files.partition(":")
        if asked != self._asked:
            return False
        now = self._of_files(_look)
        return not (looks and now) or looks == now or contents == self._of_files(_content)

    @property
    def _asked(self) -> str:
        from .images import name_of

        asked = self.request
        names = [name_of(str(given)) for given in asked.images]
        mesh = asked.mesh and asked.mesh.name
        return _short([asked.endpoint, names, asked.parameters, mesh, asked.cut_out])

    def _of_files(self, tell: Callable[[Path], object]) -> str:
        """What is told of all its pictures and its mesh, in short; "" where one is gone."""
        given = [*self.request.images, *filter(None, [self.request.mesh])]
        try:
            return _short([tell(one) if isinstance(one, Path) else one for one in given])
        except (OSError, ValueError):  # or its path is none
            return ""


def _short(what: object) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _look(path: Path) -> list[int]:
    known = path.stat()
    return [known.st_size, known.st_mtime_ns]


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Problem(NamedTuple):
    """What is wrong with a row."""

    number: int
    words: str


def source_of(given: Sequence[str]) -> str | None:
    """The folder, pattern or manifest that is given in place of pictures; None if there is none.

    Raises:
        InputError: there is more besides.
    """
    for each in given:
        if _is_source(each):
            if len(given) > 1:
                raise InputError(
                    f"{each} makes a batch, and must be given alone. For several folders or other pictures, write a manifest."
                )
            return each
    return None


def _is_source(given: str) -> bool:
    from .images import reference

    if reference(given) or given.startswith("data:"):
        return False
    if os.path.isdir(given):  # noqa: PTH112  a Path would raise for base64 text, which is too long for one
        return True
    return PurePath(given).suffix.lower() in _MANIFESTS or (
        glob.has_magic(given) and not os.path.exists(given)  # noqa: PTH110
    )


def read_rows(source: str, defaults: Request) -> tuple[list[Row], list[Problem]]:
    """The rows of a folder, a pattern or a manifest, and what is wrong with the others. Files are not looked at.

    `defaults` holds what is asked for where a row says nothing else.

    Raises:
        InputError: there is nothing to read, or it is no manifest.
    """
    path = Path(source)
    if path.suffix.lower() not in _MANIFESTS:
        base = path if path.is_dir() else _fixed_part(source)
        listed = pictures_in(path) if path.is_dir() else _matches(source)
        if not listed:
            raise ImageError(f"There is no picture in {source}. Choose another folder or pattern.")
        return rows_of(listed, base, [defaults])
    rows, problems = _unique(_of_manifest(path, defaults))
    if not rows and not problems:
        raise InputError(f"{source} has no rows. Write one for each model.")
    return rows, problems


def rows_of(
    pictures: Sequence[Path], base: Path, variants: Sequence[Request]
) -> tuple[list[Row], list[Problem]]:
    """The rows for pictures below `base`, one for each of the variants, and what is wrong with the others."""
    return _unique(_of_pictures(pictures, base, variants))


def pictures_in(folder: Path) -> list[Path]:
    """The files in a folder that are called as pictures are, by name. Files of other kinds are nobody's mistake."""
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return []
    return [path for path in found if _is_picture(path)]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file() and not _is_of_a_batch(path)


def _is_of_a_batch(path: Path) -> bool:
    """Whether a batch drew this picture of its models: a model of it is what nobody wants."""
    if path.parent.name == THUMBNAILS:
        return (path.parent.parent / IDENTITY).exists()
    return bool(_SHEETS.fullmatch(path.name)) and (path.parent / IDENTITY).exists()


def sort_out(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Which of several pictures can be read, and the names of those that cannot."""
    from .images import glance

    good, bad = [], []
    for path in paths:
        try:
            glance(path)
        except ImageError:
            bad.append(path.name)
        else:
            good.append(path)
    return good, bad


def refuse(problems: Sequence[Problem], count: int, hint: str = "") -> None:
    """Name every row that cannot be used, if there is one. `hint` says what to do.

    Raises:
        InputError: with all of them in words.
    """
    if problems:
        of_them = "1 row" if len(problems) == 1 else f"{len(problems)} rows"
        first = f"{of_them} of {count} cannot be used. Nothing was started. {hint}".strip()
        lines = [problem.words for problem in sorted(problems)]
        raise InputError("\n  ".join([first, *lines]))


# Folders and patterns ---------------------------------------------------------------------------------------------------


def _fixed_part(pattern: str) -> Path:
    """The folder that all matches of a pattern are in."""
    parts = PurePath(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])


def _matches(pattern: str) -> list[Path]:
    found = map(Path, sorted(glob.glob(pattern, recursive=True)))  # noqa: PTH207  it may be absolute
    return [path for path in found if _is_picture(path)]


def _of_pictures(
    paths: Sequence[Path], base: Path, variants: Sequence[Request]
) -> Iterator[Row | Problem]:
    named = zip(paths, outputs_of(paths, base, len(variants)), strict=True)
    for number, (path, outputs) in enumerate(named, 1):
        place = f"picture {number} ({path.name})"
        for output, asked in zip(outputs, variants, strict=True):
            yield _checked(number, place, output, replace(asked, images=[path]))


def outputs_of(paths: Sequence[Path], base: Path, each: int) -> list[list[str]]:
    """What so many models of each of some pictures are called: as the picture, with its suffix where another one has the name."""
    taken: set[str] = set()
    found = []
    for path in paths:
        inner = path.relative_to(base)
        for output in (inner.with_suffix(".glb"), inner.with_name(f"{inner.name}.glb")):
            names = [numbered(output, turn).as_posix() for turn in range(each)]
            if not taken & {name.casefold() for name in names}:
                break
        taken |= {name.casefold() for name in names}
        found.append(names)
    return found


# Manifests --------------------------------------------------------------------------------------------------------------


def _of_manifest(path: Path, defaults: Request) -> Iterator[Row | Problem]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = _of_csv(file) if path.suffix.lower() == ".csv" else _of_jsonl(file)
            for number, given in lines:
                if isinstance(given, str):
                    yield Problem(number, f"line {number}: {given}")
                else:
                    yield _of_line(number, given, path.parent, defaults)
    except OSError as error:
        raise InputError(
            f"Cannot read {path}: {error.strerror or error}. Check the path."
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}. Save it as UTF-8 text.") from error


def _of_csv(file: Iterable[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Each row with the line that it ends on, or what is wrong with it."""
    lines = iter(file)
    header = next(lines, "")
    # Spreadsheets separate by what their language does not use in numbers
    separator = max(",;\t", key=header.count)
    names = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
    yield from ((1, words) for words in _columns(names))
    if "images" not in names:
        return
    rows = csv.reader(lines, delimiter=separator)
    for cells in rows:
        number = rows.line_num + 1
        if len(cells) > len(names):
            yield number, f"it has {len(cells)} cells, and the header {len(names)}"
        elif any(cell.strip() for cell in cells):
            filled = zip(names, cells, strict=False)
            known = {name: cell.strip() for name, cell in filled if cell.strip()}
            yield (
                number,
                {
                    name: cell if name in _OWN else parameter_value(cell)
                    for name, cell in known.items()
                    if name in _OWN or name in _parameters()
                },
            )


def _columns(names: Sequence[str]) -> Iterator[str]:
    """What is wrong with a header."""
    import difflib

    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"there are {names.count(name)} columns {name!r}"
        elif name not in _OWN and name not in _parameters():
            near = difflib.get_close_matches(name, [*_OWN, *_parameters()], n=1)
            yield f"no endpoint has a parameter {name!r}" + (f"; is it {near[0]}?" if near else "")
    if "images" not in names:
        yield "there is no column 'images'"


def _parameters() -> set[str]:
    """The names of all parameters, documented and common ones."""
    found = set()
    for schema in schemas().values():
        for documented, prop in schema["properties"].items():
            found |= {documented, prop["name"]}
    return found


def _of_jsonl(file: Iterable[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            given = json.loads(line)
        except ValueError as error:
            yield number, f"it is no JSON: {error}"
        else:
            yield number, given if isinstance(given, dict) else "it is no JSON object"


def _of_line(number: int, given: dict[str, Any], base: Path, defaults: Request) -> Row | Problem:
    place = f"line {number}"
    given = {name: value for name, value in given.items() if value is not None}
    try:
        asked = replace(
            defaults,
            endpoint=_text(given, "endpoint") or defaults.endpoint,
            images=_pictures(given.get("images"), base),
            parameters=defaults.parameters
            | {name: value for name, value in given.items() if name not in _OWN},
            mesh=base / _text(given, "mesh") if given.get("mesh") else defaults.mesh,
            cut_out=_boolean(given.get("cut_out", defaults.cut_out)),
        )
        return _checked(number, place, _text(given, "output"), asked)
    except TrellisError as error:
        return Problem(number, f"{place}: {error.message}")


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name) or ""
    if not isinstance(value, str):
        raise ParameterError(f"{name} must be a text, not {value!r}.", parameter=name)
    return value


def _pictures(given: Any, base: Path) -> list[Path | str]:
    """Paths from the manifest's folder on, and references as they are."""
    from .images import reference

    several = given.split("|") if isinstance(given, str) else given
    if not isinstance(several, list) or not all(isinstance(each, str) for each in several):
        raise ImageError("There is no image. Name one in 'images', or several views.")
    names = [each.strip() for each in several if each.strip()]
    return [name if reference(name) else base / name for name in names]


def _boolean(value: Any) -> bool:
    if str(value).lower() not in _BOOLEANS:
        raise ParameterError(f"cut_out must be true or false, not {value!r}.", parameter="cut_out")
    return _BOOLEANS[str(value).lower()]


def parameter_value(text: str) -> Any:
    """A parameter's value as it was typed: JSON, or else a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


# Rows -------------------------------------------------------------------------------------------------------------------


def _checked(number: int, place: str, output: str, asked: Request) -> Row | Problem:
    """The row, if endpoint, parameters and names are right."""
    from ..endpoints import get
    from .images import name_of
    from .request import check_count

    try:
        model = get(asked.endpoint)
        check_count(model, len(asked.images))
        model.parse(asked.parameters)
        name = output or f"{PurePath(name_of(str(asked.images[0]))).stem}.glb"
        return Row(number, place, _output(name), asked)
    except TrellisError as error:
        return Problem(number, f"{place}: {error.message}")


def _output(name: str) -> str:
    path = PurePath(name if name.lower().endswith(_MODELS) else f"{name}.glb")
    if path.is_absolute() or path.drive or ".." in path.parts or path.stem in _MODELS:
        raise OutputError(
            f"The output {name!r} must be a name, or a path below the batch's folder."
        )
    for part in path.parts:
        if "\0" in part or _length(part) > _LONGEST_NAME:
            raise OutputError(
                f"The output {name!r} cannot name a file: it must be text, each part of {_LONGEST_NAME} bytes at most."
            )
    return path.as_posix()


def _length(name: str) -> int:
    """How much of a name's place it takes: bytes, on Windows letters. More than there is where it is no text at all."""
    try:
        return len(name.encode("utf-16-le")) // 2 if sys.platform == "win32" else len(name.encode())
    except UnicodeEncodeError:
        return _LONGEST_NAME + 1


def in_the_way(folder: Path, row: Row) -> str | None:
    """Why nothing can be written where a row's models belong below `folder`, in words; None if it can, as far as is seen."""
    for output in row.outputs:
        if os.path.isdir(folder / output):  # noqa: PTH112  a Path would raise where it is too long
            return f"{row.place}: {folder / output} is a folder. Name another output."
        for parent in [*PurePosixPath(output).parents][:-1]:
            if os.path.isfile(folder / parent):  # noqa: PTH113
                return f"{row.place}: {folder / parent} is no folder. Name another output."
    return None


def _unique(found: Iterable[Row | Problem]) -> tuple[list[Row], list[Problem]]:
    """Rows and problems apart, two rows of one output among the latter, or with one below that of the other."""
    rows: list[Row] = []
    problems: list[Problem] = []
    taken: dict[str, Row] = {}
    folders: dict[str, Row] = {}
    for each in found:
        if isinstance(each, Problem):
            problems.append(each)
            continue
        names = {name.casefold(): name for name in each.outputs}  # as most file systems see it
        above = {
            str(folder): name for name in names for folder in [*PurePosixPath(name).parents][:-1]
        }
        if double := next((name for name in names if name in taken), None):
            words = f"{names[double]} is the output of {taken[double].place} too."
        elif double := next((name for name in names if name in folders), None):
            words = f"{names[double]} is a folder for the output of {folders[double].place}."
        elif double := next((name for name in above if name in taken), None):
            words = f"{names[above[double]]} is below the output of {taken[double].place}."
        else:
            rows.append(each)
            taken |= dict.fromkeys(names, each)
            folders |= dict.fromkeys(above, each)
            continue
        problems.append(Problem(each.number, f"{each.place}: {words}"))
    return rows, problems
