"""What a cluster is born with: its id and its key, in one file beside cluster.toml.

The key seals the contexts that clients hold. Whoever has it can forge them, so the file is
readable by its owner alone. Every node of a cluster needs the same file.
Tests: tests/unit/runtime/test_birth.py.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from kvnode.storage.durable import sync_folder

FILE = "cluster.key"
_ID_BYTES = 16
_KEY_BYTES = 32


class BirthError(Exception):
    """The file is missing or is not one; the text is one line for people."""


@dataclass(frozen=True, slots=True)
class Birth:
    """A cluster's identity and secret."""

    cluster_id: bytes
    key: bytes


def create(directory: Path) -> Birth:
    """Return the birth of the cluster of `directory`, made now unless there is one.

    Raises: BirthError, if what is there cannot be read. OSError.
    """
    path = directory / FILE
    born = Birth(secrets.token_bytes(_ID_BYTES), secrets.token_bytes(_KEY_BYTES))
    text = json.dumps({"cluster_id": born.cluster_id.hex(), "key": born.key.hex()}) + "\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return load(directory)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(directory)
    return born


def load(directory: Path) -> Birth:
    """Return the birth of the cluster whose cluster.toml is in `directory`.

    Raises: BirthError.
    """
    path = directory / FILE
    try:
        fields = json.loads(path.read_text(encoding="ascii"))
        born = Birth(bytes.fromhex(fields["cluster_id"]), bytes.fromhex(fields["key"]))
    except FileNotFoundError as exc:
        raise BirthError(
            f"{path} is missing: copy it from another node of the cluster, or let `kvnode up` "
            "make a new cluster"
        ) from exc
    except OSError as exc:
        raise BirthError(f"{path} cannot be read: {exc.strerror}") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise BirthError(f"{path} is not a cluster's key file") from exc
    if (len(born.cluster_id), len(born.key)) != (_ID_BYTES, _KEY_BYTES):
        raise BirthError(f"{path} is not a cluster's key file")
    return born
