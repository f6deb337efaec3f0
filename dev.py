#!/usr/bin/env python3
"""Everything a fresh clone needs, with nothing but Python: `python3 dev.py VERB`.

What it decides: where the environment lives (.venv), when it is current (a stamp over the lock
files, pyproject.toml, the interpreter and this folder's path), and which checks make up "the tests".
Laws: only hash-checked wheels named in a lock file are installed; a check that fails stops the run
with its own exit status; a good `test` ends with pytest's summary line.
Its test file is tests/unit/test_dev.py. It leaves out what people should run: the kvnode command.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

# The parts above and `refuse_old_python` are kept readable for an older Python, so that it can say so.
OLDEST = (3, 11)
PYTHON = Path(sys.executable).resolve()
"""The interpreter behind any environment that this runs in: .venv cannot be made from itself."""
ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
LOCKS = {"run": ROOT / "requirements.lock", "dev": ROOT / "requirements-dev.lock"}
UV = "uv==0.13.9"

CHECKS = (
    ("lint", ("ruff", "check", ".")),
    ("format", ("ruff", "format", "--check", ".")),
    ("types", ("mypy",)),
    ("imports", ("lint-imports",)),
    ("generated code", ("python", "proto/generate.py", "--check")),
)
"""What runs before pytest, quickest first."""


def refuse_old_python(version: tuple[int, ...]) -> None:
    """Exit with one line unless `version` will do."""
    if version < OLDEST:
        found = ".".join(str(part) for part in version)
        sys.exit(f"kvnode needs Python 3.11 or newer; {sys.executable} is {found}")


def stamp_of(kind: str) -> str:
    """Return what a current environment of `kind` was built from."""
    digest = hashlib.sha256(f"{sys.version_info[:3]} {PYTHON} {ROOT}\n".encode())
    for path in (LOCKS[kind], ROOT / "pyproject.toml"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_current(kind: str) -> bool:
    """Tell whether .venv holds `kind`; the dev environment holds all of the run one."""
    stamps = [VENV / f"stamp-{each}" for each in (kind, "dev")]
    wanted = [stamp_of(kind), stamp_of("dev")]
    return any(
        stamp.exists() and stamp.read_text() == want
        for stamp, want in zip(stamps, wanted, strict=True)
    )


def setup(kind: str) -> None:
    """Make .venv hold exactly the lock file of `kind` and this project; do nothing if it does."""
    with (ROOT / "dev.py").open() as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two terminals may begin at once
        if is_current(kind):
            return
        started = time.monotonic()
        say(f"setting up .venv from {LOCKS[kind].name}")
        make_venv()
        install(kind)
        (VENV / f"stamp-{kind}").write_text(stamp_of(kind))
        say(f"setting up .venv: {time.monotonic() - started:.1f} s")


def make_venv() -> None:
    """Create .venv anew: an environment of another Python or place cannot be mended."""
    try:
        import ensurepip  # noqa: F401, PLC0415
    except ImportError:
        sys.exit(
            f"{sys.executable} lacks ensurepip, which makes environments;"
            " on Debian or Ubuntu: apt-get install python3-venv"
        )
    run(str(PYTHON), "-m", "venv", "--clear", str(VENV))


def install(kind: str) -> None:
    """Install the locked wheels, then this project in place, asking no index for anything else."""
    pip = (str(BIN / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--require-hashes", "--only-binary", ":all:", "--requirement", str(LOCKS[kind]))
    run(*pip, "--no-index", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def run(*command: str) -> None:
    """Run `command` here; exit with its status unless it is 0."""
    status = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode
    if status != 0:
        sys.exit(f"dev.py: failed with status {status}: {' '.join(command)}")


def say(line: str) -> None:
    """Print at once: what comes next writes to the same terminal from another process."""
    print(f"-- {line}", flush=True)


def become(tool: str, *args: str) -> None:
    """Turn this process into a tool of .venv, so that signals and the exit status are its own."""
    os.chdir(ROOT)
    os.execv(BIN / tool, [tool, *args])


def check_all() -> None:
    """Run every check but pytest; each is named and timed."""
    for name, (tool, *args) in CHECKS:
        started = time.monotonic()
        say(name)
        run(str(BIN / tool), *args)
        say(f"{name}: {time.monotonic() - started:.1f} s")


def test(args: list[str]) -> None:
    """Check everything, then run pytest with `args`."""
    setup("dev")
    check_all()
    say("tests")
    become("python", "-m", "pytest", *args)


def up(args: list[str]) -> None:
    """Start a local cluster: `kvnode up` with `args`."""
    setup("run")
    become("kvnode", "up", *args)


def tidy(args: list[str]) -> None:
    """Mend what ruff can mend, and format everything."""
    setup("dev")
    run(str(BIN / "ruff"), "check", "--fix", *args, ".")
    become("ruff", "format", *args, ".")


def proto(args: list[str]) -> None:
    """Generate the protobuf code anew."""
    setup("dev")
    become("python", "proto/generate.py", *args)


def soak(args: list[str]) -> None:
    """Run the long randomised tests until told to stop."""
    setup("dev")
    become("python", "-m", "tests.soak", *args)


def lock(args: list[str]) -> None:
    """Renew both lock files from pyproject.toml; `--upgrade` takes newer releases."""
    setup("dev")
    run(str(BIN / "python"), "-m", "pip", "install", "--quiet", UV)
    # The runtime pins constrain the dev ones: what is tested is what runs.
    for kind, group, extra in (("run", "build", ()), ("dev", "dev", ("-c", str(LOCKS["run"].name)))):
        target = LOCKS[kind].name
        run(
            str(BIN / "uv"), "pip", "compile", "--quiet", "pyproject.toml", "--group", group,
            "--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate",
            "--custom-compile-command", "python3 dev.py lock [--upgrade]",
            "--output-file", target, *extra, *args,
        )  # fmt: skip


def prepare(args: list[str]) -> None:
    """Set up .venv for working on the project; `--run` for running it only."""
    setup("run" if args == ["--run"] else "dev")


VERBS = {
    "up": up,
    "test": test,
    "setup": prepare,
    "format": tidy,
    "proto": proto,
    "soak": soak,
    "lock": lock,
}


def usage() -> str:
    """Return one line per verb."""
    lines = [f"  {name:<7} {(action.__doc__ or '').strip()}" for name, action in VERBS.items()]
    return "\n".join(["usage: python3 dev.py VERB [ARGS]", *lines])


def main(argv: list[str]) -> None:
    """Do what `argv` says."""
    refuse_old_python(sys.version_info[:3])
    verb, *args = argv or ["--help"]
    if verb in ("-h", "--help"):
        print(usage())
        return
    if verb not in VERBS:
        print(f"dev.py: no such verb: {verb}\n{usage()}", file=sys.stderr)
        sys.exit(2)
    VERBS[verb](args)


if __name__ == "__main__":
    main(sys.argv[1:])
