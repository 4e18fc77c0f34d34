// Opens a watch page in a real browser and prints the ages of its pictures when shown, as one JSON object: the ages in
// ms, how many pictures could not be read, and the errors.
//
//   node latency.mjs URL SETTLE_SECONDS SECONDS
//
// The picture contains its time as squares, see clock_picture.rs.

import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const { chromium } = createRequire(new URL('../../tests/browser/', import.meta.url))('playwright-core');
const [url, settle, seconds] = process.argv.slice(2);

/** Runs in the page. */
function sample() {
  const squares = 26;
  const video = document.querySelector('video');
  const canvas = document.createElement('canvas');
  canvas.width = squares * 4;
  canvas.height = 4;
  const context = canvas.getContext('2d', { willReadFrequently: true });
  window.seen = [];
  window.unread = 0;
  const read = (now, { expectedDisplayTime }) => {
    // The picture is on the screen at the next refresh.
    const shown = Date.now() + Math.max(0, expectedDisplayTime - performance.now());
    context.drawImage(video, 0, 0, squares * 32, 32, 0, 0, canvas.width, canvas.height);
    const { data } = context.getImageData(0, 2, canvas.width, 1);
    const bits = Array.from({ length: squares }, (_, n) => (data[(n * 4 + 2) * 4] > 127 ? 1 : 0));
    const value = (from, to) => bits.slice(from, to).reduce((sum, bit) => sum * 2 + bit, 0);
    const time = value(2, 18);
    if (bits[0] === 1 && bits[1] === 0 && value(18, 26) === ((time >> 8) ^ (time & 255))) {
      window.seen.push({ at: performance.now(), age: (((shown - time) % 65536) + 65536) % 65536 });
    } else {
      window.unread += 1;
    }
    video.requestVideoFrameCallback(read);
  };
  video.requestVideoFrameCallback(read);
}

const profile = mkdtempSync(join(tmpdir(), 'lenscast-browser-'));
const flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-features=WebRtcHideLocalIpsWithMdns,MediaRouter',
  '--allow-loopback-in-peer-connection', '--autoplay-policy=no-user-gesture-required', '--mute-audio'];
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args: flags,
  viewport: { width: 1280, height: 720 },
});
const outcome = { ages: [], unread: 0, errors: [] };
try {
  const page = context.pages()[0] ?? await context.newPage();
  page.on('pageerror', (error) => outcome.errors.push(error.message));
  await page.goto(url, { waitUntil: 'commit' });
  await page.waitForFunction(() => document.querySelector('video')?.getVideoPlaybackQuality().totalVideoFrames > 0,
    null, { timeout: 20000, polling: 50 });
  await page.waitForTimeout(Number(settle) * 1000);
  await page.evaluate(sample);
  await page.waitForTimeout(Number(seconds) * 1000);
  const { seen, unread, figures } = await page.evaluate(() => (
    { seen: window.seen, unread: window.unread, figures: document.getElementById('figures')?.textContent }));
  Object.assign(outcome, { ages: seen.map(({ age }) => age), unread, figures });
} catch (error) {
  outcome.errors.push(error.message);
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
console.log(JSON.stringify(outcome));
