"""What runs in the sandbox's fresh interpreter: it locks itself in, then runs the program it reads from standard input.

This file is handed to ``python -I -S`` as text and imports nothing of Composer. In order: another user where it is
root; namespaces of its own (users, network, processes, mounts, IPC); an empty file system in memory for everything
that is written; limits; no capabilities, no new privileges; Landlock. A part that the kernel lacks is reported, and
then nothing is run unless the settings allow it.

A process in the middle is number 1 of the namespace: what it starts cannot signal it, and what is left dies with it.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable

REFUSED = 97
"""Exit status: a part of the sandbox is missing, and nothing was run."""
NOBODY = 65534
NAMESPACES = 0x10000000 | 0x40000000 | 0x20000000 | 0x00020000 | 0x08000000  # user, network, processes, mounts, IPC
PRIVATE, QUIET = 0x44000, 0x6  # MS_REC | MS_PRIVATE; MS_NOSUID | MS_NODEV
WORK, MOVED = "/tmp", "/mnt"
HIDDEN = ("/run", "/var/run", "/home", "/root", "/var/tmp", "/dev/shm")
READ = 1 | 4 | 8  # execute and read files, read folders
libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> int:
    """The result of a call of the C library, or its error."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def another_user() -> None:
    """Root's processes are not counted, so root becomes nobody, who finds the interpreter in another place."""
    if os.getuid() == 0:
        checked(libc.unshare(0x00020000))
        checked(libc.mount(b"none", b"/", None, PRIVATE, None))
        checked(libc.mount(sys.base_prefix.encode(), MOVED.encode(), None, 4096, None))  # MS_BIND
        move_interpreter()
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        checked(libc.prctl(4, 1, 0, 0, 0))  # PR_SET_DUMPABLE: its files in /proc are its own again


def move_interpreter() -> None:
    """What is imported from now on comes from the place where nobody may read it."""
    old = sys.base_prefix
    there = [module for module in list(sys.modules.values()) if hasattr(module, "__path__")]
    for paths in [sys.path, *(module.__path__ for module in there)]:
        paths[:] = [path.replace(old, MOVED, 1) if path.startswith(old) else path for path in paths]
    sys.base_prefix = sys.base_exec_prefix = MOVED
    sys.path_importer_cache.clear()


def namespaces() -> None:
    uid, gid = os.getuid(), os.getgid()
    checked(libc.unshare(NAMESPACES))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def file_system(disk: int) -> None:
    """All that is written goes to memory, so much of it and no more, and vanishes."""
    checked(libc.mount(b"none", b"/", None, PRIVATE, None))
    for path in HIDDEN:
        inside = any(os.path.realpath(prefix).startswith(path + "/") for prefix in (sys.base_prefix, *sys.path))
        if os.path.isdir(path) and not os.path.islink(path) and not inside:
            checked(libc.mount(b"tmpfs", path.encode(), b"tmpfs", QUIET, b"size=4k,nr_inodes=2,mode=555"))
    checked(libc.mount(b"tmpfs", WORK.encode(), b"tmpfs", QUIET, f"size={disk},nr_inodes=1000,mode=1777".encode()))
    os.chdir(WORK)


def landlock() -> None:
    """Reading the interpreter's files, writing in the work folder; no network, no signals to others."""
    version = checked(libc.syscall(444, None, 0, 1))
    files = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    rules = (ctypes.c_uint64 * 3)(files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = checked(libc.syscall(444, ctypes.byref(rules), ctypes.c_size_t(size), 0))
    usual = {sys.base_prefix, sys.base_exec_prefix, "/usr", "/lib", "/lib64"}
    allowed = {os.path.realpath(path): READ for path in usual if os.path.realpath(path) != "/"}
    allowed |= {"/dev/null": 2 | 4, "/dev/urandom": 4, "/etc/ld.so.cache": 4, WORK: files}
    for path, access in allowed.items():
        if os.path.exists(path):
            handle = os.open(path, os.O_PATH)
            rule = access.to_bytes(8, sys.byteorder) + handle.to_bytes(4, sys.byteorder)
            checked(libc.syscall(445, ruleset, 1, rule, 0))
            os.close(handle)
    checked(libc.prctl(38, 1, 0, 0, 0))  # PR_SET_NO_NEW_PRIVS
    checked(libc.syscall(446, ruleset, 0))
    os.close(ruleset)


def no_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    checked(libc.capset(header, (ctypes.c_uint32 * 6)()))


def limits(settings: dict) -> None:
    for name in ("CPU", "AS", "FSIZE", "NOFILE", "NPROC", "CORE"):
        value = settings[name]
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def part(name: str, missing: list, work: Callable, *args: object) -> None:
    try:
        work(*args)
    except (OSError, ValueError, AttributeError) as bad:
        missing.append(f"{name} ({bad})")


def wait_for(process: int) -> int:
    """Wait for one process, reap what others leave, and end as it did."""
    while True:
        ended, status = os.wait()
        if ended == process:
            return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def main() -> None:
    settings = json.loads(sys.argv[1])
    program = sys.stdin.buffer.read().decode()
    missing: list = []
    part("another user", missing, another_user)
    part("namespaces", missing, namespaces)
    middle = os.fork()
    if middle:
        os._exit(wait_for(middle))
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: killed with the one outside
    part("file system in memory", missing, file_system, settings["disk"])
    runner = os.fork()
    if runner:
        os._exit(wait_for(runner))
    part("no capabilities", missing, no_capabilities)
    part("Landlock", missing, landlock)
    part("limits", missing, limits, settings)
    if missing and not settings["weak"]:
        sys.stderr.write("; ".join(missing))
        sys.stderr.flush()
        os._exit(REFUSED)
    names = {"__name__": "__main__"}
    exec(compile(program, "<program>", "exec"), names)
    # Reached only when the program went through to its end: whoever exits early has proved nothing.
    sys.stdout.flush()
    os.write(1, settings["token"].encode())
    os._exit(0)


if __name__ == "__main__":
    main()
