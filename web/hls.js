// A low-latency HLS viewer: Safari's own player, or hls.js in other browsers, loaded when needed.

const LOST = 20000; // ms of failures after which the player is made anew

export class HlsPlayer {
  name = 'HLS';
  onended = () => {};
  #video;
  #playlist;
  #hls = null;
  #lostSince = 0;
  #rates = new Map(); // of picture and sound, bit/s
  #stopped = false;

  constructor(video, playlist) {
    this.#video = video;
    this.#playlist = playlist;
  }

  async start() {
    // Only Safari has this. Other browsers that claim HLS play it without low latency.
    if (this.#video.getStartDate && this.#video.canPlayType('application/vnd.apple.mpegurl')) return this.#native();
    const { default: Hls } = await import('./hls.min.mjs');
    if (this.#stopped) return;
    if (!Hls.isSupported()) return this.#native();
    const hls = this.#hls = new Hls({
      lowLatencyMode: true,
      backBufferLength: 10,
      liveDurationInfinity: true,
      // Catch up by playing a little faster; nobody hears 4 %.
      maxLiveSyncPlaybackRate: 1.04,
      // hls.js makes its worker from a blob, which the page's script policy forbids.
      enableWorker: false,
    });
    hls.on(Hls.Events.ERROR, (_, error) => this.#error(Hls, error));
    hls.on(Hls.Events.FRAG_BUFFERED, (_, { frag, part, stats }) => {
      this.#lostSince = 0;
      const rate = stats.total * 8 / ((part ?? frag).duration || 1);
      const before = this.#rates.get(frag.type) ?? rate;
      this.#rates.set(frag.type, before + (rate - before) / 4);
    });
    hls.loadSource(this.#playlist.href);
    hls.attachMedia(this.#video);
  }

  #native() {
    if (!this.#video.canPlayType('application/vnd.apple.mpegurl')) {
      throw new Error('this browser plays neither WebRTC nor HLS');
    }
    this.#video.onerror = () => this.#end(this.#video.error?.message ?? 'the browser gave up');
    this.#video.src = this.#playlist.href;
  }

  #error(Hls, { fatal, type, details, response }) {
    if (!fatal) return;
    this.#lostSince ||= performance.now();
    const gone = response?.code === 404 || performance.now() - this.#lostSince > LOST;
    if (type === Hls.ErrorTypes.NETWORK_ERROR && !gone) setTimeout(() => this.#hls?.startLoad(), 1000);
    else if (type === Hls.ErrorTypes.MEDIA_ERROR && !gone) this.#hls.recoverMediaError();
    else this.#end(details);
  }

  stop() {
    this.#stopped = true;
    this.#hls?.destroy();
    this.#hls = null;
    this.#video.onerror = null;
    this.#video.removeAttribute('src');
    this.#video.load();
  }

  async figures() {
    const hls = this.#hls;
    if (!hls) {
      // Safari gives the time at which the picture was taken, if the playlist does.
      const start = this.#video.getStartDate?.().getTime();
      return start > 0 ? { latency: (Date.now() - start) / 1000 - this.#video.currentTime } : {};
    }
    const latency = hls.playingDate ? (Date.now() - hls.playingDate.getTime()) / 1000 : hls.latency;
    const bitrate = [...this.#rates.values()].reduce((sum, rate) => sum + rate, 0);
    // If the viewer's clock is wrong, hls.js's own estimate has to do.
    return { latency: latency > 0 && latency < 600 ? latency : hls.latency, bitrate };
  }

  #end(reason) {
    if (!this.#stopped) this.onended(reason);
  }
}
