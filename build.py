# SPDX-License-Identifier: GPL-3.0-or-later
"""The one entry for people who work on the project; `python build.py` lists the commands.

Needs the standard library alone. Each command runs in a virtual environment of its own making,
`.venv`, or `.venv-X.Y` for another Blender; a stamp in it says what was installed, so the next
start takes no time and an interrupted set-up is repeated. The project itself is never installed:
the repository is on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

ROOT = Path(__file__).resolve().parent
EXAMPLE = ROOT / "docs" / "images" / "robot.png"
SOURCES = [str(ROOT), str(ROOT / ".ci")]  # where modules are looked for

BLENDERS = {  # the Python each bpy is built for, and the numpy that this Blender ships
    "4.2": ("3.11", "numpy>=1.24,<1.25"),
    "4.5": ("3.11", "numpy>=1.26,<2"),
    "5.0": ("3.11", "numpy>=1.26,<2"),
    "5.2": ("3.13", "numpy>=2.2,<3"),
}
MORE_BLENDERS = {  # in which the package alone is tried: they differ in how they install it
    "4.2.0": BLENDERS["4.2"],
    "4.3": BLENDERS["4.2"],
    "4.4": BLENDERS["4.5"],
    "5.1": BLENDERS["5.2"],
}
PACKAGE_TESTS = "tests/installed"

# The one in whose environment TRELLIS.2 is tested and all types are checked: numpy's stubs judge
# lines differently from version to version, and PyTorch need not be there several times
WITH_ENGINE = "5.0"
RAY_PYTHON = "3.11"  # the oldest that the project runs in
TORCH_FOR_CPUS = "https://download.pytorch.org/whl/cpu"  # elsewhere Linux gets gigabytes of CUDA


DEMO = """
import os, sys
from pathlib import Path

from blender_trellis import api
from blender_trellis.scene.importer import write_blend
from blender_trellis.services import sidecar

said = []

def show(event):
    done = round(40 * (event.fraction or 0))
    line = f"[{'#' * done}{'.' * (40 - done)}] {event.message or event.stage or event.state}"
    if sys.stdout.isatty():
        print(f"\\r{line:<90}", end="", flush=True)
    elif line not in said:
        print(line, flush=True)
        said.append(line)

image, glb, blend, preview = map(Path, sys.argv[1:])
try:
    result = api.generate([image], endpoint="local/draft", output=glb, on_event=show)
finally:
    sidecar.stop(Path(os.environ["TRELLIS_HOME"]))
