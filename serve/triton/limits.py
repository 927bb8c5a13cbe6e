"""What the processes of a server may use: stack, open files, and who may read what they make."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

STACK_BYTES = 8 * 2**30
"""Stack of each thread of Triton 2.51, reserved and not used. It reads JSON by recursion, and notes the chunks of a
body on the stack: with the usual 8 MiB a request of 200 KB ends it (CVE-2025-23310, 23311), with this one of 150 MB."""
ENOUGH_BYTES = 2**30
"""Less is warned of."""
STRICT_STACK_BYTES = 64 * 2**20
"""The same where the kernel promises no more memory than there is (vm.overcommit_memory=2), or where the address space
of a process is limited: what is reserved counts there."""
UMASK = 0o077
"""Files, folders and shared memory are for this user alone: texts and vectors pass through them."""
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
AUDIT_ARCH_X86_64 = 0xC000003E
SYS_FCHMOD = 91
SYS_SECCOMP = 317
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4


@dataclass(frozen=True)
class Limits:
    """Soft and hard limits of a child process, in bytes and in files."""

    stack: tuple[int, int]
    files: tuple[int, int]

    @property
    def warning(self) -> str:
        """What is less than it should be, and what to do; empty when nothing is."""
        if self.stack[0] == resource.RLIM_INFINITY or self.stack[0] >= ENOUGH_BYTES:
            return ""
        return (
            f"The stack of a thread is limited to {self.stack[0] // 2**20} MiB instead of {ENOUGH_BYTES // 2**20}: "
            "whoever reaches Triton's HTTP port can end the server by one deeply nested request. Raise the hard limit "
            f"(ulimit -Hs unlimited; of a container --ulimit stack={STACK_BYTES}), and allow memory to be promised "
            "beyond what there is (vm.overcommit_memory below 2, no ulimit -v)."
        )


def child_limits(*, stack: bool = True) -> Limits:
    """Return the limits for Triton and its model processes, as high as this process may set them.

    Without `stack`, for processes that read nothing by recursion: that of the stack is as it is here.
    """
    here = resource.getrlimit(resource.RLIMIT_STACK)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Limits((_stack(here, memory, strict=_is_strict()), here[1]) if stack else here, (files, files))


def _stack(limits: tuple[int, int], memory: int, *, strict: bool) -> int:
    """Return the soft limit of the stack, given the present limits and the bytes of memory there are.

    The kernel refuses to promise one thread more than all the memory there is: half of it is the most.

    >>> _stack((8 * 2**20, resource.RLIM_INFINITY), 64 * 2**30, strict=False) // 2**20
    8192
    >>> _stack((8 * 2**20, resource.RLIM_INFINITY), 4 * 2**30, strict=False) // 2**20
    2048
    >>> _stack((8 * 2**20, 32 * 2**20), 64 * 2**30, strict=False) // 2**20
    32
    """
    wanted = STRICT_STACK_BYTES if strict else min(STACK_BYTES, memory // 2)
    soft, hard = limits
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    # A larger one that was set on purpose stays; "unlimited" would change how the kernel lays out memory.
    return max(wanted, soft) if soft != resource.RLIM_INFINITY else wanted


def _is_strict() -> bool:
    """Return whether reserved address space counts as used."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return True
    try:
        return Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"
    except OSError:
        return False


class _Program(ctypes.Structure):
    """`struct sock_fprog`: a filter of the kernel's."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def _filter() -> tuple[_Program, object]:
    """Return a filter of system calls by which fchmod(file, 0644) does nothing and succeeds; and what it points to.

    Boost, by which Triton makes its shared memory, opens it to all users that way, whatever the umask is. To close it
    afterwards would come too late for who has opened it meanwhile.
    """
    load, equal, ret = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    instructions = (
        (load, 0, 0, 4),  # the architecture
        (equal, 0, 5, AUDIT_ARCH_X86_64),
        (load, 0, 0, 0),  # the number of the call
        (equal, 0, 3, SYS_FCHMOD),
        (load, 0, 0, 24),  # its second argument, the lower half
        (equal, 0, 1, 0o644),
        (ret, 0, 0, 0x00050000),  # SECCOMP_RET_ERRNO, and no error
        (ret, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    )
    code = b"".join(struct.pack("=HBBI", *one) for one in instructions)
    memory = ctypes.create_string_buffer(code, len(code))
    return _Program(len(instructions), ctypes.cast(memory, ctypes.c_void_p)), memory


def prepare_child(limits: Limits, *, private_memory: bool = False) -> Callable[[], None]:
    """Return what a child process does before it becomes another program: take the limits, and end with its parent.

    It is sent SIGTERM when the thread that started it ends, even if that was killed. With `private_memory` Triton's
    shared memory is for this user alone, where the kernel allows a process to filter its own system calls.
    """
    private_memory = private_memory and platform.machine() == "x86_64"
    libc = ctypes.CDLL(None)
    prctl, syscall = libc.prctl, libc.syscall
    program, memory = _filter()
    pointer = ctypes.byref(program)

    def prepare() -> None:
        assert memory is not None  # it lives as long as this function
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if private_memory and prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
            # Allowed to speculate as before: older kernels would else slow every computation down.
            syscall(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, pointer)
        resource.setrlimit(resource.RLIMIT_STACK, limits.stack)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits.files)

    return prepare


def raise_open_files() -> int:
    """Let this process open as many files as its hard limit allows; return how many those are."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
