#!/usr/bin/env python3
"""Boots the emulated aarch64 board in QEMU: U-Boot, Debian's kernel, systemd, an SSH server.

run-board.py SCRIPT [ARGUMENT...]   runs SCRIPT as root on the board, prints its output, and exits with its status
run-board.py --serve                prints a line of JSON when the board is up, and keeps it until standard input closes:
                                    {"guest": IP, "port": of guest/agent.py, "ssh": port, "host": IP as the board sees it,
                                     "shared": FOLDER, "key": FILE that logs in as root and as dev, "known_hosts": FILE}
                                    Takes words, a line each: `cut` ends the board as an empty battery does; `boot [NETWORK]` boots it
                                    again on the same disk. Prints {"ended": status} when it has ended.

On the board, `hardware` adds cameras, encoders, a light and sound cards (guest/bin/hardware), /host is the shared folder, and the host
is at $host. NETWORK is `tap` (the board has an address of its own, and vanishes without a goodbye when it is cut), `user` (QEMU speaks
for it: the host's loopback services are at $host) or `none` (which nobody can wait for: the line comes at once).
"""
import argparse
import atexit
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from runner import AGENT_PORT, NOT_HERE, TIME_OVER, Machine, Tap, end_by_signals, fail, last_words, run, run_script  # noqa: E402

# It takes fifteen seconds on an idle machine.
BOOT_LIMIT = 180
FIRMWARE = "/usr/lib/u-boot/qemu_arm64/u-boot.bin"
QEMU = ["qemu-system-aarch64", "-M", "virt,gic-version=3", "-accel", "tcg,thread=multi",
        # Not "max": its pointer authentication doubles the time of emulation.
        "-cpu", "cortex-a53", "-smp", "2", "-m", "1G", "-nodefaults", "-display", "none", "-no-reboot", "-bios", FIRMWARE,
        "-device", "virtio-rng-pci"]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class TapNetwork:
    """The board's only network is a cable to this machine."""

    def __init__(self):
        self.tap = Tap()
        self.listen = self.host = str(self.tap.host)
        self.guest = str(self.tap.guest)
        self.agent, self.ssh = AGENT_PORT, 22
        self.configuration = f"Address={self.guest}/30\nGateway={self.host}\n"
        self.files = [self.tap.tap]

    def qemu(self):
        return ["-netdev", f"tap,id=network,fd={self.tap.tap}", "-device", "virtio-net-pci,netdev=network,romfile="]


class UserNetwork:
    """QEMU opens the board's connections itself, and closes them when it ends."""

    def __init__(self):
        self.listen = self.guest = "127.0.0.1"
        self.host = "10.0.2.2"
        self.configuration = "Address=10.0.2.15/24\nGateway=10.0.2.2\n"
        self.agent, self.ssh = free_port(), free_port()
        self.files = []

    def qemu(self):
        forward = ",".join(f"hostfwd=tcp:127.0.0.1:{near}-:{far}" for near, far in ((self.agent, AGENT_PORT), (self.ssh, 22)))
        return ["-netdev", f"user,id=network,{forward}", "-device", "virtio-net-pci,netdev=network,romfile="]


