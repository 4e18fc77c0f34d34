//! All processes, and what each says about the streams. One thread steps through the scenes. Whenever it waits it takes
//! a look ([`Stage::look`]): what apps and watchers are told, what arrives at the servers, and whether these agree.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::link_proxy::LinkProxy;
use crate::schedule::Kind;
use crate::support::cloud_server::{API_KEY, CloudServer, USER, app};
use crate::support::sdk_app::SdkApp;
use crate::support::{Control, Daemon, Namespace, Nginx, Recordings, Watch, monotonic, poll_until};
use crate::truth::{ACTIVE, Listener, Over, STREAMING, agrees};
use crate::viewers::{self, WhepViewer};

/// The error says why the soak fails.
pub type Outcome<T = ()> = Result<T, String>;

const LOOK: Duration = Duration::from_millis(50);
const PLAYLIST: Duration = Duration::from_millis(400);
const CHECK: Duration = Duration::from_secs(2);
/// The package gives each managed start a timer and never cancels it. If the timer fires while a *later* start of the
/// same app waits, that start's promise is forgotten and never settles (2.1.29). So no start is made when one is about
/// to fire.
const SDK_TIMER: Duration = Duration::from_millis(30_500);
/// The package itself answers a check after 5 s, wrongly.
const CHECK_ANSWERED: Duration = Duration::from_millis(4500);
const SOON: Duration = Duration::from_secs(10);

/// An app, and what it has been told.
pub struct App {
    pub sdk: SdkApp,
    pub managed: Listener,
    pub unmanaged: Listener,
    /// The last managed status.
    pub status: Value,
    /// The key of its unmanaged stream at its own server.
    pub key: String,
    /// Calls without an outcome so far, and the outcomes of others.
    open: Vec<(u64, String)>,
    outcomes: Vec<(u64, Result<Value, String>)>,
    managed_starts: Vec<Duration>,
    check: Option<(u64, Duration)>,
    /// When its check was answered.
    answered: Duration,
    /// The statuses that it knew while its check was in progress, each with whether it was of a managed stream.
    knew: Vec<(Option<String>, bool)>,
    checked: Duration,
    /// When it, or the cloud, was last out of order.
    excused: Duration,
}

/// The stream of the scene.
pub struct Current {
    pub kind: Kind,
    /// When it began. Nothing is expected of it before.
    pub since: Duration,
    pub owner: usize,
    /// Its key at the app's server.
    pub key: String,
    /// The HLS URL of its viewers.
    pub hls: Option<String>,
    pub restream: bool,
}

/// All processes, and what they have said so far.
pub struct Stage {
    pub cloud: CloudServer,
    pub daemon: Daemon,
    pub apps: Vec<App>,
    pub watch: Watch,
    pub glasses: Listener,
    pub ingest: LinkProxy,
    pub link: LinkProxy,
    pub network: Namespace,
    pub server: Nginx,
    received: Recordings,
    pub destination: Nginx,
    forwarded: Recordings,
    pub current: Option<Current>,
    pub whep: Option<WhepViewer>,
    /// Whether the cloud is down at the moment.
    pub cloud_is_down: bool,
    /// When the playlist last advanced, and its position.
    playlist: (Duration, Option<String>),
    polled: Duration,
    over: Over,
    pub requests: u64,
    pub answers: u64,
    pub checks: u64,
}

