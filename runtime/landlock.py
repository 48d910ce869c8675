"""Takes rights away from a process of Linux: files, connections, signals.

What this process and those it starts may still do is read below some folders. It
cannot be taken back. Kernels have it since 5.13, if they were built with it.

References:
    https://docs.kernel.org/userspace-api/landlock.html. Numbers of system calls are
    those of all processors.
"""

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterable, Iterator

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_WANT_VERSION = 1  # flag of the first
_PATH_BENEATH = 1  # kind of rule
_NO_NEW_PRIVILEGES = 38  # of prctl; without it the kernel restricts nobody

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
# Rights over files by the version that brought them: version 1 has 13, then one each.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_NET_RIGHTS = {4: 3}  # to bind and to connect over TCP
_SCOPES = {6: 3}  # abstract sockets and signals, to processes outside


def confine(readable: Iterable[str]) -> bool:
    """Lets this thread, and all it starts from now on, only read below some folders.

    Files that are open stay open; /dev/null can be written to.

    Args:
        readable: Folders and files; those that do not exist are passed over.

    Returns:
        Whether the kernel does it.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    version = library.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _WANT_VERSION)
    if version < 1:
        return False
    handled = tuple(
        sum(bits for since, bits in rights.items() if since <= version)
        for rights in (_FILE_RIGHTS, _NET_RIGHTS, _SCOPES)
    )
    size = 8 if version < 4 else 16 if version < 6 else 24
    attributes = struct.pack("<3Q", *handled)[:size]
    rules = library.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    if rules < 0:
        return False
    try:
        for path in readable:
            is_folder = os.path.isdir(path)
            rights = _READ_FILE | _READ_DIR if is_folder else _READ_FILE
            _allow(library, rules, path, rights)
        _allow(library, rules, os.devnull, _READ_FILE | _WRITE_FILE)
        library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        return bool(library.syscall(_RESTRICT_SELF, rules, 0) == 0)
    finally:
        os.close(rules)


def folders_of_modules() -> Iterator[str]:
    """Gives the folders from which this process imports, and those of the system."""
    yield from ("/usr", "/lib", "/lib64", "/proc", "/sys", "/etc/ld.so.cache")
    yield from {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    for module in list(sys.modules.values()):
        for folder in getattr(module, "__path__", ()):
            yield os.path.realpath(folder)


def _allow(library: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rule = struct.pack("<Qi", rights, descriptor)
            library.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0)
        finally:
            os.close(descriptor)
