// A WHEP viewer: one offer, one answer; everything else is the browser's WebRTC.

const REQUEST_LIMIT = 5000; // ms for the answer
const LOST = 4000; // ms that a connection may be 'disconnected' before it is given up

export class WhepPlayer {
  name = 'WebRTC';
  onended = () => {};
  #video;
  #endpoint;
  #patience;
  #connection = null;
  #session = null;
  #timers = [];
  #before = null;
  #stopped = false;

  constructor(video, endpoint, { patience }) {
    this.#video = video;
    this.#endpoint = endpoint;
    this.#patience = patience;
  }

  async start() {
    const connection = this.#connection = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    const media = new MediaStream();
    for (const kind of ['video', 'audio']) {
      const { receiver } = connection.addTransceiver(kind, { direction: 'recvonly' });
      // Play as soon as possible: a live picture may be less smooth.
      if ('jitterBufferTarget' in receiver) receiver.jitterBufferTarget = 0;
    }
    connection.ontrack = ({ track }) => {
      media.addTrack(track);
      if (this.#video.srcObject !== media) this.#video.srcObject = media;
    };
    connection.onconnectionstatechange = () => this.#changed();
    this.#later(() => { if (!this.#video.videoWidth) this.#end('no picture came by WebRTC'); }, this.#patience);

    await connection.setLocalDescription(await connection.createOffer());
    // The server answers any offer and needs no candidates from here, so there is nothing to gather first.
    const response = await fetch(this.#endpoint, {
      method: 'POST',
      headers: { 'content-type': 'application/sdp' },
      body: connection.localDescription.sdp,
      signal: AbortSignal.timeout(REQUEST_LIMIT),
    });
    if (response.status !== 201) {
      const problem = await response.json().catch(() => ({}));
      // No further attempt helps: WebRTC cannot carry this stream, or the stream does not offer it.
      const never = [404, 405, 406, 410].includes(response.status);
      throw Object.assign(new Error(problem.detail ?? `the server answered ${response.status}`), { never });
    }
    this.#session = new URL(response.headers.get('location'), this.#endpoint);
    const answer = await response.text();
    if (this.#stopped) return this.#leave();
    await connection.setRemoteDescription({ type: 'answer', sdp: answer });
  }

  stop() {
    this.#stopped = true;
    this.#timers.forEach(clearTimeout);
    this.#leave();
    if (this.#connection) {
      this.#connection.onconnectionstatechange = this.#connection.ontrack = null;
      this.#connection.close();
      this.#video.srcObject = null;
    }
  }

  async figures() {
    let found = {};
    for (const report of (await this.#connection.getStats()).values()) {
      if (report.type === 'inbound-rtp' && report.kind === 'video') {
        const before = this.#before;
        this.#before = report;
        if (!before) continue;
        const emitted = report.jitterBufferEmittedCount - before.jitterBufferEmittedCount;
        const decoded = report.framesDecoded - before.framesDecoded;
        const waited = (report.jitterBufferDelay - before.jitterBufferDelay) / (emitted || 1);
        const decoding = (report.totalDecodeTime - before.totalDecodeTime) / (decoded || 1);
        found.bitrate = (report.bytesReceived - before.bytesReceived) * 8000 / (report.timestamp - before.timestamp);
        found.latency = (found.latency ?? 0) + waited + decoding;
      } else if (report.type === 'candidate-pair' && report.nominated && report.currentRoundTripTime !== undefined) {
        found.latency = (found.latency ?? 0) + report.currentRoundTripTime / 2;
      }
    }
    return found;
  }

  #changed() {
    const { connectionState } = this.#connection;
    if (connectionState === 'failed' || connectionState === 'closed') this.#end(`the connection is ${connectionState}`);
    else if (connectionState === 'disconnected') {
      this.#later(() => { if (this.#connection.connectionState === 'disconnected') this.#end('the connection is lost'); }, LOST);
    }
  }

  #leave() {
    if (!this.#session) return;
    // Also while the page unloads, so that the server need not wait for silence.
    fetch(this.#session, { method: 'DELETE', keepalive: true }).catch(() => {});
    this.#session = null;
  }

  #end(reason) {
    if (!this.#stopped) this.onended(reason);
  }

  #later(action, delay) {
    this.#timers.push(setTimeout(action, delay));
  }
}
