//! Who is admitted, what they are told, and how they are sent away: apps, glasses, the control socket, apps' webhooks.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use futures_util::{SinkExt, StreamExt};
use lenscast::cloud::config::Config;
use lenscast::cloud::control::{self, ControlEvent, Event, Service, Streams};
use lenscast::cloud::credential::KeyHash;
use lenscast::cloud::gateway::{DeviceMessage, Gateway, GatewayEvent};
use lenscast::cloud::http_client;
use lenscast::cloud::photo_delivery::{Outcome, PhotoDelivery, Target};
use lenscast::cloud::registry::Registry;
use lenscast::cloud::store::Store;
use lenscast::cloud::webhook::{LaunchError, Launcher, Started, StopReason};
use lenscast::link::control_client::{Client, ClientError};
use lenscast::protocol::Secret;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error;

/// Far longer than anything here takes: a hang becomes a failure.
const SOON: Duration = Duration::from_secs(20);
const JWT_SECRET: &str = "a-secret-of-the-phone-cloud-with-32-bytes";
/// HS256 over `{"email":"phone@e.com"}` with the secret above; made with Python's hmac.
const PHONE: &str = "eyJhbGciOiJIUzI1NiJ9.eyJlbWFpbCI6InBob25lQGUuY29tIn0.CEPTa22Qt4xlKPI3YcoMiqukGPh-bYW4r4LnOPIJduM";

async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("waited {SOON:?} in vain for {what}"))
}

