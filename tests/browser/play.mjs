// Plays a URL in a real browser and prints what was seen, as one JSON object.
//
//   node play.mjs --mode watch|whep|hls|dash --url URL [--seconds 6] [--limit 20] [--listen 2] [--screenshot FILE] [--viewport 1280x720]
//
// `watch` opens the page at URL. `whep`, `hls` and `dash` play URL with a player of their own kind in an empty page.
// Playback is sampled from the first picture on for `seconds`; without one within `limit` seconds the exit code is 1.
// With `listen` playback goes on, for `limit` seconds at most, until so long a stretch of WebRTC's sound was whole: `heard` tells of
// the best stretch. A browser that was starved of processor time makes up the sound that it reads too late, a server's gaps recur.
// Before that object come lines about what happens: {"state": what the page shows} at each change, {"now": sample} about
// once a second. The line `shoot` on standard input takes the screenshot (else the end does), `stop` ends playback early.

import { createServer } from 'node:http';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

import { chromium } from 'playwright-core';

const { values: wanted } = parseArgs({
  options: {
    mode: { type: 'string', default: 'watch' },
    url: { type: 'string' },
    seconds: { type: 'string', default: '6' },
    limit: { type: 'string', default: '20' },
    listen: { type: 'string' },
    screenshot: { type: 'string' },
    viewport: { type: 'string', default: '1280x720' },
  },
});
const seconds = Number(wanted.seconds);
const limit = Number(wanted.limit) * 1000;
const modules = new URL('./node_modules/', import.meta.url);

const players = {
  whep: `
    const connection = window.connection = new RTCPeerConnection();
    connection.addTransceiver('video', { direction: 'recvonly' });
    connection.addTransceiver('audio', { direction: 'recvonly' });
    const media = new MediaStream();
    connection.ontrack = ({ track }) => { media.addTrack(track); video.srcObject = media; };
    await connection.setLocalDescription(await connection.createOffer());
    const answer = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/sdp' }, body: connection.localDescription.sdp });
    if (answer.status !== 201) throw new Error('WHEP: ' + answer.status);
    await connection.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
    await video.play();`,
  hls: `
    const hls = new Hls({ lowLatencyMode: true });
    window.player = hls;
    window.parts = 0;
    hls.on(Hls.Events.FRAG_BUFFERED, (_, { part }) => { if (part) window.parts += 1; });
    hls.on(Hls.Events.ERROR, (_, error) => window.errors.push('hls.js ' + error.details + (error.fatal ? ' (fatal)' : '')));
    hls.loadSource(url);
    hls.attachMedia(video);
    hls.on(Hls.Events.MANIFEST_PARSED, () => video.play());`,
  dash: `
    const player = window.player = dashjs.MediaPlayer().create();
    player.on('error', ({ error }) => window.errors.push('dash.js ' + error.message));
    // Without this it asks a host in the internet for the time.
    player.updateSettings({ streaming: { utcSynchronization: { enabled: false } } });
    // It has to start playback itself: it refreshes the manifest only after a 'play' that it saw.
    player.initialize(video, url, true);`,
};
const scripts = { hls: 'hls.js/dist/hls.min.js', dash: 'dashjs/dist/modern/umd/dash.all.min.js' };

/** An empty page with the player, and the player's script. */
function host(mode, url) {
  const page = `<!doctype html><title>play</title><video id="video" playsinline></video>
    ${scripts[mode] ? '<script src="/player.js"></script>' : ''}
    <script type="module">
      window.errors = [];
      const video = document.getElementById('video');
      const url = ${JSON.stringify(url)};
      try { ${players[mode]} } catch (error) { window.errors.push(error.message); }
    </script>`;
  const server = createServer((request, response) => {
    const script = request.url === '/player.js';
    response.setHeader('content-type', script ? 'text/javascript' : 'text/html');
    response.end(script ? readFileSync(new URL(scripts[mode], modules)) : page);
  });
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
}

/** WebRTC's totals of the sound until now: seconds, samples, those of them that were made up, energy. */
async function listen() {
  const reports = [...(await window.connection?.getStats() ?? new Map()).values()];
  const sound = reports.find(({ type, kind }) => type === 'inbound-rtp' && kind === 'audio');
  return { seconds: sound?.totalSamplesDuration ?? 0, samples: sound?.totalSamplesReceived ?? 0,
    concealed: sound?.concealedSamples ?? 0, energy: sound?.totalAudioEnergy ?? 0 };
}

/** Of the stretches of sound that end now and last at least `length` seconds the one with the smallest share made up. */
function bestStretch(totals, length) {
  const now = totals.at(-1);
  return totals.filter((then) => now.seconds - then.seconds >= length).map((then) => ({
    seconds: now.seconds - then.seconds,
    energy: now.energy - then.energy,
    concealed: (now.concealed - then.concealed) / (now.samples - then.samples),
  })).sort((one, other) => one.concealed - other.concealed)[0];
}

