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
import fcntl
import ipaddress
import json
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
AGENT_PORT = 7000
BOOT_LIMIT = 60
NOT_HERE, TIME_OVER = 77, 124
# One network of four addresses a guest; the TAP device's number says which.
NETWORKS = ipaddress.ip_network("10.214.0.0/16")
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_TUN_EXCL = 0x400454CA, 0x0002, 0x1000, 0x8000
PR_SET_PDEATHSIG = 1


def fail(status, text):
    print(f"guest: {text}", file=sys.stderr, flush=True)
    sys.exit(status)


def run(*command, **options):
    return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, **options)


class Network:
    """A TAP device that lives as long as this program and its guest."""

    def __init__(self):
        try:
            self.tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            fail(NOT_HERE, f"no TAP device can be had: {error}")
        slots = NETWORKS.num_addresses // 4
        for attempt in range(64):
            number = (os.getpid() + attempt) % slots
            self.name = f"lcg{number}"
            try:
                fcntl.ioctl(self.tap, TUNSETIFF, struct.pack("16sH22x", self.name.encode(), IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL))
                break
            except PermissionError:
                fail(NOT_HERE, "a TAP device needs root")
            except OSError as error:
                if attempt == 63:
                    fail(NOT_HERE, f"no TAP device can be had: {error}")
        self.host, self.guest = NETWORKS[number * 4 + 1], NETWORKS[number * 4 + 2]
        run("ip", "address", "add", f"{self.host}/30", "dev", self.name)
        run("ip", "link", "set", self.name, "up")


def gstreamer_registry(cache, shared):
    """What the host's scan for plugins found, for the guest, where that takes seconds. Nothing where there is no GStreamer."""
    registry = os.path.join(cache, "gst-registry.bin")
    if shutil.which("gst-inspect-1.0"):
        run("gst-inspect-1.0", "--version", env=os.environ | {"GST_REGISTRY": registry}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        shutil.copy(registry, shared)


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


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
        self.console = os.path.join(self.shared, "console.log")
        gstreamer_registry(os.path.dirname(rig), self.shared)
        self.network = network = Network()
        ready = socket.create_server((str(network.host), 0))
        command = [f"{rig}/linux", f"mem={options.memory}M", f"uml_dir={self.shared}/.uml", "rootfstype=hostfs", "rootflags=/", "ro",
                   "root=/dev/root", f"init={HERE}/guest/init.sh", "con=null", "con0=fd:0,fd:1", "panic=-1", "console=tty0", "quiet",
                   f"vec0:transport=fd,fd={network.tap},vec=0",
                   f"rig={rig}", f"fixtures={HERE}", f"shared={self.shared}",
                   f"address={network.guest}/30", f"host={network.host}", f"ready={ready.getsockname()[1]}"]
        # In a PID namespace of its own: when its first process goes, the kernel takes all others with it.
        command = ["unshare", "--pid", "--fork", "--kill-child=KILL", *command]
        with open(self.console, "w") as console:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, pass_fds=[network.tap],
                preexec_fn=die_with_parent, env=os.environ | {"TMPDIR": memory_folder(options.memory)}, start_new_session=True)
        atexit.register(self.end)
        self.ended = os.pidfd_open(self.process.pid)
        selector = selectors.DefaultSelector()
        selector.register(ready, selectors.EVENT_READ)
        selector.register(self.ended, selectors.EVENT_READ)
        events = selector.select(BOOT_LIMIT)
        if not any(key.fileobj is ready for key, _ in events):
            fail(NOT_HERE if events else TIME_OVER, f"it did not boot; its console says:\n{self.last_words()}")

    def last_words(self):
        with open(self.console, errors="replace") as console:
            return "".join(console.readlines()[-40:])

    def connect(self):
        return socket.create_connection((str(self.network.guest), AGENT_PORT), BOOT_LIMIT)

    def end(self):
        self.process.kill()
        self.process.wait()


def run_script(guest, script, deadline):
    """Runs a command in the guest, passing on its output. Gives its exit status."""
    connection = guest.connect()
    lines = connection.makefile("rb")
    connection.sendall(json.dumps({"run": script}).encode() + b"\n")
    while True:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            line = lines.readline()
        except TimeoutError:
            fail(TIME_OVER, "its time is over")
        if not line:
            fail(TIME_OVER, f"it ended; its console says:\n{guest.last_words()}")
        answer = json.loads(line)
        if "output" in answer:
            print(answer["output"], end="", flush=True)
        if "error" in answer:
            fail(126, answer["error"])
        if "exit" in answer:
            status = answer["exit"]
            return status if status >= 0 else 128 - status


def serve(guest, deadline):
    network = guest.network
    print(json.dumps({"guest": str(network.guest), "port": AGENT_PORT, "host": str(network.host), "shared": guest.shared}), flush=True)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    selector.register(guest.ended, selectors.EVENT_READ)
    while remaining := max(0.0, deadline - time.monotonic()):
        for key, _ in selector.select(remaining):
            if key.fileobj == guest.ended:
                fail(TIME_OVER, f"it ended; its console says:\n{guest.last_words()}")
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
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    fragments = [os.path.abspath(file) for file in options.kernel_options]
    built = subprocess.run([f"{HERE}/build-kernel.sh", *fragments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if built.returncode:
        fail(NOT_HERE, "its kernel cannot be built")
    guest = Guest(options, built.stdout.strip())
    deadline = time.monotonic() + options.limit
    if options.serve:
        return serve(guest, deadline)
    script = [os.path.abspath(options.script[0]) if os.path.exists(options.script[0]) else options.script[0], *options.script[1:]]
    return run_script(guest, script, deadline)


if __name__ == "__main__":
    sys.exit(main())