class Board:
    """A board with a disk. It ends with this program, however that ends."""

    def __init__(self, options, made):
        self.shared = os.path.abspath(options.shared or tempfile.mkdtemp(prefix="board-"))
        if not options.shared:
            atexit.register(shutil.rmtree, self.shared, ignore_errors=True)
        os.makedirs(self.shared, exist_ok=True)
        self.console = os.path.join(self.shared, "console.log")
        self.disk = os.path.abspath(options.disk) if options.disk else os.path.join(self.shared, "disk.qcow2")
        if not os.path.exists(self.disk):
            run("qemu-img", "create", "-q", "-f", "qcow2", "-b", os.path.join(made, "disk.img"), "-F", "raw", self.disk)
        self.serial = options.serial
        self.networks, self.machine = {}, None
        atexit.register(self.end)
        self.key = os.path.join(self.shared, "key")
        if not os.path.exists(self.key):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "board's host", "-f", self.key)
        shutil.copy(self.key + ".pub", os.path.join(self.shared, "authorized_keys"))
        with open(os.path.join(made, "host_key.pub")) as file:
            self.host_key = file.read()

    def boot(self, name):
        """Boots it; returns when its agent is there, or at once without a network."""
        self.end()
        if name not in self.networks:
            self.networks[name] = {"tap": TapNetwork, "user": UserNetwork, "none": lambda: None}[name]()
        self.network = network = self.networks[name]
        ready = network and socket.create_server((network.listen, 0))
        self.write("board.network", "[Match]\nName=eth0\n[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
                   + (network.configuration if network else ""))
        self.write("environment", f"host={network.host if network else ''}\nready={ready.getsockname()[1] if ready else 0}\n")
        self.write("known_hosts", f"[{network.guest}]:{network.ssh},{network.guest} {self.host_key}" if network else "")
        command = [*QEMU, "-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console",
                   "-drive", f"if=none,id=disk,file={self.disk},format=qcow2", "-device", "virtio-blk-pci,drive=disk",
                   "-fsdev", f"local,id=host,path={self.shared},security_model=none,multidevs=remap",
                   "-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]
        if self.serial:
            command += ["-chardev", f"serial,id=phone,path={self.serial}", "-device", "pci-serial,chardev=phone"]
        command += network.qemu() if network else ["-nic", "none"]
        self.machine = Machine(command, self.console, pass_fds=network.files if network else [])
        if ready:
            with ready:
                self.machine.wait_ready(ready, BOOT_LIMIT)

    def write(self, name, text):
        with open(os.path.join(self.shared, name), "w") as file:
            file.write(text)

    def place(self):
        place = {"shared": self.shared, "key": self.key, "known_hosts": os.path.join(self.shared, "known_hosts")}
        if self.network:
            place |= {"guest": self.network.guest, "port": self.network.agent, "ssh": self.network.ssh, "host": self.network.host}
        return place

    def end(self):
        if self.machine:
            self.machine.end()
            self.machine = None


def serve(board, deadline):
    def tell(answer):
        print(json.dumps(answer), flush=True)

    tell(board.place())
    told, text = board.machine, ""
    while remaining := max(0.0, deadline - time.monotonic()):
        selector = selectors.DefaultSelector()
        selector.register(sys.stdin, selectors.EVENT_READ)
        if told:
            selector.register(told.ended, selectors.EVENT_READ)
        for key, _ in selector.select(remaining):
            if told and key.fileobj == told.ended:
                tell({"ended": told.process.wait()})
                told = None
                continue
            more = os.read(sys.stdin.fileno(), 4096).decode()
            if not more:
                return 0
            # A line may arrive in parts.
            *lines, text = (text + more).split("\n")
            for line in lines:
                word, *networks = line.split()
                if word == "cut":
                    board.end()
                    tell({"ended": None})
                    told = None
                elif word == "boot":
                    board.boot(networks[0] if networks else "tap")
                    tell(board.place())
                    told = board.machine
                else:
                    fail(2, f"not a word it knows: {word}")
    fail(TIME_OVER, f"its time is over; its console says:\n{last_words(board.console)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="keep the board for others to use")
    parser.add_argument("--network", choices=["tap", "user", "none"], default="tap", help="default %(default)s")
    parser.add_argument("--limit", type=float, default=120, metavar="SECONDS", help="time after booting (default %(default)s)")
    parser.add_argument("--disk", metavar="FILE", help="keeps what is written to its disk; made if it is not there, copied as it is")
    parser.add_argument("--serial", metavar="DEVICE", help="the far end of its serial port, /dev/ttyS0 there")
    parser.add_argument("--shared", metavar="FOLDER", help="what /host is, with console.log in it (default: one that is removed)")
    parser.add_argument("script", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if bool(options.script) == options.serve:
        parser.error("give either a script or --serve")
    if options.script and options.network == "none":
        parser.error("a script needs a network")
    if os.geteuid() != 0:
        fail(NOT_HERE, "the board needs root, for a TAP device and to make its disk")
    for needed in ("qemu-system-aarch64", "qemu-img", "ssh-keygen"):
        if not shutil.which(needed):
            fail(NOT_HERE, f"{needed} is missing: run scripts/install-dependencies.sh test")
    if not os.path.exists(FIRMWARE):
        fail(NOT_HERE, f"{FIRMWARE} is missing: run scripts/install-dependencies.sh test")
    end_by_signals()
    made = subprocess.run([f"{HERE}/make-board.sh"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if made.returncode:
        fail(NOT_HERE, "it cannot be made")
    board = Board(options, made.stdout.strip())
    board.boot(options.network)
    deadline = time.monotonic() + options.limit
    if options.serve:
        return serve(board, deadline)
    # Scripts are files on the host.
    script = list(options.script)
    if os.path.exists(script[0]):
        shutil.copy(script[0], os.path.join(board.shared, "script"))
        script[0] = "/host/script"
    return run_script(board.machine, (board.network.guest, board.network.agent), script, deadline)


if __name__ == "__main__":
    sys.exit(main())