struct Scene {
    folder: tempfile::TempDir,
    address: SocketAddr,
    registry: Registry,
    gateway: Gateway,
    launcher: Launcher,
    events: mpsc::Receiver<GatewayEvent>,
    control: mpsc::Receiver<ControlEvent>,
    end: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Scene {
    /// `webhook` is the address of the apps' server, if there is one.
    async fn start(webhook: Option<SocketAddr>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        std::fs::write(folder.path().join("jwt"), JWT_SECRET).unwrap();
        let hash = |secret: &str| KeyHash::of(secret).to_hex();
        let webhook = webhook.map_or_else(String::new, |to| format!("webhook_url = \"http://{to}/webhook\"\n"));
        let text = format!(
            "[http]\nlisten = \"{address}\"\n[phone]\njwt_secret_file = \"{}\"\n\
             [[app]]\npackage = \"org.cam\"\napi_key_sha256 = \"{}\"\npermissions = [\"CAMERA\", \"MICROPHONE\"]\n{webhook}\
             [[app]]\npackage = \"org.all\"\napi_key_sha256 = \"{}\"\npermissions = [\"ALL\"]\n\
             [[app]]\npackage = \"org.none\"\napi_key_sha256 = \"{}\"\n\
             [[device]]\nname = \"live\"\nuser = \"u-1@e.com\"\ntoken_sha256 = \"{}\"\n",
            folder.path().join("jwt").display(),
            hash("key-cam"),
            hash("key-all"),
            hash("key-none"),
            hash("token-live"),
        );
        let path = folder.path().join("lenscast-cloud.toml");
        std::fs::write(&path, text).unwrap();
        let config = Config::load(Some(&path)).unwrap();
        let store = Store::open(&folder.path().join("cloud.sqlite")).unwrap();
        let registry = Registry::open(&config, store).await.unwrap();
        let (events_in, events) = mpsc::channel(64);
        let gateway = Gateway::new(&config, registry.clone(), events_in);
        let client = http_client::client(None).await.unwrap();
        let launcher = Launcher::new(&config, client, registry.clone(), gateway.clone());
        let (end, ended) = watch::channel(false);
        let (control_in, control) = mpsc::channel(8);
        let mut tasks = JoinSet::new();
        let service = Service { registry: registry.clone(), gateway: gateway.clone(), launcher: launcher.clone() };
        let socket = control::bind(&folder.path().join("cloud.sock"), None).unwrap();
        tasks.spawn(control::serve(socket, service, control_in, ended));
        let router = gateway.router().into_make_service_with_connect_info::<SocketAddr>();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { folder, address, registry, gateway, launcher, events, control, end, _tasks: tasks }
    }

    async fn event(&mut self) -> GatewayEvent {
        soon("an event", self.events.recv()).await.unwrap()
    }

    async fn http(&self, path: &str) -> (u16, Value) {
        let client = http_client::client(None).await.unwrap();
        let answer = soon(path, client.get(format!("http://{}{path}", self.address)).send()).await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    async fn app(&self) -> Peer {
        Peer::connect(&format!("ws://{}/app-ws", self.address), None).await.unwrap()
    }

    async fn app_with(&self, package: &str, key: &str, session: &str) -> Peer {
        let mut app = self.app().await;
        app.say(&init(package, key, session)).await;
        app
    }

    /// The connection, or the status and the code in the body if it is refused.
    async fn glasses(&self, authorization: Option<&str>) -> Result<Peer, (u16, String)> {
        Peer::connect(&format!("ws://{}/glasses-ws", self.address), authorization).await
    }

    async fn ctl(&self) -> Client {
        Client::connect(&self.folder.path().join("cloud.sock")).await.unwrap()
    }
}

fn init(package: &str, key: &str, session: &str) -> Value {
    json!({"type": "tpa_connection_init", "sessionId": session, "packageName": package, "apiKey": key, "timestamp": "x"})
}

struct Peer(tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>);

impl Peer {
    async fn connect(url: &str, authorization: Option<&str>) -> Result<Self, (u16, String)> {
        let mut request = url.into_client_request().unwrap();
        if let Some(authorization) = authorization {
            request.headers_mut().insert("authorization", authorization.parse().unwrap());
        }
        match soon("the handshake", Box::pin(tokio_tungstenite::connect_async(request))).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(response)) => {
                let body: Value = serde_json::from_slice(response.body().as_deref().unwrap_or_default()).unwrap();
                assert_eq!(body["type"], "connection_error");
                Err((response.status().as_u16(), body["code"].as_str().unwrap().to_owned()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn say(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next message, or the code of the other side's close frame.
    async fn hear(&mut self) -> Result<Value, u16> {
        loop {
            match soon("a message", self.0.next()).await {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }
}

#[tokio::test]
async fn who_may_ask_what_over_http() {
    let scene = Scene::start(None).await;
    let permissions = |names: &[&str]| {
        let list: Vec<Value> = names.iter().map(|name| json!({"type": name})).collect();
        json!({"permissions": list})
    };
    for (path, status, body) in [
        ("/healthz", 200, json!({"status": "ok"})),
        ("/api/public/permissions/org.cam", 200, permissions(&["MICROPHONE", "CAMERA"])),
        ("/api/public/permissions/org.none", 200, permissions(&[])),
        ("/api/public/permissions/org.unknown", 404, json!({"error": "no such app"})),
        ("/api/public/permissions/", 404, Value::Null),
        ("/app-ws", 400, Value::Null),
        ("/glasses-ws", 400, Value::Null),
        ("/api/apps", 404, Value::Null),
    ] {
        assert_eq!(scene.http(path).await, (status, body), "{path}");
    }
}

#[tokio::test]
async fn which_glasses_are_let_in() {
    let mut scene = Scene::start(None).await;
    let added = scene.registry.add_device("second", "v@e.com").await.unwrap();
    let revoked = scene.registry.add_device("gone", "v@e.com").await.unwrap();
    scene.registry.revoke_device("gone").await.unwrap();
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    let unsigned = PHONE.rsplit_once('.').unwrap().0;
    for (authorization, wanted) in [
        (None, Err("MISSING_TOKEN")),
        (Some("Bearer".into()), Err("MISSING_TOKEN")),
        (Some("Bearer ".into()), Err("MISSING_TOKEN")),
        (Some("Basic token-live".into()), Err("MISSING_TOKEN")),
        (bearer("wrong"), Err("INVALID_TOKEN")),
        (bearer("token-live2"), Err("INVALID_TOKEN")),
        (bearer("key-cam"), Err("INVALID_TOKEN")),
        (bearer(&KeyHash::of("token-live").to_hex()), Err("INVALID_TOKEN")),
        (bearer(revoked.expose()), Err("INVALID_TOKEN")),
        (bearer(&format!("{unsigned}.")), Err("INVALID_TOKEN")),
        (bearer(&format!("{unsigned}.AAAA")), Err("INVALID_TOKEN")),
        (bearer("token-live"), Ok(("u-1@e.com", "live", true))),
        (Some("bearer token-live".into()), Ok(("u-1@e.com", "live", true))),
        (bearer(added.expose()), Ok(("v@e.com", "second", true))),
        (bearer(PHONE), Ok(("phone@e.com", "phone:phone@e.com", false))),
    ] {
        let what = authorization.as_deref().unwrap_or("nothing").to_owned();
        match (scene.glasses(authorization.as_deref()).await, wanted) {
            (Ok(mut glasses), Ok((user, device, is_lenscastd))) => {
                let greeting = glasses.hear().await.unwrap();
                assert_eq!((&greeting["type"], &greeting["sessionId"]), (&json!("connection_ack"), &json!(user)));
                loop {
                    match scene.event().await {
                        GatewayEvent::DeviceUp { user: u, device: d, is_lenscastd: l, .. } => {
                            assert_eq!((u.as_str(), d.as_str(), l), (user, device, is_lenscastd));
                            break;
                        }
                        GatewayEvent::DeviceDown { .. } => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            (Err((401, code)), Err(wanted)) => assert_eq!(code, wanted, "{what}"),
            (other, wanted) => panic!("{what}: {wanted:?}, but {:?}", other.err()),
        }
    }
}

#[tokio::test]
async fn which_apps_are_let_in() {
    let mut scene = Scene::start(None).await;
    for (user, package) in [("u-1", "org.cam"), ("u-1", "org.all"), ("u-1", "org.none"), ("v", "org.cam")] {
        scene.registry.add_session(user, package).await.unwrap();
    }
    let session = "u-1-org.cam";
    for (message, code, close) in [
        (init("org.cam", "wrong", session), "INVALID_API_KEY", 1008),
        (init("org.cam", "", session), "INVALID_API_KEY", 1008),
        (init("org.cam", "key-all", session), "INVALID_API_KEY", 1008),
        (init("org.cam", "token-live", session), "INVALID_API_KEY", 1008),
        (init("org.unknown", "key-cam", session), "INVALID_API_KEY", 1008),
        (init("org.cam", "key-cam", "w-org.cam"), "SESSION_NOT_FOUND", 1008),
        (init("org.cam", "key-cam", "u-1-org.all"), "SESSION_NOT_FOUND", 1008),
        (json!({"type": "tpa_connection_init", "sessionId": session, "packageName": "org.cam"}), "INVALID_INIT", 1008),
        (json!({"type": "subscription_update", "packageName": "org.cam", "subscriptions": []}), "INVALID_INIT", 1008),
        (json!("no object"), "INVALID_INIT", 1008),
    ] {
        let mut app = scene.app().await;
        app.say(&message).await;
        let error = app.hear().await.unwrap();
        assert_eq!((&error["type"], &error["code"]), (&json!("tpa_connection_error"), &json!(code)), "{message}");
        assert!(error["message"].is_string() && !error.to_string().contains("key-"), "{error}");
        assert_eq!(app.hear().await, Err(close), "{message}");
    }
    for (user, package, key, may) in [
        ("u-1", "org.cam", "key-cam", true),
        ("u-1", "org.all", "key-all", true),
        ("u-1", "org.none", "key-none", false),
        ("v", "org.cam", "key-cam", true),
    ] {
        let id = format!("{user}-{package}");
        let mut app = scene.app_with(package, key, &id).await;
        let ack = app.hear().await.unwrap();
        assert_eq!((&ack["type"], &ack["sessionId"]), (&json!("tpa_connection_ack"), &json!(id)));
        assert!(ack["settings"].is_array() && ack["capabilities"]["modelName"].is_string());
        assert_eq!(ack["capabilities"]["hasWifi"], true);
        // The refused ones left no event behind.
        let GatewayEvent::AppUp { connection, user: u, app: a, session, may_stream, outgoing } = scene.event().await
        else {
            panic!()
        };
        assert_eq!((u.as_str(), a.as_str(), session, may_stream), (user, package, id, may));
        assert!(outgoing.send("{\"type\":\"x\"}"));
        assert_eq!(app.hear().await.unwrap()["type"], "x");
        app.say(&json!({"type": "stream_status_check"})).await;
        let message = scene.event().await;
        assert!(matches!(&message, GatewayEvent::AppMessage { connection: c, text, .. }
            if *c == connection && text.contains("stream_status_check")));
        drop(app);
        assert!(matches!(scene.event().await, GatewayEvent::AppDown { connection: c, .. } if c == connection));
    }
}

#[tokio::test]
async fn a_photo_of_glasses_arrives_whole_and_long_texts_do_not() {
    let mut scene = Scene::start(None).await;
    let mut glasses = scene.glasses(Some("Bearer token-live")).await.unwrap();
    assert!(matches!(scene.event().await, GatewayEvent::DeviceUp { .. }));
    let photo: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    glasses.0.send(Message::binary(photo.clone())).await.unwrap();
    let GatewayEvent::DeviceMessage { message: DeviceMessage::Binary(arrived), .. } = scene.event().await else {
        panic!()
    };
    assert!(arrived == photo);
    glasses.hear().await.unwrap();
    glasses.say(&json!("x".repeat(70_000))).await;
    assert_eq!(glasses.hear().await, Err(1009));

    scene.registry.add_session("u", "org.cam").await.unwrap();
    let mut app = scene.app_with("org.cam", "key-cam", "u-org.cam").await;
    app.hear().await.unwrap();
    app.say(&json!("x".repeat(70_000))).await;
    // Not 1000, 1001 or 1008: the app comes back.
    assert_eq!(app.hear().await, Err(1009));
}

#[tokio::test]
async fn how_connections_end() {
    let mut scene = Scene::start(None).await;
    scene.registry.add_session("u", "org.cam").await.unwrap();
    scene.registry.add_session("u", "org.all").await.unwrap();

    let mut first = scene.glasses(Some("Bearer token-live")).await.unwrap();
    first.hear().await.unwrap();
    let GatewayEvent::DeviceUp { connection: older, .. } = scene.event().await else { panic!() };
    let mut second = scene.glasses(Some("Bearer token-live")).await.unwrap();
    second.hear().await.unwrap();
    assert_eq!(first.hear().await, Err(1000), "replaced");
    let mut newer_up = false;
    let mut older_down = false;
    while !(newer_up && older_down) {
        match scene.event().await {
            GatewayEvent::DeviceUp { connection, .. } => newer_up = connection != older,
            GatewayEvent::DeviceDown { connection, .. } => older_down = connection == older,
            other => panic!("{other:?}"),
        }
    }
    assert!(scene.gateway.has_device("live"), "the older one's end is not the newer one's");

    let mut stopped = scene.app_with("org.cam", "key-cam", "u-org.cam").await;
    stopped.hear().await.unwrap();
    scene.registry.remove_session("u", "org.cam").await.unwrap();
    assert_eq!(stopped.hear().await, Err(1000), "App stopped");

    let token = scene.registry.add_device("lost", "u").await.unwrap();
    let mut lost = scene.glasses(Some(&format!("Bearer {}", token.expose()))).await.unwrap();
    lost.hear().await.unwrap();
    scene.registry.revoke_device("lost").await.unwrap();
    assert_eq!(lost.hear().await, Err(1008), "revoked");

    let mut app = scene.app_with("org.all", "key-all", "u-org.all").await;
    app.hear().await.unwrap();
    let unnamed = scene.app().await;
    let gateway = scene.gateway.clone();
    let closing = tokio::spawn(async move { gateway.close().await });
    for (who, mut peer) in [("app", app), ("glasses", second), ("unnamed", unnamed)] {
        assert_eq!(peer.hear().await, Err(1012), "{who}: apps come back after this one only");
    }
    soon("the gateway's end", closing).await.unwrap();
}

#[tokio::test]
async fn who_guesses_keys_is_shut_out_soon() {
    let scene = Scene::start(None).await;
    let client = http_client::client(None).await.unwrap();
    let mut codes = Vec::new();
    for _ in 0..40 {
        let url = format!("http://{}/glasses-ws", scene.address);
        let request = client.get(url).header("connection", "upgrade").header("upgrade", "websocket");
        let request =
            request.header("sec-websocket-version", "13").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        codes.push(soon("an answer", request.bearer_auth("guess").send()).await.unwrap().status().as_u16());
    }
    assert_eq!(codes[0], 401);
    // Meanwhile the bucket refills enough for a few more.
    let refused = codes[20..].iter().filter(|code| **code == 429).count();
    assert!(refused >= 15, "{codes:?}");
}

/// The SDK's server: connects when it is told to, and keeps the posted messages.
#[derive(Clone)]
struct AppServer {
    address: SocketAddr,
    posts: Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>,
    behaviour: Arc<Mutex<Behaviour>>,
    apps: mpsc::UnboundedSender<Peer>,
}

#[derive(Clone, Copy, PartialEq)]
enum Behaviour {
    /// Connects at once, but answers only after half a minute.
    AnswersLate,
    ConnectsNever,
    Fails,
    /// Fails once, then works.
    FailsOnce,
}

impl AppServer {
    async fn start(behaviour: Behaviour) -> (Self, mpsc::UnboundedReceiver<Peer>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (apps, connected) = mpsc::unbounded_channel();
        let server = Self {
            address: listener.local_addr().unwrap(),
            posts: Arc::default(),
            behaviour: Arc::new(Mutex::new(behaviour)),
            apps,
        };
        let router = Router::new()
            .route("/webhook", post(Self::webhook))
            .route("/photo-upload", post(Self::photo))
            .route("/custom", post(Self::photo))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (server, connected)
    }

    async fn webhook(State(server): State<Self>, headers: HeaderMap, body: Bytes) -> StatusCode {
        let message: Value = serde_json::from_slice(&body).unwrap();
        server.posts.lock().unwrap().push((message["type"].as_str().unwrap().into(), headers, body));
        let behaviour = *server.behaviour.lock().unwrap();
        if behaviour == Behaviour::Fails {
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        if message["type"] == "session_request" && behaviour == Behaviour::AnswersLate {
            let url = message["mentraOSWebsocketUrl"].as_str().unwrap();
            let mut app = Peer::connect(url, None).await.unwrap();
            app.say(&init("org.cam", "key-cam", message["sessionId"].as_str().unwrap())).await;
            app.hear().await.unwrap();
            server.apps.send(app).unwrap();
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        StatusCode::OK
    }

    #[expect(clippy::unused_async, reason = "axum's handlers are")]
    async fn photo(State(server): State<Self>, headers: HeaderMap, body: Bytes) -> StatusCode {
        server.posts.lock().unwrap().push(("photo".into(), headers, body));
        let mut behaviour = server.behaviour.lock().unwrap();
        match *behaviour {
            Behaviour::FailsOnce => {
                *behaviour = Behaviour::AnswersLate;
                StatusCode::BAD_GATEWAY
            }
            Behaviour::Fails => StatusCode::NOT_FOUND,
            _ => StatusCode::OK,
        }
    }

    fn posts(&self, kind: &str) -> usize {
        self.posts.lock().unwrap().iter().filter(|(of, ..)| of == kind).count()
    }
}

#[tokio::test]
async fn an_app_is_started_once_however_late_it_answers_and_stopped() {
    let (server, mut connected) = AppServer::start(Behaviour::AnswersLate).await;
    let scene = Scene::start(Some(server.address)).await;
    let (first, second) = soon("the app", async {
        tokio::join!(scene.launcher.start("org.cam", "u-1"), scene.launcher.start("org.cam", "u-1"))
    })
    .await;
    assert_eq!(first.unwrap(), Started::Now);
    second.unwrap();
    assert_eq!(scene.launcher.start("org.cam", "u-1").await.unwrap(), Started::Before);
    assert_eq!(server.posts("session_request"), 1, "no second request while the first runs or the socket is up");

    let mut app = connected.recv().await.unwrap();
    let stop = scene.launcher.stop("org.cam", "u-1", StopReason::UserDisabled);
    let (stopped, closed) = tokio::join!(soon("the stop", stop), app.hear());
    stopped.unwrap();
    assert_eq!(closed, Err(1000), "an app that does not leave by itself is closed");
    assert_eq!(server.posts("stop_request"), 1);
    let again = scene.launcher.stop("org.cam", "u-1", StopReason::UserDisabled).await;
    assert!(matches!(again, Err(LaunchError::NotRunning(_))));
    scene.launcher.close().await;
}

#[tokio::test]
async fn an_app_that_cannot_be_started_leaves_no_session() {
    let (server, _connected) = AppServer::start(Behaviour::Fails).await;
    let scene = Scene::start(Some(server.address)).await;
    assert!(matches!(scene.launcher.start("org.cam", "u").await, Err(LaunchError::Refused(500))));
    assert!(matches!(scene.launcher.start("org.all", "u").await, Err(LaunchError::NoWebhook(_))));
    assert!(matches!(scene.launcher.start("org.unknown", "u").await, Err(LaunchError::Registry(_))));
    *server.behaviour.lock().unwrap() = Behaviour::ConnectsNever;
    assert!(matches!(soon("the limit", scene.launcher.start("org.cam", "u")).await, Err(LaunchError::NotConnected(_))));
    assert!(scene.registry.accounts().sessions.is_empty());
}

#[tokio::test]
async fn what_the_control_socket_grants_and_refuses() {
    let (server, _connected) = AppServer::start(Behaviour::AnswersLate).await;
    let mut scene = Scene::start(Some(server.address)).await;
    let mut ctl = scene.ctl().await;
    for (request, refusal) in [
        (json!({"cmd": "app_add", "package": "org.new", "permissions": ["CAMERA"]}), None),
        (json!({"cmd": "app_add", "package": "org.new"}), Some("exists already")),
        (json!({"cmd": "app_add", "package": "org new"}), Some("letters")),
        (json!({"cmd": "app_add", "package": "p", "webhook_url": "file:///etc"}), Some("http")),
        (json!({"cmd": "app_add", "package": "p", "permissions": ["ROOT"]}), Some("app_add")),
        (json!({"cmd": "app_add", "package": "p", "hush": "rtmp://h/live/hush"}), Some("app_add")),
        (json!({"cmd": "app_list"}), None),
        (json!({"cmd": "app_revoke", "package": "org.cam"}), Some("configuration")),
        (json!({"cmd": "app_revoke", "package": "org.unknown"}), Some("unknown")),
        (json!({"cmd": "app_revoke", "package": "org.new"}), None),
        (json!({"cmd": "app_start", "package": "org.cam", "user": "u"}), None),
        (json!({"cmd": "app_start", "package": "org.all", "user": "u"}), Some("webhook")),
        (json!({"cmd": "app_start", "package": "org.cam", "user": ""}), Some("user")),
        (json!({"cmd": "app_stop", "package": "org.cam", "user": "nobody"}), Some("not running")),
        (json!({"cmd": "device_add", "name": "new", "user": "u@e.com"}), None),
        (json!({"cmd": "device_add", "name": "new", "user": "u@e.com"}), Some("exists already")),
        (json!({"cmd": "device_add", "name": "phone:x", "user": "u@e.com"}), Some("letters")),
        (json!({"cmd": "device_add", "name": "x", "user": "a b"}), Some("user")),
        (json!({"cmd": "device_list"}), None),
        (json!({"cmd": "device_revoke", "name": "live"}), Some("configuration")),
        (json!({"cmd": "device_revoke", "name": "new"}), None),
        (json!({"cmd": "stop"}), Some("stop")),
        (json!({"cmd": "format_disk"}), Some("unknown cmd")),
        (json!({}), Some("cmd is missing")),
    ] {
        let answer: Result<Value, ClientError> = ctl.call(&request).await;
        match (answer, refusal) {
            (Ok(_), None) => {}
            (Err(ClientError::Refused(refused)), Some(wanted)) => {
                assert!(refused.message.contains(wanted) && !refused.message.contains("hush"), "{request}: {refused}");
            }
            (answer, wanted) => panic!("{request}: {answer:?}, not {wanted:?}"),
        }
    }
    let answer: Value = ctl.call(&json!({"cmd": "app_list"})).await.unwrap();
    let shown = answer.to_string();
    assert!(shown.contains("org.cam") && !shown.contains(&KeyHash::of("key-cam").to_hex()), "{shown}");

    // Requests for the cloud's task go there.
    let task = async {
        let ControlEvent::Streams { reply } = scene.control.recv().await.unwrap() else { panic!() };
        reply.send(Streams::default()).unwrap();
        let ControlEvent::Watch { events } = scene.control.recv().await.unwrap() else { panic!() };
        events.try_send(Event::State(Streams::default())).unwrap();
        events.try_send(Event::Note { text: "glasses came".into() }).unwrap();
    };
    let client = async {
        let streams: Streams = ctl.call(&control::Request::Streams).await.unwrap();
        assert_eq!(streams, Streams::default());
        ctl.send(&control::Request::Watch).await.unwrap();
        assert_eq!(ctl.next::<Event>().await.unwrap(), Event::State(Streams::default()));
        assert_eq!(ctl.next::<Event>().await.unwrap(), Event::Note { text: "glasses came".into() });
        assert!(matches!(ctl.next::<Event>().await, Err(ClientError::Closed)));
    };
    soon("the task's answers", async { tokio::join!(task, client) }).await;
    scene.end.send(true).unwrap();
    scene.launcher.close().await;
}

#[tokio::test]
async fn a_photo_is_brought_to_the_app_or_its_failure_is() {
    let (server, _connected) = AppServer::start(Behaviour::FailsOnce).await;
    let delivery = PhotoDelivery::new(http_client::client(None).await.unwrap(), true);
    let app = Target::App { webhook_url: format!("http://{}/webhook", server.address) };
    let jpeg = Bytes::from_static(b"\xff\xd8 a picture \xff\xd9");
    soon("the photo", delivery.deliver(&app, "photo_req_1", &Outcome::Taken(jpeg.clone()))).await.unwrap();
    assert_eq!(server.posts("photo"), 2, "the first was answered 502");
    let failed = Outcome::Failed { code: "CAMERA_BUSY".into(), message: "the camera is in use".into() };
    delivery.deliver(&app, "photo_req_2", &failed).await.unwrap();
    let custom = Target::Custom {
        url: Secret::new(format!("http://{}/custom", server.address)),
        token: Some(Secret::new("app-token")),
    };
    delivery.deliver(&custom, "photo_req_3", &Outcome::Taken(jpeg.clone())).await.unwrap();
    let too_large = Outcome::Taken(vec![0; 11 * 1024 * 1024].into());
    delivery.deliver(&app, "photo_req_4", &too_large).await.unwrap();

    let posts = server.posts.lock().unwrap().clone();
    let text = |number: usize| String::from_utf8_lossy(&posts[number].2).into_owned();
    for number in [0, 1, 3] {
        let body = text(number);
        let picture = posts[number].2.windows(jpeg.len()).any(|part| part == jpeg);
        assert!(picture && body.contains("filename=\"photo.jpg\"") && body.contains("image/jpeg"), "{body}");
        assert!(body.contains("name=\"requestId\"") && body.contains("photo_req_"), "{body}");
    }
    assert!(text(2).contains("photo_error") && text(2).contains("CAMERA_BUSY") && text(2).contains("photo_req_2"));
    assert!(posts[0].1.get("authorization").is_none());
    assert_eq!(posts[3].1.get("authorization").unwrap(), "Bearer app-token");
    assert!(text(4).contains("photo_error") && text(4).contains("UPLOAD_FAILED"));

    *server.behaviour.lock().unwrap() = Behaviour::Fails;
    assert!(delivery.deliver(&app, "photo_req_5", &failed).await.is_err());
    let off = PhotoDelivery::new(http_client::client(None).await.unwrap(), false);
    assert!(off.deliver(&custom, "photo_req_6", &failed).await.is_err());
    for url in ["file:///etc/passwd", "nonsense", ""] {
        let custom = Target::Custom { url: Secret::new(url), token: None };
        assert!(delivery.deliver(&custom, "photo_req_7", &failed).await.is_err(), "{url}");
    }
    assert_eq!(server.posts("photo"), 6, "no retry of a refusal, no post that is not allowed");
}

/// Runs lenscastctl on the scene's socket. Returns status, standard output and standard error.
async fn lenscastctl(socket: std::path::PathBuf, arguments: &[&str]) -> (i32, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lenscastctl"));
    command.arg("cloud").args(arguments).env("LENSCAST_CLOUD_SOCKET", socket);
    let output = soon("lenscastctl", tokio::task::spawn_blocking(move || command.output())).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_person_lets_apps_and_glasses_in_and_takes_that_back() {
    let scene = Scene::start(None).await;
    let socket = scene.folder.path().join("cloud.sock");
    let ctl = |line: &'static str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let socket = socket.clone();
        async move { lenscastctl(socket, &words).await }
    };
    let (status, token, aside) = ctl("device add mine --user me@e.com").await;
    assert!(status == 0 && aside.contains("once"), "{aside}");
    let bearer = format!("Bearer {}", token.trim());
    let mut glasses = scene.glasses(Some(&bearer)).await.unwrap();
    glasses.hear().await.unwrap();
    let (_, list, _) = ctl("device list").await;
    assert!(list.contains("mine  me@e.com  connected") && !list.contains(token.trim()), "{list}");
    let (status, key, _) = ctl("app add org.mine --webhook-url http://127.0.0.1:9/webhook").await;
    assert_eq!((status, key.trim().len()), (0, 64));
    let accounts = scene.registry.accounts();
    assert!(accounts.app_with_key("org.mine", key.trim()).is_some_and(lenscast::cloud::accounts::App::may_stream));
    let (_, json, _) = ctl("app list --json").await;
    let apps: Value = serde_json::from_str(&json).unwrap();
    assert!(
        apps.as_array().unwrap().iter().any(|app| app["package"] == "org.mine" && app["permissions"][0] == "CAMERA")
    );
    for (line, wanted) in [
        ("app add org.mine", "exists already"),
        ("app revoke org.cam", "configuration"),
        ("app start org.mine --user u", "cannot be reached"),
        ("device revoke nobody", "unknown"),
    ] {
        let (status, output, error) = ctl(line).await;
        assert!(status == 1 && output.is_empty() && error.contains(wanted), "{line}: {status} {error}");
    }
    assert_eq!(ctl("device revoke mine").await.0, 0);
    assert_eq!(glasses.hear().await, Err(1008));
    let (status, _, error) = lenscastctl("/nonexistent/cloud.sock".into(), &["streams"]).await;
    assert!(status == 3 && error.contains("lenscast-cloud") && error.contains("--cloud-socket"), "{error}");
    assert_eq!(ctl("app add").await.0, 2);
}
