//! The database of the real program, which is killed while it writes.

use std::collections::BTreeSet;
use std::time::Duration;

use lenscast::cloud::control::{Devices, Fresh, Request};
use lenscast::link::control_client::Client;
use nix::sys::signal::Signal;

use crate::support::cloud_server::CloudServer;

/// Adds glasses until the cloud is gone; reports each one that the cloud confirmed.
async fn add(socket: &std::path::Path, round: u32, promised: &std::sync::mpsc::Sender<String>) {
    let Ok(mut client) = Client::connect(socket).await else { return };
    for n in 0.. {
        let name = format!("g-{round}-{n}");
        let request = Request::DeviceAdd { name: name.clone(), user: "u@example.com".into() };
        match client.call::<Fresh>(&request).await {
            Ok(_) => promised.send(name).expect("the test waits for it"),
            Err(_) => return,
        }
    }
}

#[test]
fn a_cloud_killed_while_it_writes_loses_nothing_it_promised() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut cloud = CloudServer::start("");
    let mut all = BTreeSet::new();
    for round in 0..20 {
        let (promise, kept) = std::sync::mpsc::channel();
        let socket = cloud.socket();
        let writer = runtime.spawn(async move { add(&socket, round, &promise).await });
        for _ in 0..=fastrand::u32(0..20) {
            all.insert(kept.recv_timeout(Duration::from_secs(10)).expect("glasses are added"));
        }
        // In the middle of whatever it is doing.
        cloud.restart(Signal::SIGKILL);
        runtime.block_on(writer).expect("the writer ends with the cloud");
        all.extend(kept.try_iter());
    }
    let listed = runtime.block_on(async {
        let mut client = Client::connect(&cloud.socket()).await.expect("the control socket");
        client.call::<Devices>(&Request::DeviceList).await.expect("the devices")
    });
    let listed: BTreeSet<String> = listed.devices.into_iter().map(|device| device.name).collect();
    let lost: Vec<&String> = all.difference(&listed).collect();
    assert!(lost.is_empty(), "lost {lost:?} of {}", all.len());
    cloud.finish();
}