print("\\nMaking the scene and its picture", flush=True)
write_blend(
    result.files[0], api.recipe_of(result), blend, name=result.title, preview=(preview, 768)
)
"""


class BuildError(Exception):
    """Something outside the project is missing; the message says what to do about it."""


# -- Virtual environments ------------------------------------------------------------------------


def python_candidates(version: str) -> Iterator[list[str]]:
    """Command lines that may start Python `version` ("3.13"), the running one first."""
    yield [str(getattr(sys, "_base_executable", sys.executable))]
    yield [f"python{version}"]
    if os.name == "nt":
        yield ["py", f"-{version}"]
    for pattern in (
        f".pyenv/versions/{version}.*/bin/python",
        f".pyenv/pyenv-win/versions/{version}.*/python.exe",
        f".local/share/uv/python/cpython-{version}.*/bin/python{version}",
        f"AppData/Roaming/uv/python/cpython-{version}.*/python.exe",
    ):
        yield from ([str(found)] for found in sorted(Path.home().glob(pattern), reverse=True))


def find_python(version: str) -> tuple[list[str], str] | None:
    """The command line of a Python `version` that truly starts, and its full version text."""
    # A version manager's shim may exist and fail; bpy has no free-threaded form.
    probe = "import ensurepip, venv, sys, sysconfig; print(sys.version, end=''); " + (
        f"sys.exit(sys.version_info[:2] != ({version.replace('.', ', ')}) or "
        "bool(sysconfig.get_config_var('Py_GIL_DISABLED')))"
    )
    for command in python_candidates(version):
        try:
            done = subprocess.run(
                [*command, "-c", probe], capture_output=True, text=True, check=False
            )
        except OSError:
            continue
        if done.returncode == 0:
            return command, done.stdout
    return None


def default_blender() -> str:
    """The newest Blender that the running Python can hold, else the newest with a Python here."""
    newest_first = list(reversed(BLENDERS))
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    own = [blender for blender in newest_first if BLENDERS[blender][0] == running]
    return next(
        (blender for blender in own + newest_first if find_python(BLENDERS[blender][0])),
        newest_first[0],
    )


def read_toml(name: str) -> dict[str, Any]:
    import tomllib  # from Python 3.11 on; here, so that an older Python gets as far as main()

    return tomllib.loads((ROOT / name).read_text("utf-8"))


def requirements(*extras: str) -> list[str]:
    """What pyproject.toml asks for, with the named extras."""
    project = read_toml("pyproject.toml")["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(name for extra in extras for name in optional[extra])]


def environment(blender: str | None = None) -> Path:
    """The Python of the virtual environment for a Blender, made or mended first if need be."""
    default = default_blender()
    blender = blender or default
    version, numpy = (BLENDERS | MORE_BLENDERS)[blender]
    folder = ROOT / (".venv" if blender == default else f".venv-{blender}")
    wanted = [f"bpy=={blender}.*", numpy, *requirements("local", "keychain", "dev")]
    return made(folder, version, wanted, f"Blender {blender} as a module of Python {version}")


def cluster_environment() -> Path:
    """The Python of an environment with Ray and all that the sidecar needs, without Blender."""
    wanted = requirements("local", "keychain", "dev", "ray")
    return made(ROOT / ".venv-ray", RAY_PYTHON, wanted, f"Ray with Python {RAY_PYTHON}")


def made(folder: Path, version: str, wanted: Sequence[str], what: str) -> Path:
    """The Python of a virtual environment that holds `wanted`; made or mended first if need be."""
    found = find_python(version)
    if found is None:
        raise BuildError(
            f"{what} needs Python {version}, and none was found. Install Python "
            f"{version} (from python.org, your system's packages, pyenv or uv) and try again."
        )
    command, full_version = found
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp, mark = folder / "build.stamp", stamp_of([full_version, *wanted])
    if python.exists() and stamp.exists() and stamp.read_text("utf-8") == mark:
        return python

    say(f"Setting up {folder.name}: {what} (1 GB)")
    subprocess.run([*command, "-m", "venv", "--clear", str(folder)], check=True)
    pip_install(python, wanted)
    stamp.write_text(mark, "utf-8")
    return python


def engine_environment() -> Path:
    """The environment of `WITH_ENGINE`, with PyTorch for CPUs and what else TRELLIS.2 needs."""
    python = environment(WITH_ENGINE)
    wanted = [BLENDERS[WITH_ENGINE][1], *requirements("trellis2")]
    stamp, mark = python.parents[1] / "engine.stamp", stamp_of(wanted)
    if not stamp.exists() or stamp.read_text("utf-8") != mark:
        say("Adding PyTorch for CPUs and TRELLIS.2's libraries (1 GB)")
        # PyTorch by itself, so that nothing else is looked for in its index; then all that it depends on
        torch = next(name for name in wanted if name.startswith("torch"))
        pip_install(python, ["--no-deps", "--extra-index-url", TORCH_FOR_CPUS, torch])
        pip_install(python, wanted)
        stamp.write_text(mark, "utf-8")
    return python


def stamp_of(wanted: Sequence[str]) -> str:
    """What an environment that was made of this is known by."""
    return hashlib.sha256("\n".join(wanted).encode()).hexdigest()


def pip_install(python: Path, wanted: Sequence[str]) -> None:
    """Installs with pip, showing a line for each large download; pip writes errors to stderr itself."""
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--progress-bar=off", *wanted]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pip:
        for line in pip.stdout or ():
            if "Downloading " in line and " MB)" in line:
                say("  " + line.strip())
    if pip.returncode:
        raise BuildError("pip could not install what is needed: see its message above.")


def say(text: str) -> None:
    print(text, flush=True)


def run(python: Path, *arguments: str, env: dict[str, str] | None = None) -> int:
    """Runs the environment's Python in the repository; gives its exit status."""
    env = {**(env or os.environ), "PYTHONPATH": os.pathsep.join(SOURCES)}
    return subprocess.call([str(python), *arguments], cwd=ROOT, env=env)


