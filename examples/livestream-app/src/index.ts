// Goes live as soon as a user starts the app, prints where to watch, and says what happens until the user stops it.
import { AppServer, AppSession } from '@mentra/sdk'

const apiKey = process.env.API_KEY
if (!apiKey) {
  console.error('API_KEY is not set; `lenscastctl cloud app add` prints it')
  process.exit(2)
}

class LivestreamApp extends AppServer {
  protected async onSession(session: AppSession, _sessionId: string, userId: string): Promise<void> {
    session.camera.onManagedStreamStatus(({ status, message }) => {
      console.log(`${userId}: ${status}${message ? ` (${message})` : ''}`)
    })

    // After a restart of this app its stream may still run: join it instead of starting another.
    const { hasActiveStream, streamInfo } = await session.camera.checkExistingStream()
    if (hasActiveStream && streamInfo?.type === 'unmanaged') {
      console.log(`${userId}: ${streamInfo.requestingAppId} streams to a server of its own; nothing to share`)
      return
    }

    // Not awaited: the webhook that started the session is answered when onSession returns.
    session.camera
      .startManagedStream({ quality: '720p', enableWebRTC: true })
      .then((stream) => console.log(`${userId}: watch at ${stream.previewUrl}\n  HLS ${stream.hlsUrl}\n  WebRTC ${stream.webrtcUrl}`))
      .catch((error: Error) => console.error(`${userId}: no stream: ${error.message}`))
  }

  protected async onStop(_sessionId: string, userId: string, reason: string): Promise<void> {
    // The cloud takes the app out of the stream; the last app to leave ends it.
    console.log(`${userId}: left (${reason})`)
  }
}

const port = Number(process.env.PORT ?? 7010)
await new LivestreamApp({ packageName: process.env.PACKAGE ?? 'org.example.livestream', apiKey, port }).start()
console.log(`listening on http://127.0.0.1:${port}/webhook`)