impl Stage {
    pub fn new() -> Self {
        let packages = ["org.one", "org.two"];
        let sdks = packages.map(|package| SdkApp::start(package, API_KEY));
        let (ingest, port) = LinkProxy::listen();
        let configured: String = sdks.iter().map(|sdk| app(sdk.package(), "\"CAMERA\"", &sdk.webhook())).collect();
        let cloud = CloudServer::start_behind(Some(port), &configured);
        ingest.lead_to(format!("127.0.0.1:{}", cloud.rtmp()));
        let (link, config) = LinkProxy::before(&cloud);
        let daemon = Daemon::start_logging(&config, "info,lenscast=debug,lenscastd=debug", &[]);
        poll_until("the glasses' link", SOON, || cloud.log().contains("glasses connected").then_some(()));
        let apps = sdks.map(|mut sdk| {
            cloud.ctl(&["app", "start", sdk.package(), "--user", USER]);
            sdk.wait("its session", SOON, |said| said.get("session").is_some());
            let name = sdk.package().to_owned();
            App {
                sdk,
                managed: Listener::new(&name, ACTIVE),
                unmanaged: Listener::new(&name, ACTIVE),
                status: Value::Null,
                key: String::new(),
                open: Vec::new(),
                outcomes: Vec::new(),
                managed_starts: Vec::new(),
                check: None,
                answered: Duration::ZERO,
                knew: Vec::new(),
                checked: Duration::ZERO,
                excused: Duration::ZERO,
            }
        });
        let network = Namespace::new();
        let (server, destination) = (Nginx::start_in(&network), Nginx::start());
        Self {
            watch: daemon.watch(),
            glasses: Listener::new("who watches the glasses", STREAMING),
            received: server.recordings(),
            forwarded: destination.recordings(),
            cloud,
            daemon,
            apps: apps.into(),
            ingest,
            link,
            network,
            server,
            destination,
            current: None,
            whep: None,
            cloud_is_down: false,
            playlist: (Duration::ZERO, None),
            polled: Duration::ZERO,
            over: Over::default(),
            requests: 0,
            answers: 0,
            checks: 0,
        }
    }

    /// Notes and judges everything that was said and that arrived since the last look.
    pub fn look(&mut self) -> Outcome {
        self.hear_apps()?;
        self.hear_glasses()?;
        let now = monotonic();
        if now.saturating_sub(self.polled) >= PLAYLIST && !self.cloud_is_down {
            self.polled = now;
            self.poll_playlist();
        }
        let progress = self.progress();
        if let Some((key, at)) = last_arrival(&self.received) {
            self.over.check(&key, at)?;
        }
        self.glasses.check(progress, Duration::ZERO, now)?;
        for app in &mut self.apps {
            if self.cloud_is_down {
                app.excused = now;
            }
            app.managed.check(progress, app.excused, now)?;
            app.unmanaged.check(progress, app.excused, now)?;
        }
        self.check_existing(now)
    }

    /// When media of the current stream was last seen at the server that it goes to.
    pub fn progress(&self) -> Option<Duration> {
        let current = self.current.as_ref()?;
        let arrived = match current.kind {
            Kind::Managed => Some(self.playlist.0),
            Kind::Unmanaged => last_arrival(&self.received).filter(|(of, _)| *of == current.key).map(|(_, at)| at),
        };
        Some(arrived.unwrap_or_default().max(current.since))
    }

    /// When media of the managed stream last arrived at the server that it is sent on to.
    pub fn forwarded(&self) -> Option<Duration> {
        last_arrival(&self.forwarded).map(|(_, at)| at)
    }

    fn hear_apps(&mut self) -> Outcome {
        let now = monotonic();
        for app in &mut self.apps {
            for said in std::mem::take(app.sdk.heard()) {
                app.hear(&said, now, &mut self.over, &mut self.answers)?;
            }
        }
        Ok(())
    }

    fn hear_glasses(&mut self) -> Outcome {
        for event in self.watch.listen(Duration::ZERO) {
            if let (Some(state), Some(id)) = (event.report(), event.json["stream_id"].as_str()) {
                self.glasses.hear(id, state, event.at)?;
            }
        }
        Ok(())
    }

    fn poll_playlist(&mut self) {
        let Some(hls) = self.current.as_ref().and_then(|current| current.hls.as_ref()) else { return };
        let answer = viewers::get(&viewers::media_playlist(hls), Duration::from_secs(1));
        let Some((200, body)) = answer else { return };
        let position = viewers::position(&String::from_utf8_lossy(&body));
        if position.is_some() && position != self.playlist.1 {
            self.playlist = (monotonic(), position);
        }
    }

