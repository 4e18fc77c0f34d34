//! `lenscastctl cloud`: the cloud's side. Keys and tokens are printed alone on standard output, for scripts. Stream
//! keys are never arguments, since every user of the machine can read those.

use std::io::Read;
use std::path::Path;

use lenscast::cloud::control::{
    AppStarted, Apps, Destination, Devices, Done, Event, Fresh, Request, Start, Started, Streams,
};
use lenscast::link::control_client::Client;
use serde::de::DeserializeOwned;

use crate::args::cloud::{AppCommand, CloudArguments, CloudCommand, DeviceCommand};
use crate::cloud_render as render;
use crate::failure::Failure;
use crate::{aside, line, print, print_json};

/// Carries out a `cloud` command.
pub async fn run(arguments: CloudArguments) -> Result<(), Failure> {
    let socket = arguments.cloud_socket.as_path();
    match arguments.command {
        CloudCommand::App(command) => app(socket, command).await,
        CloudCommand::Device(command) => device(socket, command).await,
        CloudCommand::Streams { json } => {
            let answer: Streams = ask(socket, &Request::Streams).await?;
            if json { print_json(&answer.streams) } else { print(&render::streams(&answer.streams)) }
        }
        CloudCommand::Start { user, lines, restream, json } => {
            let restream = restream.map_or(Ok(vec![]), |file| destinations(&file))?;
            let Started { stream } = ask(socket, &Request::Start(Start { user, lines, restream })).await?;
            if json {
                return print_json(&stream);
            }
            if let Some(url) = &stream.watch_url {
                aside(&format!("watch it at {url}"));
            }
            line(&stream.stream_id)
        }
        CloudCommand::Stop { stream_id } => {
            let Done {} = ask(socket, &Request::Stop { stream_id }).await?;
            Ok(())
        }
        CloudCommand::Watch { json } => watch(socket, json).await,
    }
}

async fn app(socket: &Path, command: AppCommand) -> Result<(), Failure> {
    match command {
        AppCommand::Add { package, permissions, webhook_url } => {
            let permissions = permissions.into_iter().collect();
            let Fresh { secret } = ask(socket, &Request::AppAdd { package, permissions, webhook_url }).await?;
            aside("the API key is shown only once");
            line(&secret)
        }
        AppCommand::List { json } => {
            let answer: Apps = ask(socket, &Request::AppList).await?;
            if json { print_json(&answer.apps) } else { print(&render::apps(&answer.apps)) }
        }
        AppCommand::Revoke { package } => {
            let Done {} = ask(socket, &Request::AppRevoke { package }).await?;
            Ok(())
        }
        AppCommand::Start { package, user } => {
            let AppStarted { already } = ask(socket, &Request::AppStart { package, user }).await?;
            if already {
                aside("it was already running");
            }
            Ok(())
        }
        AppCommand::Stop { package, user } => {
            let Done {} = ask(socket, &Request::AppStop { package, user }).await?;
            Ok(())
        }
    }
}

async fn device(socket: &Path, command: DeviceCommand) -> Result<(), Failure> {
    match command {
        DeviceCommand::Add { name, user } => {
            let Fresh { secret } = ask(socket, &Request::DeviceAdd { name, user }).await?;
            aside("the token is shown only once; store it in the file named by cloud.token_file of lenscastd");
            line(&secret)
        }
        DeviceCommand::List { json } => {
            let answer: Devices = ask(socket, &Request::DeviceList).await?;
            if json { print_json(&answer.devices) } else { print(&render::devices(&answer.devices)) }
        }
        DeviceCommand::Revoke { name } => {
            let Done {} = ask(socket, &Request::DeviceRevoke { name }).await?;
            Ok(())
        }
    }
}

async fn watch(socket: &Path, json: bool) -> Result<(), Failure> {
    let mut client = Client::connect(socket).await.map_err(Failure::Cloud)?;
    client.send(&Request::Watch).await.map_err(Failure::Cloud)?;
    loop {
        let event: Event = client.next().await.map_err(Failure::Cloud)?;
        if json {
            print_json(&event)?;
        } else {
            render::event(&event).iter().try_for_each(|text| line(text))?;
        }
    }
}

async fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T, Failure> {
    let mut client = Client::connect(socket).await.map_err(Failure::Cloud)?;
    client.call(request).await.map_err(Failure::Cloud)
}

/// Reads one URL per line. Empty lines and those that begin with # are skipped.
fn destinations(file: &Path) -> Result<Vec<Destination>, Failure> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|error| Failure::Other(format!("{}: {error}", file.display())))?;
    let urls = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(urls.map(|url| Destination { url: url.into(), name: None }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("urls");
        std::fs::write(&file, "# mine\nrtmp://a/live/k1\n\n  rtmps://b/live/k2 \n").unwrap();
        let urls: Vec<_> = destinations(&file).unwrap().into_iter().map(|to| to.url).collect();
        assert_eq!(urls, ["rtmp://a/live/k1", "rtmps://b/live/k2"]);
        assert!(destinations(&folder.path().join("none")).is_err());
    }
}