@contextmanager
def apart() -> Iterator[dict[str, str]]:
    """An environment without the user's keys and settings, whose Blender profile and jobs are in
    temporary folders: reading factory settings in the user's own profile would remove the wheels
    of every extension in it."""
    theirs = ("FAL_", "RUNWARE_", "TRELLIS_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        env["BLENDER_USER_RESOURCES"] = str(Path(scratch, "blender"))
        env["TRELLIS_HOME"] = str(Path(scratch, "trellis"))
        env["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"
        yield env


# -- Commands ------------------------------------------------------------------------------------


def demo(options: argparse.Namespace) -> int:
    """Makes a model from the example image, with a .blend and a picture of it."""
    python, out = environment(), ROOT / "demo"
    out.mkdir(exist_ok=True)
    made = [str(out / name) for name in ("model.glb", "model.blend", "preview.png")]
    with apart() as env:
        status = run(python, "-c", DEMO, str(EXAMPLE), *made, env=env)
    if status == 0:
        say("\n".join(["The model, its scene and a picture of it:", *made]))
    return status


def test(options: argparse.Namespace) -> int:
    """Runs the tests; what follows -- goes to pytest."""
    if options.all:
        return test_everywhere(options)
    chosen = options.blender or [default_blender()]
    if "all" in chosen:
        chosen = [blender for blender in BLENDERS if find_python(BLENDERS[blender][0])]
        for blender in BLENDERS.keys() - set(chosen):
            say(f"Left out: Blender {blender}, for want of Python {BLENDERS[blender][0]}")
    pythons = {
        blender: engine_environment() if blender == WITH_ENGINE else environment(blender)
        for blender in chosen
    }
    worst, summaries = 0, []
    for blender, python in pythons.items():
        say(f"Testing with Blender {blender}")
        status, summary = run_pytest(python, options.pytest)
        worst = worst or status
        summaries.append(f"Blender {blender}: {summary}")
    if len(pythons) > 1:
        say("\n".join(summaries))
    return worst


def test_everywhere(options: argparse.Namespace) -> int:
    """The tests with every Blender, those of the package where these alone apply; then a table of how it went."""
    blenders = BLENDERS | MORE_BLENDERS
    worst, rows = 0, [["Blender", "Python", "Tests", "Result"]]
    for blender in sorted(
        blenders, key=lambda name: (name[:3], -len(name))
    ):  # 4.2.0 before 4.2's newest
        tests = options.pytest if blender in BLENDERS else [PACKAGE_TESTS]
        status, said = test_with(blender, tests)
        worst = worst or status
        rows.append([blender, blenders[blender][0], " ".join(tests) or "all", said])
    for program in options.window:
        status = window(window_options(program))
        worst = worst or status
        rows.append([program, "its own", "in the window", "failed" if status else "passed"])
    if not options.window:
        rows.append(["a window", "", "in the window", "not run: no Blender was named by --window"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return worst


def test_with(blender: str, tests: Sequence[str]) -> tuple[int, str]:
    """pytest's exit status and last line with one Blender, or why there is none; that a Python is not here is no failure."""
    version = (BLENDERS | MORE_BLENDERS)[blender][0]
    if not find_python(version):
        return 0, f"not run: there is no Python {version} here"
    say(f"Testing with Blender {blender}")
    try:
        python = engine_environment() if blender == WITH_ENGINE else environment(blender)
    except (BuildError, subprocess.CalledProcessError) as error:
        return 1, f"not run: {error}"
    status, summary = run_pytest(python, tests)
    if blender in MORE_BLENDERS:
        rmtree(python.parents[1])  # 1 GB that nothing else needs
    return status, summary


def window_options(program: str) -> argparse.Namespace:
    """Those of `window` for a Blender, all else by default."""
    parser = argparse.ArgumentParser()
    window_arguments(parser)
    return parser.parse_args(["--blender", program])


def run_pytest(python: Path, arguments: Sequence[str]) -> tuple[int, str]:
    """pytest's exit status and its last line, while all it says is shown."""
    colour = ["--color=yes"] if sys.stdout.isatty() else []
    command = [str(python), "-m", "pytest", *colour, *arguments]
    summary = ""
    with (
        apart() as env,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**env, "PYTHONPATH": os.pathsep.join(SOURCES)},
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as pytest,
    ):
        for line in pytest.stdout or ():
            say(line.rstrip("\n"))
            summary = line.strip() or summary
    return pytest.returncode, summary


def lint(options: argparse.Namespace) -> int:
    """Checks style, layout, types and workflows."""
    python = engine_environment()
    checks = [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]]
    workflows = map(str, sorted(ROOT.glob(".github/workflows/*.yml")))
    checks += [["check_jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows]]
    return max([run(python, "-m", *check) for check in checks])


def bench(options: argparse.Namespace) -> int:
    """Runs every measurement, one after another; with --write makes docs/benchmarks.md of them."""
    wanted = ["--write"] * options.write + [f"--only={name}" for name in options.only]
    with apart() as env:
        script = str(ROOT / "tests" / "bench" / "page.py")
        return run(engine_environment(), script, *wanted, env=env)


def haul(options: argparse.Namespace) -> int:
    """Carries many Draft jobs through in a row, and fails if memory, handles or files grow (Linux)."""
    with apart() as env:
        script = str(ROOT / "tests" / "haul" / "haul.py")
        return run(environment(), script, "--jobs", str(options.jobs), env=env)


def batch(options: argparse.Namespace) -> int:
    """Kills a batch of the command line ten times and resumes it, and fails if a row was lost or made twice."""
    with apart() as env:
        script = str(ROOT / "tests" / "haul" / "batch.py")
        return run(environment(), script, "--rows", str(options.rows), env=env)


def cluster(options: argparse.Namespace) -> int:
    """Tries, and measures, the server on a Ray cluster of simulated machines."""
    python, folder = cluster_environment(), ROOT / "tests" / "cluster"
    with apart() as env:
        tests = run(python, "-m", "pytest", "-q", str(folder), env=env)
        return tests or run(python, str(folder / "figures.py"), env=env)


def fuzz(options: argparse.Namespace) -> int:
    """Tries mutated models and replies, --count of each; exit status 1 where one did harm."""
    command = ["-m", "hostile.run", f"--count={options.count}", f"--seed={options.seed}"]
    with apart() as env:
        python, paths = environment(), os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        return subprocess.call([str(python), *command], cwd=ROOT, env=env | {"PYTHONPATH": paths})


def window(options: argparse.Namespace) -> int:
    """Tries the package in the window of a real Blender, which --blender names."""
    if options.blender is None:
        raise BuildError(
            "Name the Blender whose window is to be tried, 4.2 or newer: "
            "build.py window --blender /path/to/blender"
        )
    package = options.package or package_of_this_computer()
    command = [sys.executable, str(ROOT / "tests" / "window" / "run.py"), *options.tests]
    command += ["--blender", options.blender, "--package", str(package)]
    command += [f"--{name}" for name in WINDOW_SWITCHES if getattr(options, name)]
    return subprocess.call(command)


def package_of_this_computer() -> Path:
    """Its zip in dist/, made anew."""
    sys.path += SOURCES
    from release.package import this_platform, zip_name  # a copy of this file alone can do the rest

    if release("package", f"--platform={this_platform()}"):
        raise BuildError("The package could not be made: see above.")
    return ROOT / "dist" / zip_name(this_platform())


def docs(options: argparse.Namespace) -> int:
    """Remakes the files that are generated from the endpoints."""
    return run(environment(), "-m", "blender_trellis.endpoints.generate")


def package(options: argparse.Namespace) -> int:
    """Makes the extension's zips, for all platforms or those that --platform names, in dist/."""
    return release("package", *(f"--platform={name}" for name in options.platform or ()))


def repository(options: argparse.Namespace) -> int:
    """Makes dist/repository: all zips, with an index that Blender updates from, to be put at --url."""
    return release("repository", f"--url={options.url}")


def lock(options: argparse.Namespace) -> int:
    """Takes the newest versions of what is bundled into .ci/release/wheels.toml and docs/licences.md."""
    return release("lock")


def release(*arguments: str) -> int:
    return run(environment(), "-m", "release", *arguments)


NUMBERS = {haul: {"jobs": 500}, batch: {"rows": 300}, fuzz: {"count": 10_000, "seed": 1}}

WINDOW_SWITCHES = {
    "visible": "use the screen at hand, and its mouse, even if Xvfb could make another one",
    "pictures": "no tests: take the pictures of docs/images anew",
    "bench": "no tests: measure how long the interface stands still",
}


def number_arguments(entry: argparse.ArgumentParser, numbers: dict[str, int]) -> None:
    for name, number in numbers.items():
        entry.add_argument(f"--{name}", type=int, default=number, help="default: %(default)s")


def window_arguments(entry: argparse.ArgumentParser) -> None:
    entry.add_argument("--blender", help="the program, 4.2 or newer")
    entry.add_argument("--package", type=Path, help="the zip to try (default: a new one)")
    for name, text in WINDOW_SWITCHES.items():
        entry.add_argument(f"--{name}", action="store_true", help=text)
    entry.add_argument("tests", nargs="*", help="modules of tests/window (default: all tests)")


# -- Command line --------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - people start this with what they have
        sys.exit("build.py needs Python 3.11 or newer.")
    own, passed_on = list(arguments), list[str]()
    if "--" in own:
        own, passed_on = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(prog="build.py", description=(__doc__ or "").split("\n\n")[0])
    parser.set_defaults(command=None, pytest=passed_on)
    commands = parser.add_subparsers(metavar="COMMAND")
    for command in (
        demo,
        test,
        fuzz,
        window,
        lint,
        bench,
        haul,
        batch,
        cluster,
        package,
        repository,
        lock,
        docs,
    ):
        entry = commands.add_parser(
            command.__name__, help=command.__doc__, description=command.__doc__
        )
        entry.set_defaults(command=command)
        if command is test:
            entry.usage = "build.py test [--blender X.Y]... | --all [--window PROGRAM]... [-- PYTEST ARGUMENTS]"
            entry.add_argument(
                "--all",
                action="store_true",
                help="test with every Blender from 4.2.0 on, one after another, and show a table",
            )
            entry.add_argument(
                "--window",
                action="append",
                default=[],
                metavar="PROGRAM",
                help="with --all: try this Blender's window too; may be given several times",
            )
            entry.add_argument(
                "--blender",
                action="append",
                choices=[*BLENDERS, "all"],
                help="test with this Blender; may be given several times (default: that of .venv)",
            )
        elif command is window:
            window_arguments(entry)
        elif command is bench:
            entry.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
            entry.add_argument(
                "--only",
                action="append",
                default=[],
                help="this measurement, as draft for bench_draft.py; may be given several times",
            )
        elif command in NUMBERS:
            number_arguments(entry, NUMBERS[command])
        elif command is package:
            entry.add_argument("--platform", action="append", help="as Blender calls it: linux-x64")
        elif command is repository:
            entry.add_argument("--url", required=True, help="where people will find the folder")
    options = parser.parse_args(own)
    if options.command is None:
        parser.print_help()
        return 0
    if passed_on and options.command is not test:
        parser.error("only test takes arguments after --")
    try:
        return int(options.command(options))
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