    /// Lets the owner's app check now and then which stream exists, and compares.
    fn check_existing(&mut self, now: Duration) -> Outcome {
        let owner = self.current.as_ref().map_or(0, |current| current.owner);
        let app = &mut self.apps[owner];
        let settled = app.excused + SOON < now;
        if let Some((id, asked)) = app.check {
            let Some(outcome) = app.take_outcome(id) else { return Ok(()) };
            app.check = None;
            // A check from before an outage proves nothing.
            if app.excused > asked {
                return Ok(());
            }
            let answer = outcome?;
            let (took, knew) = (app.answered.saturating_sub(asked), std::mem::take(&mut app.knew));
            if took > CHECK_ANSWERED {
                return Err(format!("{}: a check was answered after {took:?}", app.sdk.package()));
            }
            // An app without a stream sees the stream of another app, or its own before it is told.
            let id = answer["streamInfo"]["streamId"].as_str();
            let knew_none = knew.iter().any(|(word, _)| word.is_none());
            if knew_none && id.is_some_and(|id| !app.managed.has_ended(id) && !app.unmanaged.has_ended(id)) {
                return Ok(());
            }
            self.checks += 1;
            // A change during a check may be reported before its answer or after it.
            if !knew.iter().any(|(word, managed)| agrees(word.as_deref(), *managed, &answer)) {
                return Err(format!("{} was told {knew:?}, and a check says {answer}", app.sdk.package()));
            }
        } else if settled && app.checked + CHECK < now {
            app.checked = now;
            app.knew = vec![app.knows()];
            let id = app.sdk.begin("checkExistingStream", &json!([]));
            app.check = Some((id, now));
        }
        Ok(())
    }

