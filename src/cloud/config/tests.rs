use super::*;

const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn load(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lenscast-cloud.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(Some(&path))
}

#[test]
fn an_empty_file_listens_on_loopback_and_tells_urls_that_work_there() {
    let config = load("").unwrap();
    for address in [config.http.listen, config.rtmp.listen, config.webrtc.listen] {
        assert!(address.ip().is_loopback(), "{address}");
    }
    assert_eq!(config.http.public_url(), "http://127.0.0.1:8080");
    assert_eq!(config.http.app_websocket_url(), "ws://127.0.0.1:8080/app-ws");
    assert_eq!(config.rtmp.public_url(), "rtmp://127.0.0.1:1935/live");
    assert!(config.webrtc.candidates().is_empty(), "viewers are told where it listens");
}

#[test]
fn what_others_are_told_is_configured() {
    let config = load(
        "[http]\npublic_url = \"https://c.example.org/\"\n[rtmp]\npublic_url = \"rtmps://c.example.org/live\"\n\
         [webrtc]\nlisten = \"0.0.0.0:9000\"\nadvertise = [\"203.0.113.7\", \"[2001:db8::1]:9001\"]\n",
    )
    .unwrap();
    assert_eq!(config.http.app_websocket_url(), "wss://c.example.org/app-ws");
    let told: Vec<_> = config.webrtc.candidates().iter().map(ToString::to_string).collect();
    assert_eq!(told, ["203.0.113.7:9000", "[2001:db8::1]:9001"]);
}

#[test]
fn an_unknown_key_is_named_with_file_and_line() {
    let error = load("[http]\nlisten = \"127.0.0.1:0\"\npubic_url = \"x\"\n").unwrap_err().to_string();
    for part in ["lenscast-cloud.toml", "line 3", "pubic_url"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn apps_and_devices_add_up_over_the_drop_ins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lenscast-cloud.toml");
    let app = |name: &str| {
        format!("[[app]]\npackage = \"{name}\"\napi_key_sha256 = \"{HASH}\"\npermissions = [\"CAMERA\"]\n")
    };
    std::fs::write(&path, app("org.one")).unwrap();
    std::fs::create_dir(folder.path().join("lenscast-cloud.d")).unwrap();
    std::fs::write(folder.path().join("lenscast-cloud.d/two.toml"), app("org.two")).unwrap();
    let config = Config::load(Some(&path)).unwrap();
    let packages: Vec<_> = config.app.iter().map(|app| app.package.as_str()).collect();
    assert_eq!(packages, ["org.one", "org.two"]);
}

#[test]
fn what_cannot_work_is_refused_and_no_secret_is_repeated() {
    let app = format!("[[app]]\npackage = \"org.one\"\napi_key_sha256 = \"{HASH}\"\n");
    let device = format!("[[device]]\nname = \"live\"\nuser = \"u@e.com\"\ntoken_sha256 = \"{HASH}\"\n");
    assert!(load(&format!("{app}{device}")).is_ok());
    for wrong in [
        "[http]\npublic_url = \"ftp://h\"\n".to_owned(),
        "[http]\npublic_url = \"https://\"\n".to_owned(),
        "[http]\ncert = \"/x\"\n".to_owned(),
        "[http]\nmax_connections = 0\n".to_owned(),
        "[rtmp]\ntls_listen = \"127.0.0.1:1936\"\n".to_owned(),
        "[hls]\ndvr_window_s = 5\n".to_owned(),
        "[phone]\njwt_secret_file = \"/nonexistent\"\n".to_owned(),
        format!("{app}{app}"),
        format!("{app}webhook_url = \"app:7010\"\n"),
        format!("{app}permissions = [\"CAMREA\"]\n"),
        app.replace("org.one", "org one"),
        format!("{device}{}", device.replace("live", "other")),
        device.replace("u@e.com", ""),
    ] {
        assert!(load(&wrong).is_err(), "{wrong}");
    }
    let plain = load("[[app]]\npackage = \"p\"\napi_key_sha256 = \"hush-hush\"\n").unwrap_err();
    let text = plain.to_string();
    assert!(text.contains("sha256sum") && !text.contains("hush"), "{text}");
}
