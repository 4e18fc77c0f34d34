//! Connections that go wrong, with time limits short enough to wait for. Admission is tested in tests/cloud/gateway.rs.

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::*;
use crate::cloud::store::Store;

/// Far longer than anything here takes: a hang becomes a failure.
const SOON: Duration = Duration::from_secs(20);
const NEVER: Duration = Duration::from_hours(1);
/// No limit is ever reached, so that each test shortens only the one it is about.
const PATIENT: Timing = Timing { init: NEVER, ping: NEVER, silence: NEVER, ..TIMING };

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    timeout(SOON, wait).await.expect("it hangs")
}

struct Scene {
    _folder: tempfile::TempDir,
    key: Secret,
    url: String,
    events: mpsc::Receiver<GatewayEvent>,
}

impl Scene {
    /// `room`: how many events the task's queue holds.
    async fn start(timing: Timing, room: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("cloud.sqlite")).unwrap();
        let registry = Registry::open(&Config::default(), store).await.unwrap();
        let key = registry.add_app("org.one", [].into(), None).await.unwrap();
        registry.add_session("u", "org.one").await.unwrap();
        let (sender, events) = mpsc::channel(room);
        let router = Gateway::with_timing(&Config::default(), registry, sender, timing).router();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/app-ws", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { _folder: folder, key, url, events }
    }

    async fn connect(&self) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
        soon(Box::pin(connect_async(&self.url))).await.unwrap().0
    }

    /// A new app that has its acknowledgement.
    async fn app(&self) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
        let mut app = self.connect().await;
        let init = json!({
            "type": "tpa_connection_init", "sessionId": "u-org.one", "packageName": "org.one", "apiKey": self.key.expose(),
        });
        app.send(Message::text(init.to_string())).await.unwrap();
        assert!(soon(app.next()).await.unwrap().unwrap().to_text().unwrap().contains("tpa_connection_ack"));
        app
    }

    async fn up(&mut self) -> Outgoing {
        match soon(self.events.recv()).await.unwrap() {
            GatewayEvent::AppUp { outgoing, .. } => outgoing,
            other => panic!("{other:?}"),
        }
    }
}

async fn close_code(app: &mut WebSocketStream<MaybeTlsStream<TcpStream>>) -> u16 {
    loop {
        match soon(app.next()).await {
            Some(Ok(Message::Close(frame))) => return frame.unwrap().code.into(),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn who_does_not_say_who_it_is_is_sent_away_but_may_come_back() {
    let scene = Scene::start(Timing { init: Duration::from_millis(50), ..PATIENT }, 8).await;
    let mut app = scene.connect().await;
    let error = soon(app.next()).await.unwrap().unwrap();
    assert!(error.to_text().unwrap().contains("INIT_TIMEOUT"));
    assert_eq!(close_code(&mut app).await, code::TRY_AGAIN);
}

#[tokio::test]
async fn an_app_that_died_without_a_word_is_noticed_and_a_quiet_one_is_kept() {
    let timing = Timing { ping: Duration::from_millis(100), silence: Duration::from_secs(1), ..PATIENT };
    let mut scene = Scene::start(timing, 8).await;
    // It is not read from, so it answers no pings.
    let dead = scene.app().await;
    scene.up().await;
    let down = soon(scene.events.recv()).await.unwrap();
    assert!(matches!(down, GatewayEvent::AppDown { .. }), "{down:?}");
    drop(dead);
    let mut quiet = scene.app().await;
    scene.up().await;
    let read = tokio::spawn(async move { while let Some(Ok(_)) = quiet.next().await {} });
    let nothing = timeout(Duration::from_secs(3), scene.events.recv()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    read.abort();
}

#[tokio::test]
async fn a_task_that_takes_no_events_can_still_send_and_loses_nothing() {
    let mut scene = Scene::start(PATIENT, 1).await;
    let mut app = scene.app().await;
    let outgoing = scene.up().await;
    for number in 0..20 {
        app.send(Message::text(number.to_string())).await.unwrap();
    }
    assert!(outgoing.send("still here"));
    assert_eq!(soon(app.next()).await.unwrap().unwrap().to_text().unwrap(), "still here");
    for number in 0..20 {
        let event = soon(scene.events.recv()).await.unwrap();
        assert!(matches!(&event, GatewayEvent::AppMessage { text, .. } if *text == number.to_string()), "{event:?}");
    }
}

#[tokio::test]
async fn a_flood_is_slowed_down() {
    let mut scene = Scene::start(PATIENT, 64).await;
    let mut app = scene.app().await;
    scene.up().await;
    let flood = tokio::spawn(async move { while app.send(Message::text("x")).await.is_ok() {} });
    // A burst of two seconds' worth, then what the rate allows; without a limit there are tens of thousands a second.
    let mut taken = 0;
    let _ = timeout(Duration::from_secs(1), async {
        while let Some(event) = scene.events.recv().await {
            taken += u32::from(matches!(event, GatewayEvent::AppMessage { .. }));
        }
    })
    .await;
    assert!((200..=400).contains(&taken), "{taken}");
    flood.abort();
}

#[tokio::test]
async fn an_app_that_does_not_read_is_dropped_and_holds_nothing_up() {
    let timing = Timing { write: Duration::from_millis(200), ..PATIENT };
    let mut scene = Scene::start(timing, 8).await;
    let stuck = scene.app().await;
    let outgoing = scene.up().await;
    let message = "x".repeat(60_000);
    while outgoing.is_open() {
        outgoing.send(message.as_str());
        tokio::task::yield_now().await;
    }
    assert!(matches!(soon(scene.events.recv()).await, Some(GatewayEvent::AppDown { .. })));
    assert!(!outgoing.send("x"));
    drop(stuck);
}
