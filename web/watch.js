// The watch page: WebRTC first, then low-latency HLS. The server says whether the stream is live; a player only says
// whether pictures arrive. The page shows a state derived from both.

import { HlsPlayer } from './hls.js';
import { WhepPlayer } from './whep.js';

const POLL = 2000; // ms between two questions for the stream's state
const POLL_HIDDEN = 10000; // of a page that nobody looks at
const RETRY_FIRST = 500; // ms before a player that failed is tried again,
const RETRY_LAST = 8000; // and at most
const FROZEN = 2500; // ms without a new picture after which playback is not called live
const FROZEN_RESTART = 8000; // and after which the player is made anew, though the server says live
const WHEP_PATIENCE = 6000; // ms that WebRTC may take to its first picture before HLS plays
const IDLE = 3000; // ms without a pointer's movement after which the controls fade

const id = decodeURIComponent(location.pathname.replace(/\/+$/, '').split('/').pop());
const query = new URLSearchParams(location.search);
const element = (name) => document.getElementById(name);
const video = element('video');
const prefer = query.get('player'); // 'webrtc' or 'hls': only that one

let state = { state: 'connecting' };
let player = null;
let attempts = 0;
let whepFailures = 0;
let retryTimer = 0;
let lastPicture = 0;
let startedAt = 0;
let lastProgress = -1;

document.body.classList.toggle('embed', query.has('embed'));

async function askState() {
  try {
    const response = await fetch(new URL(`../api/watch/${encodeURIComponent(id)}`, location.href), {
      cache: 'no-store', signal: AbortSignal.timeout(5000),
    });
    if (response.status === 404) state = { state: 'ended' };
    else if (response.ok) state = await response.json();
    else state = { ...state, unreachable: true };
  } catch {
    // Playback may go on all the same; only the player knows.
    state = { ...state, unreachable: true };
  }
  decide();
}

function decide() {
  if (state.state === 'ended') stop();
  // While the glasses reconnect the player stays: both kinds resume by themselves when pictures arrive again.
  else if (!player && !retryTimer && (state.hls || state.whep)) start();
  show();
}

function choose() {
  const webrtc = state.whep && prefer !== 'hls' && 'RTCPeerConnection' in window;
  // After two failures in a row WebRTC is not tried for a while: UDP may be blocked here.
  if (webrtc && (prefer === 'webrtc' || !state.hls || whepFailures < 2)) {
    return new WhepPlayer(video, new URL(state.whep, location.href), { patience: WHEP_PATIENCE });
  }
  return state.hls && prefer !== 'webrtc' ? new HlsPlayer(video, new URL(state.hls, location.href)) : null;
}

function start() {
  const chosen = choose();
  if (!chosen) return;
  player = chosen;
  startedAt = performance.now();
  lastPicture = 0;
  lastProgress = -1;
  chosen.onended = (reason) => { if (player === chosen) failed(reason); };
  chosen.start().catch((error) => { if (player === chosen) failed(error.message, error.never); });
}

function failed(reason, never = false) {
  console.info(`${player.name}: ${reason}`);
  const webrtc = player instanceof WhepPlayer;
  const wasPlaying = lastPicture > 0;
  if (webrtc) whepFailures = wasPlaying ? 0 : whepFailures + (never ? 2 : 1);
  stop();
  attempts = wasPlaying ? 0 : attempts + 1;
  // The change from WebRTC to HLS needs no pause.
  const delay = webrtc && whepFailures >= 2 && state.hls && prefer !== 'webrtc' ? 0
    : Math.min(RETRY_LAST, RETRY_FIRST * 1.6 ** attempts) * (0.75 + Math.random() / 2);
  retryTimer = setTimeout(() => { retryTimer = 0; decide(); }, delay);
  show();
}

function stop() {
  clearTimeout(retryTimer);
  retryTimer = 0;
  player?.stop();
  player = null;
}

// Grows while pictures arrive. With WebRTC the video's time goes on even without pictures.
function progress() {
  const pictures = video.srcObject ? video.getVideoPlaybackQuality?.().totalVideoFrames : 0;
  return pictures || video.currentTime;
}

