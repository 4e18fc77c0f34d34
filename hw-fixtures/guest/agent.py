"""The host's hand in the guest. Each connection to its port is one request, a line of JSON:

{"run": [program, argument...], "environment": {name: value}}
    answers lines {"pid": n}, {"output": text} as it comes, and at the end {"exit": status}. Meanwhile it takes lines {"signal": n}.
    A connection that is closed kills the program with all it started.
{"write": path, "text": text}       answers {} or {"error": text}
{"read": path}                      answers {"text": text} or {"error": text}
{"connect": path, "within": s}      answers {} or {"error": text}; after {} the connection is one to that Unix socket

When it is there, it connects to the host's port $ready once, as soon as there is a network to do so.
"""
import json
import os
import signal
import socket
import subprocess
import threading
import time

PORT = 7000


def tell(connection, answer):
    connection.sendall(json.dumps(answer).encode() + b"\n")


def run(connection, lines, request):
    try:
        process = subprocess.Popen(
            request["run"], env=os.environ | request.get("environment", {}), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    except OSError as error:
        return tell(connection, {"error": str(error)})
    tell(connection, {"pid": process.pid})

    def obey():
        try:
            for line in lines:
                process.send_signal(json.loads(line)["signal"])
        except OSError:
            pass
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    threading.Thread(target=obey, daemon=True).start()
    while output := process.stdout.read1():
        tell(connection, {"output": output.decode(errors="replace")})
    status = process.wait()
    # What it wrote to /host is there for whoever hears of its end.
    os.sync()
    tell(connection, {"exit": status})


def connect(connection, lines, request):
    deadline = time.monotonic() + request.get("within", 0)
    while True:
        other = socket.socket(socket.AF_UNIX)
        try:
            other.connect(request["connect"])
            break
        except OSError as error:
            other.close()
            if time.monotonic() >= deadline:
                return tell(connection, {"error": str(error)})
            time.sleep(0.02)
    tell(connection, {})

    def back():
        try:
            while data := other.recv(1 << 16):
                connection.sendall(data)
        except OSError:
            pass
        close(connection)

    thread = threading.Thread(target=back, daemon=True)
    thread.start()
    try:
        while data := lines.read1(1 << 16):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    thread.join()
    other.close()


def close(connection):
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def serve(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, connection.makefile("rb") as lines:
        request = json.loads(lines.readline())
        try:
            if "run" in request:
                run(connection, lines, request)
            elif "connect" in request:
                connect(connection, lines, request)
            elif "write" in request:
                with open(request["write"], "w") as file:
                    file.write(request["text"])
                tell(connection, {})
            else:
                with open(request["read"], errors="replace") as file:
                    tell(connection, {"text": file.read()})
        except (BrokenPipeError, ConnectionResetError):
            pass
        except OSError as error:
            tell(connection, {"error": str(error)})
        close(connection)


def tell_ready():
    while True:
        try:
            socket.create_connection((os.environ["host"], int(os.environ["ready"]))).close()
            return
        except OSError:
            time.sleep(0.1)


def main():
    server = socket.create_server(("0.0.0.0", PORT), backlog=64)
    threading.Thread(target=tell_ready, daemon=True).start()
    while True:
        connection, _ = server.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


main()