    /// Looks around for `time`.
    pub fn pass(&mut self, time: Duration) -> Outcome {
        let until = monotonic() + time;
        while monotonic() < until {
            self.look()?;
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Waits until the condition holds. Returns how long that took.
    pub fn until(
        &mut self,
        what: &str,
        limit: Duration,
        mut is_it: impl FnMut(&mut Self) -> bool,
    ) -> Outcome<Duration> {
        let begun = monotonic();
        loop {
            self.look()?;
            let took = monotonic().saturating_sub(begun);
            if is_it(self) {
                return Ok(took);
            }
            if took > limit {
                return Err(format!("waited {limit:.1?} in vain for {what}; {}", self.describe()));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Calls a function of an app; [`Self::outcome`] returns its outcome.
    pub fn call(&mut self, app: usize, call: &str, arguments: &Value) -> Outcome<u64> {
        if call == "startManagedStream" {
            let is_free = move |stage: &mut Self| {
                let due = |at: &Duration| monotonic().saturating_sub(*at) > SDK_TIMER;
                let mine = &stage.apps[app].managed_starts;
                mine.iter().all(|at| due(at) || monotonic().saturating_sub(*at) + SOON < SDK_TIMER)
            };
            self.until("the package's older timers", 3 * SDK_TIMER, is_free)?;
            self.apps[app].managed_starts.push(monotonic());
        }
        let id = self.apps[app].sdk.begin(call, arguments);
        self.requests += 1;
        self.apps[app].open.push((id, call.to_owned()));
        Ok(id)
    }

    /// Waits for the outcome of a call.
    pub fn outcome(&mut self, app: usize, id: u64, limit: Duration) -> Outcome<Result<Value, String>> {
        let mut outcome = None;
        self.until("a call's outcome", limit, |stage| {
            outcome = stage.apps[app].take_outcome(id);
            outcome.is_some()
        })?;
        Ok(outcome.expect("waited for"))
    }

    /// An app's socket, or the cloud behind it, is gone: what the app was told is void until it is told anew.
    pub fn deafen(&mut self, app: usize) {
        let app = &mut self.apps[app];
        app.excused = monotonic();
        app.managed.deafen();
        app.unmanaged.deafen();
    }

    /// Whether the glasses' link is up at both ends, and both apps' sockets are up.
    pub fn is_connected(&self, link_lost: Instant) -> bool {
        if self.link.connected().last().is_none_or(|at| *at < link_lost) {
            return false;
        }
        let ask = |what: &str| Control::connect_to_cloud(&self.cloud.socket()).granted(&json!({"cmd": what}));
        let devices = ask("device_list");
        let apps = ask("app_list");
        let app_is_up =
            |app: &Value| app["sessions"].as_array().is_some_and(|all| all.iter().any(|s| s["connected"] == true));
        devices["devices"][0]["connected"] == true
            && apps["apps"].as_array().is_some_and(|all| all.iter().all(app_is_up))
    }

    /// What everybody has been told, to find out what went wrong.
    pub fn describe(&self) -> String {
        let of = |listener: &Listener| format!("{:?} of {:?}", listener.told, listener.stream);
        let apps: Vec<String> = self.apps.iter().map(|a| format!("{}, {}", of(&a.managed), of(&a.unmanaged))).collect();
        let open: Vec<_> = self.apps.iter().flat_map(|app| &app.open).collect();
        format!(
            "now {:?}; apps {apps:?}; glasses {}; media {:?}, forwarded {:?}; WebRTC {:?}; open calls {open:?}; last status {}",
            monotonic(),
            of(&self.glasses),
            self.progress(),
            self.forwarded(),
            self.whep.as_ref().map(|whep| (whep.pictures(), whep.joins())),
            self.apps[self.current.as_ref().map_or(0, |current| current.owner)].status
        )
    }

    pub fn finish(mut self) {
        self.whep.take();
        for (name, log) in [("lenscastd", self.daemon.log()), ("lenscast-cloud", self.cloud.log())] {
            let complaint = log.lines().find(|line| line.contains("CRITICAL") || line.contains("panicked at"));
            assert_eq!(complaint, None, "{name} complains");
        }
        self.apps.into_iter().for_each(|app| app.sdk.finish());
        self.daemon.finish();
        self.cloud.finish();
    }
}

impl App {
    fn hear(&mut self, said: &Value, now: Duration, over: &mut Over, answers: &mut u64) -> Outcome {
        let name = self.sdk.package();
        if said.get("fault").is_some() {
            return Err(format!("{name} has a fault: {said}"));
        }
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        if let Some(status) = said.get("managed") {
            let (id, word) = (text(status, "streamId"), text(status, "status"));
            self.status = status.clone();
            if !id.is_empty() {
                self.managed.hear(&id, &word, now)?;
            }
        } else if let Some(status) = said.get("unmanaged") {
            let (id, word) = (text(status, "streamId"), text(status, "status"));
            if !id.is_empty() {
                let ran = self.unmanaged.stream.as_ref() == Some(&id);
                self.unmanaged.hear(&id, &word, now)?;
                if ran && self.unmanaged.stream.is_none() {
                    over.told(self.key.clone(), now);
                }
            }
        } else if let Some(id) = said["id"].as_u64() {
            if self.check.is_some_and(|(check, _)| check == id) {
                self.answered = now;
            } else {
                let Some(at) = self.open.iter().position(|(open, _)| *open == id) else {
                    return Err(format!("{name}: a call had two outcomes: {said}"));
                };
                self.open.remove(at);
                *answers += 1;
            }
            let outcome = match said.get("error") {
                Some(error) => Err(error.as_str().unwrap_or_default().to_owned()),
                None => Ok(said["result"].clone()),
            };
            self.outcomes.push((id, outcome));
        }
        let knows = self.knows();
        if self.check.is_some() && self.knew.last() != Some(&knows) {
            self.knew.push(knows);
        }
        Ok(())
    }

    /// The status that it was told last, and whether that was of a managed stream.
    fn knows(&self) -> (Option<String>, bool) {
        let managed = self.unmanaged.stream.is_none();
        let listener = if managed { &self.managed } else { &self.unmanaged };
        (listener.told.as_ref().map(|told| told.word.clone()), managed)
    }

    fn take_outcome(&mut self, id: u64) -> Option<Result<Value, String>> {
        let at = self.outcomes.iter().position(|(of, _)| *of == id)?;
        Some(self.outcomes.remove(at).1)
    }

    /// Whether a call has no outcome so far.
    pub fn is_busy(&self) -> bool {
        !self.open.is_empty()
    }
}

/// The key of the newest recording, and when something last arrived in it.
fn last_arrival(recordings: &Recordings) -> Option<(String, Duration)> {
    recordings.wait("", Duration::ZERO, |all| {
        let last = all.iter().filter_map(|recording| Some((recording.arrivals.last()?.at, recording)));
        let last = last.max_by_key(|(at, _)| *at);
        Some(last.map(|(at, recording)| {
            // nginx appends a time and the number of its start to the key.
            let name = recording.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name.rsplitn(3, '-').last().unwrap_or_default().to_owned(), at)
        }))
    })
}
