# SPDX-License-Identifier: GPL-3.0-or-later
"""The one entry for people who work on the project; `python build.py` lists the commands.

Needs the standard library alone. Each command runs in a virtual environment of its own making (.ci/venvs.py). The project itself
is never installed: the repository is on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import rmtree

sys.path.append(str(Path(__file__).resolve().parent / ".ci"))
import venvs
from venvs import BLENDERS, MORE_BLENDERS, WITH_ENGINE, BuildError, say

ROOT = Path(__file__).resolve().parent
EXAMPLE = ROOT / "docs" / "images" / "robot.png"
SOURCES = [str(ROOT), str(ROOT / ".ci")]  # where modules are looked for
PACKAGE_TESTS = "tests/installed"


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
    python, out = venvs.with_blender(), ROOT / "demo"
    out.mkdir(exist_ok=True)
    made = [str(out / name) for name in ("model.glb", "model.blend", "preview.png")]
    with apart() as env:
        status = run(python, str(ROOT / ".ci" / "demo.py"), str(EXAMPLE), *made, env=env)
    if status == 0:
        say("\n".join(["The model, its scene and a picture of it:", *made]))
    return status


def test(options: argparse.Namespace) -> int:
    """Runs the tests; what follows -- goes to pytest."""
    if options.all:
        return test_everywhere(options)
    chosen = options.blender or [venvs.default_blender()]
    if "all" in chosen:
        chosen = [blender for blender in BLENDERS if venvs.find_python(BLENDERS[blender][0])]
        for blender in BLENDERS.keys() - set(chosen):
            say(f"Left out: Blender {blender}, for want of Python {BLENDERS[blender][0]}")
    pythons = {blender: python_for(blender) for blender in chosen}
    worst, summaries = 0, []
    for blender, python in pythons.items():
        say(f"Testing with Blender {blender}")
        status, summary = run_pytest(python, options.pytest)
        worst = worst or status
        summaries.append(f"Blender {blender}: {summary}")
    if len(pythons) > 1:
        say("\n".join(summaries))
    return worst


def python_for(blender: str) -> Path:
    """The Python in which a Blender's tests run: one of them has TRELLIS.2's libraries too."""
    return venvs.with_engine() if blender == WITH_ENGINE else venvs.with_blender(blender)


def test_everywhere(options: argparse.Namespace) -> int:
    """The tests with every Blender, those of the package where these alone apply; then a table of how it went.

    As many Blenders at once as there are processors, since much of the tests' time is waiting; then the windows, one by one.
    """
    blenders = BLENDERS | MORE_BLENDERS
    worst, rows = 0, [["Blender", "Python", "Tests", "Result"]]
    tests = {name: options.pytest if name in BLENDERS else [PACKAGE_TESTS] for name in blenders}
    # The longest first; in the table 4.2.0 stands before 4.2's newest
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        begun = {name: pool.submit(test_with, name, tests[name]) for name in blenders}
    for name in sorted(blenders, key=lambda name: (name[:3], -len(name))):
        try:
            status, said = begun[name].result()
        except OSError as error:
            status, said = 1, f"not run: {error}"
        worst = worst or status
        rows.append([name, blenders[name][0], " ".join(tests[name]) or "all", said])
    for program in options.window:
        try:
            status = window(window_options(program))
            said = "failed" if status else "passed"
        except (BuildError, OSError) as error:
            status, said = 1, f"not run: {error}"
        worst = worst or status
        rows.append([program, "its own", "in the window", said])
    if not options.window:
        rows.append(["a window", "", "in the window", "not run: no Blender was named by --window"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return worst


def test_with(blender: str, tests: Sequence[str]) -> tuple[int, str]:
    """pytest's exit status and last line with one Blender, or why there is none; that a Python is not here is no failure."""
    version = (BLENDERS | MORE_BLENDERS)[blender][0]
    if not venvs.find_python(version):
        return 0, f"not run: there is no Python {version} here"
    say(f"Testing with Blender {blender}")
    try:
        python = python_for(blender)
    except (BuildError, subprocess.CalledProcessError) as error:
        return 1, f"not run: {error}"
    status, summary = run_pytest(python, tests, prefix=f"{blender:<6} ")
    if blender in MORE_BLENDERS:
        rmtree(python.parents[1])  # 1 GB that nothing else needs
    return status, summary


def window_options(program: str) -> argparse.Namespace:
    """Those of `window` for a Blender, all else by default."""
    parser = argparse.ArgumentParser()
    window_arguments(parser)
    return parser.parse_args(["--blender", program])


def run_pytest(python: Path, arguments: Sequence[str], prefix: str = "") -> tuple[int, str]:
    """pytest's exit status and its last line, while all it says is shown, each line behind `prefix`."""
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
            say(prefix + line.rstrip("\n"))
            summary = line.strip() or summary
    return pytest.returncode, summary


