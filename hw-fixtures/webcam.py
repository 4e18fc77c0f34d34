"""webcam.py SOCKET URL SECONDS RATE CAMERA_PID: goes live by the daemon's control socket, checks what it says of camera and
encoder, waits for SECONDS of streaming, then unplugs the camera (SIGUSR1 to its simulator) and expects to be told."""
import json, os, signal, socket, sys, time

path, url, seconds, rate, camera = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])


def fail(text):
    print("FAIL:", text, flush=True)
    sys.exit(1)


def connect(within):
    end = time.monotonic() + within
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > end:
                fail("no control socket")
            time.sleep(0.05)


class Lines:
    def __init__(self, connection):
        self.connection, self.rest = connection, b""

    def next(self, end):
        while b"\n" not in self.rest:
            self.connection.settimeout(max(0.01, end - time.monotonic()))
            try:
                more = self.connection.recv(65536)
            except TimeoutError:
                return None
            if not more:
                fail("the daemon closed the connection")
            self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        return json.loads(line)

    def wait(self, what, within, is_it):
        end, last = time.monotonic() + within, None
        while True:
            event = self.next(end)
            if event is None:
                fail(f"waited {within} s in vain for {what}; last heard: {json.dumps(last)}")
            last = event
            if event.get("event") == "report":
                print("report:", json.dumps(event), flush=True)
            if is_it(event):
                return event


# A busy machine and one emulated CPU: the limits are generous, the frame count is not.
watching = connect(30)
watching.sendall(b'{"cmd":"watch"}\n')
events = Lines(watching)
events.wait("the first state", 10, lambda e: e.get("ok"))
asking = connect(5)
asking.sendall(json.dumps({
    "cmd": "start", "url": url, "app": "rig", "stream_id": "rig-1", "kind": "unmanaged",
    "video": {"width": 320, "height": 240, "bitrate": 600000, "frame_rate": rate},
}).encode() + b"\n")
reply = Lines(asking).next(time.monotonic() + 15)
if not reply or not reply.get("ok"):
    fail(f"start was refused: {reply}")
events.wait("the stream to run", 40, lambda e: e.get("event") == "report" and e["state"] == "streaming")


def streamed(event):
    stream = (event.get("state") or {}).get("stream") if event.get("event") == "state" else None
    return stream and stream["metrics"]["duration_s"] >= seconds


state = events.wait(f"{seconds} s of streaming", seconds + 30, streamed)["state"]
print("camera:", json.dumps(state["camera"]), flush=True)
if state["camera"]["encoder"] != "v4l2":
    fail("the hardware encoder was not chosen")
if "Rig UVC camera" not in (state["camera"]["name"] or ""):
    fail("that is not the webcam")
if not (state["camera"]["device"] or "").startswith("/dev/video"):
    fail("no device is named")

os.kill(camera, signal.SIGUSR1)
lost = events.wait("the unplugged camera to be noticed", 10,
                   lambda e: e.get("event") == "report" and e["state"] in ("reconnecting", "error", "stopped"))
if (lost["state"], lost["cause"]) != ("reconnecting", "camera_lost"):
    fail(f"not what was to be told: {lost}")
print("unplugged and told so", flush=True)
