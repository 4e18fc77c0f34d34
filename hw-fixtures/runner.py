"""What run-guest.py and board/run-board.py have in common: a machine that is a program here, its network, the agent in it."""
import ctypes
import fcntl
import ipaddress
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time

AGENT_PORT = 7000
NOT_HERE, TIME_OVER = 77, 124
# Each machine has a network of four addresses, numbered by its TAP device.
NETWORKS = ipaddress.ip_network("10.214.0.0/16")
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_TUN_EXCL = 0x400454CA, 0x0002, 0x1000, 0x8000
PR_SET_PDEATHSIG = 1


def fail(status, text):
    print(f"guest: {text}", file=sys.stderr, flush=True)
    sys.exit(status)


def run(*command, **options):
    return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, **options)


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_by_signals():
    """Makes signals end this program as sys.exit() does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


class Tap:
    """A TAP device with an address here, that lives as long as this program and who inherits it."""

    def __init__(self):
        try:
            self.tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            fail(NOT_HERE, f"no TAP device can be had: {error} (modprobe tun; or give a container --device /dev/net/tun)")
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


def last_words(console):
    """The end of what a machine's console said, and its beginning, which has the reason if what follows are its consequences."""
    with open(console, errors="replace") as file:
        lines = file.readlines()
    if not lines:
        return "(nothing)"
    return "".join(lines if len(lines) <= 50 else [*lines[:10], "...\n", *lines[-40:]])


class Machine:
    """The running program that is the machine. It ends with this one, however that ends."""

    def __init__(self, command, console, **options):
        self.console = console
        with open(console, "a") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=die_with_parent, start_new_session=True,
                **options)
        self.ended = os.pidfd_open(self.process.pid)

    def wait_ready(self, ready, limit):
        """Waits for the agent to connect to the listening socket `ready`."""
        selector = selectors.DefaultSelector()
        selector.register(ready, selectors.EVENT_READ)
        selector.register(self.ended, selectors.EVENT_READ)
        events = selector.select(limit)
        if not any(key.fileobj is ready for key, _ in events):
            fail(NOT_HERE if events else TIME_OVER, f"it did not boot; its console says:\n{last_words(self.console)}")
        ready.accept()[0].close()

    def end(self):
        self.process.kill()
        self.process.wait()


def run_script(machine, agent, script, deadline):
    """Runs a command in the machine by its agent's address, passing on its output. Gives its exit status."""
    connection = socket.create_connection(agent, max(0.01, deadline - time.monotonic()))
    lines = connection.makefile("rb")
    connection.sendall(json.dumps({"run": script}).encode() + b"\n")
    while True:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            line = lines.readline()
        except TimeoutError:
            fail(TIME_OVER, "its time is over")
        if not line:
            fail(TIME_OVER, f"it ended; its console says:\n{last_words(machine.console)}")
        answer = json.loads(line)
        if "output" in answer:
            print(answer["output"], end="", flush=True)
        if "error" in answer:
            fail(126, answer["error"])
        if "exit" in answer:
            status = answer["exit"]
            return status if status >= 0 else 128 - status