/** What the page shows at this moment. */
function look() {
  const video = document.querySelector('video');
  const quality = video.getVideoPlaybackQuality();
  return {
    at: performance.now(),
    time: video.currentTime,
    decoded: quality.totalVideoFrames,
    dropped: quality.droppedVideoFrames,
    width: video.videoWidth,
    height: video.videoHeight,
    sound: video.webkitAudioDecodedByteCount ?? 0,
    state: document.body.dataset.state,
    figures: document.getElementById('figures')?.textContent,
    parts: window.parts,
    buffered: Array.from(video.buffered, (_, n) => [video.buffered.start(n), video.buffered.end(n)]),
    ready: video.readyState,
    rate: video.playbackRate,
    latency: window.player?.latency ?? window.player?.getCurrentLiveLatency?.(),
  };
}

const say = (what) => console.log(JSON.stringify(what));
let stopped = false;
let shoot = async () => {};
createInterface({ input: process.stdin }).on('line', (line) => {
  if (line === 'stop') stopped = true;
  if (line === 'shoot') shoot().catch(() => {});
});

const profile = mkdtempSync(join(tmpdir(), 'lenscast-browser-'));
const [width, height] = wanted.viewport.split('x').map(Number);
const flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-features=WebRtcHideLocalIpsWithMdns,MediaRouter',
  '--allow-loopback-in-peer-connection', '--autoplay-policy=no-user-gesture-required', '--mute-audio'];
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args: flags, viewport: { width, height },
});
let served;
let failed = true;
const seen = { mode: wanted.mode, errors: [] };
try {
  const page = context.pages()[0] ?? await context.newPage();
  page.on('pageerror', (error) => seen.errors.push(error.message));
  page.on('console', (message) => { if (message.type() === 'error') seen.errors.push(message.text()); });
  let target = wanted.url;
  if (wanted.mode !== 'watch') {
    served = await host(wanted.mode, wanted.url);
    target = `http://127.0.0.1:${served.address().port}/`;
  }
  const opened = Date.now();
  await page.goto(target, { waitUntil: 'commit' });
  await page.waitForFunction(() => document.querySelector('video')?.getVideoPlaybackQuality().totalVideoFrames > 0,
    null, { timeout: limit, polling: 20 }).catch(() => {});
  seen.firstPictureMs = Date.now() - opened;
  const first = await page.evaluate(look);
  const samples = [first];
  let shot = false;
  shoot = async () => {
    shot = true;
    if (wanted.screenshot) await page.screenshot({ path: wanted.screenshot });
  };
  const until = Date.now() + seconds * 1000;
  const listenUntil = wanted.listen ? Date.now() + limit : 0;
  const totals = [];
  say({ state: first.state, now: first });
  while ((Date.now() < until || Date.now() < listenUntil && !(seen.heard?.concealed < 0.01)) && !stopped) {
    await page.waitForTimeout(250);
    if (wanted.listen) {
      totals.push(await page.evaluate(listen));
      const heard = bestStretch(totals, Number(wanted.listen));
      if (heard && !(seen.heard?.concealed <= heard.concealed)) seen.heard = heard;
    }
    const now = await page.evaluate(look);
    if (now.state !== samples.at(-1).state) say({ state: now.state });
    if (samples.length % 4 === 0) say({ now });
    samples.push(now);
  }
  const last = samples.at(-1);
  seen.seconds = (last.at - first.at) / 1000;
  seen.advanced = last.time - first.time;
  seen.decoded = last.decoded - first.decoded;
  seen.dropped = last.dropped - first.dropped;
  seen.size = [last.width, last.height];
  seen.sound = last.sound - first.sound;
  // The longest time without a new picture, as far as samples tell.
  let changed = first;
  seen.longestStillMs = 0;
  for (const sample of samples) {
    if (sample.decoded > changed.decoded) changed = sample;
    seen.longestStillMs = Math.max(seen.longestStillMs, Math.round(sample.at - changed.at));
  }
  seen.states = samples.map((sample) => sample.state).filter((state, n, all) => state !== all[n - 1]);
  seen.figures = last.figures;
  seen.errors.push(...await page.evaluate(() => window.errors ?? []));
  seen.parts = last.parts;
  // A player that stood still once stays behind for as long.
  const latencies = samples.map((sample) => sample.latency).filter((latency) => latency > 0);
  seen.latency = latencies.length ? Math.min(...latencies) : undefined;
  if (!shot) await shoot();
  failed = !(seen.decoded > 0);
  // Leaves as a viewer does; a browser that is closed from outside leaves its pages no time.
  await page.goto('about:blank');
  await page.waitForTimeout(200);
} catch (error) {
  seen.errors.push(error.message);
} finally {
  await context.close();
  served?.close();
  rmSync(profile, { recursive: true, force: true });
}
say(seen);
process.exit(failed ? 1 : 0);