def lint(options: argparse.Namespace) -> int:
    """Checks style, layout, types and workflows."""
    python = venvs.with_engine()
    checks = [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]]
    workflows = map(str, sorted(ROOT.glob(".github/workflows/*.yml")))
    checks += [["check_jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows]]
    return max([run(python, "-m", *check) for check in checks])


def bench(options: argparse.Namespace) -> int:
    """Runs every measurement, one after another; with --write makes docs/benchmarks.md of them."""
    wanted = ["--write"] * options.write + [f"--only={name}" for name in options.only]
    with apart() as env:
        script = str(ROOT / "tests" / "bench" / "page.py")
        return run(venvs.with_engine(), script, *wanted, env=env)


def haul(options: argparse.Namespace) -> int:
    """Carries many Draft jobs through in a row, and fails if memory, handles or files grow (Linux)."""
    with apart() as env:
        script = str(ROOT / "tests" / "haul" / "haul.py")
        return run(venvs.with_blender(), script, "--jobs", str(options.jobs), env=env)


def batch(options: argparse.Namespace) -> int:
    """Kills a batch of the command line ten times and resumes it, and fails if a row was lost or made twice."""
    with apart() as env:
        script = str(ROOT / "tests" / "haul" / "batch.py")
        return run(venvs.with_blender(), script, "--rows", str(options.rows), env=env)


def cluster(options: argparse.Namespace) -> int:
    """Tries, and measures, the server on a Ray cluster of simulated machines."""
    python, folder = venvs.with_ray(), ROOT / "tests" / "cluster"
    with apart() as env:
        tests = run(python, "-m", "pytest", "-q", str(folder), env=env)
        return tests or run(python, str(folder / "figures.py"), env=env)


def fuzz(options: argparse.Namespace) -> int:
    """Tries mutated models and replies, --count of each; exit status 1 where one did harm."""
    command = ["-m", "hostile.run", f"--count={options.count}", f"--seed={options.seed}"]
    with apart() as env:
        python, paths = venvs.with_blender(), os.pathsep.join([str(ROOT), str(ROOT / "tests")])
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
    from release.package import this_platform, zip_name

    if release("package", f"--platform={this_platform()}"):
        raise BuildError("The package could not be made: see above.")
    return ROOT / "dist" / zip_name(this_platform())


def docs(options: argparse.Namespace) -> int:
    """Remakes the files that are generated from the endpoints."""
    return run(venvs.with_blender(), "-m", "blender_trellis.endpoints.generate")


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
    return run(venvs.with_blender(), "-m", "release", *arguments)


# -- Command line --------------------------------------------------------------------------------

WINDOW_SWITCHES = {
    "visible": "use the screen at hand, and its mouse, even if Xvfb could make another one",
    "pictures": "no tests: take the pictures of docs/images anew",
    "bench": "no tests: measure how long the interface stands still",
}


def test_arguments(entry: argparse.ArgumentParser) -> None:
    entry.usage = (
        "build.py test [--blender X.Y]... | --all [--window PROGRAM]... [-- PYTEST ARGUMENTS]"
    )
    entry.add_argument(
        "--all",
        action="store_true",
        help="test with every Blender from 4.2.0 on, and show a table",
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


def window_arguments(entry: argparse.ArgumentParser) -> None:
    entry.add_argument("--blender", help="the program, 4.2 or newer")
    entry.add_argument("--package", type=Path, help="the zip to try (default: a new one)")
    for name, text in WINDOW_SWITCHES.items():
        entry.add_argument(f"--{name}", action="store_true", help=text)
    entry.add_argument("tests", nargs="*", help="modules of tests/window (default: all tests)")


def bench_arguments(entry: argparse.ArgumentParser) -> None:
    entry.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    entry.add_argument(
        "--only",
        action="append",
        default=[],
        help="this measurement, as draft for bench_draft.py; may be given several times",
    )


def package_arguments(entry: argparse.ArgumentParser) -> None:
    entry.add_argument("--platform", action="append", help="as Blender calls it: linux-x64")


def repository_arguments(entry: argparse.ArgumentParser) -> None:
    entry.add_argument("--url", required=True, help="where people will find the folder")


def number_arguments(entry: argparse.ArgumentParser, **numbers: int) -> None:
    for name, number in numbers.items():
        entry.add_argument(f"--{name}", type=int, default=number, help="default: %(default)s")


def no_arguments(entry: argparse.ArgumentParser) -> None:
    pass


COMMANDS: dict[
    Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]
] = {  # and what each is told
    demo: no_arguments,
    test: test_arguments,
    fuzz: partial(number_arguments, count=10_000, seed=1),
    window: window_arguments,
    lint: no_arguments,
    bench: bench_arguments,
    haul: partial(number_arguments, jobs=500),
    batch: partial(number_arguments, rows=300),
    cluster: no_arguments,
    package: package_arguments,
    repository: repository_arguments,
    lock: no_arguments,
    docs: no_arguments,
}


def main(arguments: Sequence[str]) -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - people start this with what they have
        sys.exit("build.py needs Python 3.11 or newer.")
    own, passed_on = list(arguments), list[str]()
    if "--" in own:
        own, passed_on = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(prog="build.py", description=(__doc__ or "").split("\n\n")[0])
    parser.set_defaults(command=None, pytest=passed_on)
    commands = parser.add_subparsers(metavar="COMMAND")
    for command, add_arguments in COMMANDS.items():
        entry = commands.add_parser(
            command.__name__, help=command.__doc__, description=command.__doc__
        )
        entry.set_defaults(command=command)
        add_arguments(entry)
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