function watchPictures() {
  const now = performance.now();
  const reached = progress();
  if (video.readyState >= 2 && reached !== lastProgress && !video.paused) {
    if (lastProgress >= 0) lastPicture = now;
    lastProgress = reached;
  }
  const since = now - Math.max(lastPicture, startedAt);
  if (player && state.state === 'live' && !video.paused && !document.hidden && since > FROZEN_RESTART) {
    failed('no pictures');
  }
  show();
}

function shown() {
  if (state.state === 'ended') return ['ended', 'Ended', 'The stream has ended.'];
  const playing = lastPicture > 0 && performance.now() - lastPicture < FROZEN;
  if (playing) return ['live', 'LIVE', ''];
  if (video.paused && player && !element('play').hidden) return ['paused', 'Paused', ''];
  if (state.state === 'reconnecting') return ['reconnecting', 'Reconnecting', 'The camera lost its connection and is coming back…'];
  if (state.unreachable) return ['reconnecting', 'Reconnecting', 'No connection to the server; trying again…'];
  if (lastPicture > 0) return ['reconnecting', 'Reconnecting', 'Waiting for the next picture…'];
  return ['connecting', 'Connecting', 'Connecting…'];
}

function show() {
  const [name, badge, notice] = shown();
  if (document.body.dataset.state !== name) {
    document.body.dataset.state = name;
    element('badge').textContent = badge;
    element('notice-text').textContent = notice;
    document.title = badge;
    // Informs a page that embeds this one.
    if (window.parent !== window) window.parent.postMessage({ type: 'lenscast', state: name }, '*');
  }
}

async function showFigures() {
  const figures = await player?.figures().catch(() => null);
  const parts = [];
  if (figures && lastPicture > 0) {
    parts.push(player.name);
    if (figures.latency !== undefined) {
    const delay = figures.latency < 1 ? `${Math.round(figures.latency * 1000)} ms` : `${figures.latency.toFixed(1)} s`;
    parts.push(`${delay} behind the server`);
  }
    if (figures.bitrate) parts.push(figures.bitrate >= 1e6 ? `${(figures.bitrate / 1e6).toFixed(1)} Mbit/s` : `${Math.round(figures.bitrate / 1e3)} kbit/s`);
    if (video.videoHeight) parts.push(`${video.videoHeight}p`);
  }
  element('figures').textContent = parts.join(' · ');
}

function play() {
  // Every browser allows autoplay without sound, unless it saves power.
  video.play().then(() => { element('play').hidden = true; }, (error) => {
    if (error.name === 'NotAllowedError') element('play').hidden = false;
  });
}

video.addEventListener('loadedmetadata', play);
video.addEventListener('playing', () => { element('play').hidden = true; });
// A browser pauses a video that is out of sight. A live one must continue at the live edge when it is back.
document.addEventListener('visibilitychange', () => {
  if (document.hidden) return;
  startedAt = performance.now();
  if (video.srcObject || video.currentSrc) play();
  askState();
});
addEventListener('online', () => { attempts = whepFailures = 0; askState(); });
addEventListener('pagehide', () => stop());
addEventListener('pageshow', (event) => { if (event.persisted) askState(); });

element('play').addEventListener('click', play);
element('mute').addEventListener('click', () => {
  video.muted = !video.muted;
  element('mute').setAttribute('aria-pressed', String(video.muted));
  element('mute').setAttribute('aria-label', video.muted ? 'Sound on' : 'Sound off');
  play();
});
element('full').addEventListener('click', () => {
  const stage = element('stage');
  if (document.fullscreenElement) document.exitFullscreen();
  else if (stage.requestFullscreen) stage.requestFullscreen().catch(() => {});
  else video.webkitEnterFullscreen?.(); // iPhones: only the video itself
});
if (!document.fullscreenEnabled && !video.webkitSupportsFullscreen && !video.webkitEnterFullscreen) element('full').hidden = true;

let idleTimer = 0;
function awake() {
  document.body.classList.remove('idle');
  clearTimeout(idleTimer);
  idleTimer = setTimeout(() => document.body.classList.add('idle'), IDLE);
}
for (const event of ['pointermove', 'pointerdown', 'keydown']) addEventListener(event, awake, { passive: true });
awake();

(async function poll() {
  await askState();
  setTimeout(poll, document.hidden ? POLL_HIDDEN : POLL);
})();
setInterval(watchPictures, 250);
setInterval(showFigures, 1000);
