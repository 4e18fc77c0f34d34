#!/usr/bin/env python3
"""Boots the camera rig: a Linux kernel as an ordinary program, on this machine's own root file system (read-only, a tmpfs over it).

run-guest.py SCRIPT [ARGUMENT...]   runs SCRIPT as root in the guest, prints its output, and exits with its status
run-guest.py --serve                prints a line of JSON about the guest and keeps it until standard input closes:
                                    {"guest": IP, "port": of guest/agent.py, "host": IP as the guest sees it, "shared": FOLDER}

In the guest, `hardware` adds cameras, encoders and sound cards (guest/bin/hardware), /host is the shared folder, and the host is at
$host. Exits with 124 when the time limit is over, with 77 where the rig cannot be had. Guests may run side by side.
"""
import argparse
import atexit
import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from runner import AGENT_PORT, NOT_HERE, TIME_OVER, Machine, Tap, end_by_signals, fail, last_words, run, run_script

HERE = os.path.dirname(os.path.abspath(__file__))
BOOT_LIMIT = 60
PTRACE_TRACEME, PTRACE_GETREGSET, NT_X86_XSTATE = 0, 0x4204, 0x202


def register_set():
    """Bytes of this processor's register set as this machine's kernel gives and takes it by ptrace (XSAVE's standard format, CPUID
    leaf 0xD). 0 where there is no ptrace, which the guest's own words are clear about."""
    libc = ctypes.CDLL(None)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    child = os.fork()
    if child == 0:
        libc.ptrace(PTRACE_TRACEME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    room = ctypes.create_string_buffer(1 << 16)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(room), len(room))
    answer = libc.ptrace(PTRACE_GETREGSET, child, NT_X86_XSTATE, ctypes.addressof(vector))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return vector[1] if answer == 0 else 0


def check_register_set(rig):
    with open(os.path.join(rig, "register-set")) as file:
        largest = int(file.read())
    if (size := register_set()) > largest:
        fail(NOT_HERE, f"this processor's register set (CPUID leaf 0xD) has {size} bytes, and the guest's kernel has room for {largest}: "
             f"raise HOST_FP_SIZE in {HERE}/patches/register-set.patch")


def gstreamer_registry(cache, shared):
    """What the host's scan for plugins found, for the guest, where that takes seconds. Nothing where there is no GStreamer."""
    registry = os.path.join(cache, "gst-registry.bin")
    if shutil.which("gst-inspect-1.0"):
        run("gst-inspect-1.0", "--version", env=os.environ | {"GST_REGISTRY": registry}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        shutil.copy(registry, shared)


def memory_folder(megabytes):
    """Where the guest's memory lies: its file is not written to disk if this is a tmpfs."""
    space = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
    return "/dev/shm" if space > megabytes << 20 else tempfile.gettempdir()


class Guest:
    """A running guest. It ends with this program, however that ends."""

    def __init__(self, options, rig):
        self.shared = os.path.abspath(options.shared or tempfile.mkdtemp(prefix="guest-"))
        if not options.shared:
            atexit.register(shutil.rmtree, self.shared, ignore_errors=True)
        os.makedirs(self.shared, exist_ok=True)
        gstreamer_registry(os.path.dirname(rig), self.shared)
        self.network = network = Tap()
        ready = socket.create_server((str(network.host), 0))
        # In quotes, since the kernel reads all arguments as one line. It reads uml_dir earlier, verbatim.
        command = [f"{rig}/linux", f"mem={options.memory}M", f"uml_dir={self.shared}/.uml", "rootfstype=hostfs", "rootflags=/", "ro",
                   "root=/dev/root", f'init="{HERE}/guest/init.sh"', "con=null", "con0=fd:0,fd:1", "panic=-1", "console=tty0", "quiet",
                   f"vec0:transport=fd,fd={network.tap},vec=0",
                   f'rig="{rig}"', f'fixtures="{HERE}"', f'shared="{self.shared}"',
                   f"address={network.guest}/30", f"host={network.host}", f"ready={ready.getsockname()[1]}"]
        # In its own PID namespace: when the first process there ends, the kernel kills all others. That process is a shell,
        # since a first process survives the SIGABRT that a kernel in panic sends itself.
        command = ["unshare", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", '"$@"; exit', "guest", *command]
        self.machine = Machine(command, os.path.join(self.shared, "console.log"), pass_fds=[network.tap],
                               env=os.environ | {"TMPDIR": memory_folder(options.memory)})
        atexit.register(self.machine.end)
        self.machine.wait_ready(ready, BOOT_LIMIT)


def serve(guest, deadline):
    network = guest.network
    print(json.dumps({"guest": str(network.guest), "port": AGENT_PORT, "host": str(network.host), "shared": guest.shared}), flush=True)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    selector.register(guest.machine.ended, selectors.EVENT_READ)
    while remaining := max(0.0, deadline - time.monotonic()):
        for key, _ in selector.select(remaining):
            if key.fileobj == guest.machine.ended:
                fail(TIME_OVER, f"it ended; its console says:\n{last_words(guest.machine.console)}")
            if not os.read(sys.stdin.fileno(), 4096):
                return 0
    fail(TIME_OVER, "its time is over")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="keep the guest for others to use")
    parser.add_argument("--limit", type=float, default=120, metavar="SECONDS", help="time after booting (default %(default)s)")
    parser.add_argument("--memory", type=int, default=1024, metavar="MB", help="of the guest (default %(default)s)")
    parser.add_argument("--shared", metavar="FOLDER", help="what /host is, with console.log in it (default: one that is removed)")
    parser.add_argument("--kernel-options", action="append", default=[], metavar="FILE", help="passed on to build-kernel.sh")
    parser.add_argument("script", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if bool(options.script) == options.serve:
        parser.error("give either a script or --serve")
    if os.geteuid() != 0:
        fail(NOT_HERE, "the rig needs root, for a TAP device and a PID namespace")
    end_by_signals()
    fragments = [os.path.abspath(file) for file in options.kernel_options]
    built = subprocess.run([f"{HERE}/build-kernel.sh", *fragments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if built.returncode:
        fail(NOT_HERE, "its kernel cannot be built")
    rig = built.stdout.strip()
    check_register_set(rig)
    guest = Guest(options, rig)
    deadline = time.monotonic() + options.limit
    if options.serve:
        return serve(guest, deadline)
    script = [os.path.abspath(options.script[0]) if os.path.exists(options.script[0]) else options.script[0], *options.script[1:]]
    return run_script(guest.machine, (str(guest.network.guest), AGENT_PORT), script, deadline)


if __name__ == "__main__":
    sys.exit(main())
