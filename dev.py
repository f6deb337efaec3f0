#!/usr/bin/env python3
"""Everything a fresh clone needs, with nothing but Python: `python3 dev.py VERB`.

What it decides: where the environment lives (.venv), when it is current (a stamp over the lock
files, pyproject.toml, the interpreter and this folder's path), and what "the tests" are.
Laws: only hash-checked wheels named in a lock file are installed; a check that fails stops the
run; a good `test` ends with pytest's summary line. Its test file is tests/unit/test_dev.py.
It leaves out what people run every day: that is the kvnode command.
"""

from __future__ import annotations  # an older Python must get as far as refuse_old_python

import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

PYTHON = Path(sys.executable).resolve()
"""The interpreter behind any environment that this runs in: .venv cannot be made from itself."""
ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
LOCKS = {"run": ROOT / "requirements.lock", "dev": ROOT / "requirements-dev.lock"}
UV = "uv==0.13.9"

CHECKS = (
    ("lint", "ruff", "check", "."),
    ("format", "ruff", "format", "--check", "."),
    ("imports", "lint-imports"),
    ("generated code", "python", "proto/generate.py", "--check"),
    ("types", "mypy"),
)
"""What runs before pytest, quickest first."""

PURE = ("tests/property", "tests/sim", "tests/unit/core")
"""Tests that open no port and start no node: they are spread over the machine's cores."""
SPREAD = ("--numprocesses", "auto", "--maxprocesses", "8", "--dist", "worksteal")


def refuse_old_python(version: tuple[int, ...]) -> None:
    """Exit with one line unless `version` will do."""
    if version < (3, 11):
        found = ".".join(str(part) for part in version)
        sys.exit(f"kvnode needs Python 3.11 or newer; {sys.executable} is {found}")


def stamp_of(kind: str) -> str:
    """Return what a current environment of `kind` was built from."""
    digest = hashlib.sha256(f"{sys.version_info[:3]} {PYTHON} {ROOT}\n".encode())
    for path in (LOCKS[kind], ROOT / "pyproject.toml"):
        digest.update(path.read_bytes())
    return f"{kind} {digest.hexdigest()}"


def is_current(kind: str) -> bool:
    """Tell whether .venv holds `kind`; the dev environment holds all of the run one."""
    stamp = VENV / "kvnode-stamp"
    return stamp.exists() and stamp.read_text() in (stamp_of(kind), stamp_of("dev"))


def setup(kind: str) -> None:
    """Make .venv hold exactly the lock file of `kind` and this project; do nothing if it does."""
    with open(__file__) as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two terminals may begin at once
        if not is_current(kind):
            with step(f"setting up .venv from {LOCKS[kind].name}"):
                make_venv()
                install(kind)
            (VENV / "kvnode-stamp").write_text(stamp_of(kind))


def make_venv() -> None:
    """Create .venv anew: an environment of another Python or place cannot be mended."""
    if importlib.util.find_spec("ensurepip") is None:
        advice = "on Debian or Ubuntu: apt-get install python3-venv"
        sys.exit(f"{PYTHON} lacks ensurepip, without which it makes no environments; {advice}")
    run(str(PYTHON), "-m", "venv", "--clear", str(VENV))


def install(kind: str) -> None:
    """Install the locked wheels, then this project in place, asking no index for anything else."""
    pip = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps")
    locked = ("--require-hashes", "--only-binary", ":all:", "--requirement", str(LOCKS[kind]))
    run("python", *pip, *locked)
    run("python", *pip, "--no-index", "--no-build-isolation", "--editable", str(ROOT))


class step:  # noqa: N801 - reads as a statement
    """Names what is being done, and says how long it took."""

    def __init__(self, name: str) -> None:
        self.name, self.began = name, time.monotonic()
        print(f"-- {name}", flush=True)  # other processes write here next

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, *rest: object) -> None:
        verdict = "ok" if kind is None else "failed"
        print(f"-- {self.name}: {verdict}, {time.monotonic() - self.began:.1f} s", flush=True)


def run(tool: str, *args: str) -> None:
    """Run a tool of .venv (or at an absolute path) here; exit with its status unless it is 0."""
    status = subprocess.run([BIN / tool, *args], cwd=ROOT, stdin=subprocess.DEVNULL).returncode
    if status != 0:
        print(f"dev.py: exit status {status} from: {tool} {' '.join(args)}", file=sys.stderr)
        sys.exit(status if status > 0 else 1)


def become(tool: str, *args: str) -> None:
    """Turn this process into a tool of .venv, so that signals and the exit status are its own."""
    os.execv(BIN / tool, [str(BIN / tool), *args])


def up(args: list[str]) -> None:
    """Start a local cluster: kvnode up ARGS."""
    setup("run")
    become("kvnode", "up", *args)


def test(args: list[str]) -> None:
    """Check everything, then run every test; with ARGS: pytest ARGS."""
    setup("dev")
    os.chdir(ROOT)
    for name, *command in CHECKS:
        with step(name):
            run(*command)
    if args:
        become("python", "-m", "pytest", *args)
    with step("pure tests"):
        run("python", "-m", "pytest", *SPREAD, *PURE)
    become("python", "-m", "pytest", *(f"--ignore={path}" for path in PURE))


def prepare(args: list[str]) -> None:
    """Set up .venv and nothing else; --run: without the tools for development."""
    setup("run" if args == ["--run"] else "dev")


def tidy(args: list[str]) -> None:
    """Mend what ruff can mend, and format everything."""
    setup("dev")
    run("ruff", "check", "--fix", *args, ".")
    run("ruff", "format", *args, ".")


def proto(args: list[str]) -> None:
    """Generate the protobuf code anew."""
    setup("dev")
    become("python", str(ROOT / "proto/generate.py"), *args)


def soak(args: list[str]) -> None:
    """Run the long randomised tests: python -m tests.soak ARGS."""
    setup("dev")
    become("python", "-m", "tests.soak", *args)


def lock(args: list[str]) -> None:
    """Renew the lock files from pyproject.toml; --upgrade: take newer releases."""
    setup("dev")
    run("python", "-m", "pip", "install", "--quiet", UV)
    compile_ = ("pip", "compile", "--quiet", "pyproject.toml", "--universal", "--no-annotate")
    exact = ("--python-version", "3.11", "--generate-hashes")
    head = ("--custom-compile-command", "python3 dev.py lock [--upgrade]")
    run("uv", *compile_, *exact, *head, *args, "--group", "build", "-o", LOCKS["run"].name)
    # What is tested is what runs: the first file constrains the second.
    same = ("--constraint", LOCKS["run"].name)
    run("uv", *compile_, *exact, *head, *args, *same, "--group", "dev", "-o", LOCKS["dev"].name)


VERBS = {"up": up, "test": test, "setup": prepare, "format": tidy, "proto": proto}
VERBS |= {"soak": soak, "lock": lock}


def usage() -> str:
    """Return one line per verb."""
    lines = [f"  {name:<7} {action.__doc__}" for name, action in VERBS.items()]
    return "\n".join(["usage: python3 dev.py VERB [ARGS]", *lines])


def main(argv: list[str]) -> None:
    """Do what `argv` says."""
    refuse_old_python(sys.version_info[:3])
    verb, *args = argv or ["--help"]
    if verb in VERBS:
        VERBS[verb](args)
    elif verb in ("-h", "--help"):
        print(usage())
    else:
        print(f"dev.py: no such verb: {verb}\n{usage()}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
