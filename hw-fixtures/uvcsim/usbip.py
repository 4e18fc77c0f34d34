"""The plug: one USB device in one port of vhci-hcd, over USB/IP.

Protocol: Documentation/usb/usbip_protocol.rst of the Linux kernel, version 1.1.1; only what follows the import is spoken here,
because the socket is handed to the kernel directly. Taking the socket away is the unplugging.
"""
import errno
import socket
import struct
from collections import namedtuple

VHCI = "/sys/devices/platform/vhci_hcd.0"
PORTS = 8
SUPER_SPEED = 5

CMD_SUBMIT, CMD_UNLINK, RET_SUBMIT, RET_UNLINK = 1, 2, 3, 4
HEADER = 48

# endpoint 0 has setup (8 bytes) and, to the device, data; other endpoints have the length that the host has room for.
Submit = namedtuple("Submit", "sequence endpoint to_host length setup data")
Unlink = namedtuple("Unlink", "sequence victim")


class Plug:
    """Plugged in from its making until close()."""

    def __init__(self, port):
        host, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        device_id = 1 << 16 | port + 1
        with host, open(f"{VHCI}/attach", "w") as attach:
            attach.write(f"{PORTS + port} {host.fileno()} {device_id} {SUPER_SPEED}")
        self.received = bytearray()
        self.answers = []

    def fileno(self):
        return self.socket.fileno()

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def requests(self):
        """The requests that came; None when the kernel has closed the plug."""
        try:
            more = self.socket.recv(1 << 16)
        except ConnectionError:
            return None
        if not more:
            return None
        self.received += more
        requests = []
        while len(self.received) >= HEADER:
            command, sequence, _device, to_host, endpoint = struct.unpack_from(">5I", self.received)
            if command == CMD_UNLINK:
                requests.append(Unlink(sequence, struct.unpack_from(">I", self.received, 20)[0]))
                end = HEADER
            else:
                (length,) = struct.unpack_from(">i", self.received, 24)
                end = HEADER + (0 if to_host else length)
                if len(self.received) < end:
                    break
                setup, data = bytes(self.received[40:48]), bytes(self.received[HEADER:end])
                requests.append(Submit(sequence, endpoint, bool(to_host), length, setup, data))
            del self.received[:end]
        return requests

    def complete(self, sequence, data=(), length=None):
        """Answers a request with pieces of data, or as having taken `length` bytes. Sent by flush()."""
        length = sum(map(len, data)) if length is None else length
        self.answers.append(struct.pack(">5I5i8x", RET_SUBMIT, sequence, 0, 0, 0, 0, length, 0, 0, 0))
        self.answers.extend(data)

    def stall(self, sequence):
        """Answers a request that the device does not know."""
        self.answers.append(struct.pack(">5I5i8x", RET_SUBMIT, sequence, 0, 0, 0, -errno.EPIPE, 0, 0, 0, 0))

    def unlinked(self, sequence, in_time):
        """Answers a cancellation; in_time if the victim had not been answered yet."""
        status = -errno.ECONNRESET if in_time else 0
        self.answers.append(struct.pack(">5Ii24x", RET_UNLINK, sequence, 0, 0, 0, status))

    def flush(self):
        """Sends what was answered, all in one go."""
        pieces, self.answers = self.answers, []
        if pieces:
            self.socket.sendall(b"".join(pieces))
