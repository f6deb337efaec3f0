"""Make this thread's fsync and fdatasync fail with EIO, for as long as the thread lives.

A seccomp filter answers in the kernel's place, so that the library under test meets what it would
meet with a dying disk. Needs no root; Linux on x86-64 and arm64 only. Use it in a child process.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import sys

_FSYNCS = {"x86_64": (74, 75), "aarch64": (82, 83)}
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_MODE_FILTER = 2
_LOAD_SYSCALL_NUMBER = (0x20, 0, 0, 0)
_RETURN_ERRNO = 0x0005_0000
_RETURN_ALLOW = 0x7FFF_0000


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("if_true", ctypes.c_ubyte),
        ("if_false", ctypes.c_ubyte),
        ("value", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def is_supported() -> bool:
    """Return whether this machine knows the filter."""
    return sys.platform == "linux" and platform.machine() in _FSYNCS


def fail_syncs_of_this_thread() -> None:
    """Let every later fsync and fdatasync of the calling thread fail with EIO."""
    fsync, fdatasync = _FSYNCS[platform.machine()]
    jump_if_equal, answer = 0x15, 0x06
    program = (_Instruction * 5)(
        _Instruction(*_LOAD_SYSCALL_NUMBER),
        _Instruction(jump_if_equal, 1, 0, fsync),
        _Instruction(jump_if_equal, 0, 1, fdatasync),
        _Instruction(answer, 0, 0, _RETURN_ERRNO | errno.EIO),
        _Instruction(answer, 0, 0, _RETURN_ALLOW),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    for call in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(_Program(5, program)), 0, 0),
    ):
        if libc.prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
