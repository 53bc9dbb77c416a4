"""The kernel's keyrings of an agent's uid, which outlive the programs that put keys there (keyrings(7))."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger(__name__)

_USERS: Final = Path("/proc/key-users")
# The number of keyctl(2); elsewhere nothing is cleared.
_KEYCTL: Final = {"x86_64": 250, "aarch64": 219}
_WITHIN_S: Final = 10.0
# The user keyring, the user session keyring, which links to it at first, and the persistent keyring.
_CLEAR: Final = """
import ctypes, os, sys
uid, number = int(sys.argv[1]), int(sys.argv[2])
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
libc = ctypes.CDLL(None, use_errno=True)
def keyctl(*words):
    return libc.syscall(number, *words, 0)
failed = 0
for ring in (-4, -5, keyctl(22, -1, -2)):
    if ring != -1 and keyctl(7, ring):
        failed = ctypes.get_errno()
keyctl(8, -4, -5)
sys.exit(failed)
"""


def clear(uid: int) -> None:
    """Empties the keyrings of a uid under which nothing runs, where it has any. Needs root."""
    number = _KEYCTL.get(platform.machine())
    if number is None or not _has_keys(uid):
        return
    command = [sys.executable, "-I", "-S", "-c", _CLEAR, str(uid), str(number)]
    failure: int | str
    try:
        failure = subprocess.run(command, capture_output=True, timeout=_WITHIN_S, check=False).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    if failure:
        # Who sees to it that nobody can empty its keyring hurts itself alone.
        log.warning("keys of an agent that is gone are left", uid=uid, error=failure)


def _has_keys(uid: int) -> bool:
    try:
        return any(line.split(":")[0].strip() == str(uid) for line in _USERS.read_text().splitlines())
    except OSError:
        return False
