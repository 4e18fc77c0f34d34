// An app with the unmodified @mentra/sdk, for a test on the other side of its standard input and output.
//
// In: one JSON line per call, {"id": 1, "call": "startManagedStream", "arguments": [{…}]}; a name is looked up in session.camera.
// Out: lines that begin with "@@ ", JSON behind it: {"ready": port}, {"session": id}, {"stopped": reason},
// {"id", "result"} or {"id", "error"} for each call, {"managed": status} and {"unmanaged": status}, {"fault": what nobody caught}.
//
//   node app.mjs PACKAGE API_KEY PORT
import readline from 'node:readline'
import { AppServer } from '@mentra/sdk'

const [packageName, apiKey, port] = process.argv.slice(2)
const say = (what) => process.stdout.write(`@@ ${JSON.stringify(what)}\n`)
process.on('unhandledRejection', (reason) => say({ fault: `unhandled rejection: ${reason?.stack ?? reason}` }))
process.on('uncaughtException', (error) => say({ fault: `uncaught exception: ${error.stack}` }))

let session
class App extends AppServer {
  async onSession(opened, sessionId) {
    session = opened
    session.camera.onManagedStreamStatus((managed) => say({ managed }))
    session.camera.onStreamStatus((unmanaged) => say({ unmanaged }))
    session.events.onError((error) => say({ sdkError: error.message }))
    say({ session: sessionId })
  }

  async onStop(sessionId, userId, reason) {
    say({ stopped: reason })
  }
}

const app = new App({ packageName, apiKey, port: Number(port) })
await app.start()
say({ ready: Number(port) })

// What a call gives, with a photo's bytes counted instead of shown.
const shown = (value) =>
  value?.buffer instanceof Buffer ? { ...value, buffer: undefined, bytes: value.buffer.length, jpeg: value.buffer.subarray(0, 2).toString('hex') } : (value ?? null)

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { id, call, arguments: args = [] } = JSON.parse(line)
  if (call === 'dropSocket') {
    // As if the network were gone: no close frame.
    session.ws._socket.destroy()
    say({ id, result: null })
    continue
  }
  Promise.resolve()
    .then(() => session.camera[call](...args))
    .then((value) => say({ id, result: shown(value) }), (error) => say({ id, error: String(error?.message ?? error) }))
}
process.exit(0)
