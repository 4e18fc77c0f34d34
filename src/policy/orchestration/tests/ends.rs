//! Every stream and every request ends exactly once.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// How a stream's end is counted for each answer of the glasses, and for none at all.
#[test]
fn each_stream_is_counted_once_and_its_cause_is_one_of_few() {
    let ends = |cloud: &Cloud| -> Vec<(&'static str, usize)> {
        let begun = cloud.said.iter().filter(|action| matches!(action, Action::Began { .. })).count();
        let of = |action: &Action| match action {
            Action::Ended { cause, .. } => Some((*cause, begun)),
            _ => None,
        };
        cloud.said.iter().filter_map(of).collect()
    };
    for (cause, counted) in [("encoder_failed", "encoder_failed"), ("because", "other"), ("rtmp://h/a/s3cret", "other")]
    {
        let mut cloud = Cloud::new();
        cloud.managed("a").managed("b");
        let end = json!({"type": "stream_status", "streamId": "m1", "status": "error", "cause": cause});
        cloud.glasses_say(&end).glasses_say(&end).wait(200);
        assert_eq!(ends(&cloud), [(counted, 1)], "{cause}");
    }
    let mut cloud = Cloud::new();
    cloud.managed("a").wait(60);
    assert_eq!(ends(&cloud), [("not_started", 1)]);
    let mut cloud = Cloud::live();
    cloud.stop_managed("a").glasses("m1", "stopped").wait(200);
    assert_eq!(ends(&cloud), [("requested", 0)], "as asked, whatever the glasses say");
    let mut cloud = Cloud::live();
    cloud.unmanaged("b").glasses("m1", "stopped").wait(1);
    assert_eq!(ends(&cloud), [("preempted", 1)]);
    for reason in END_REASONS {
        assert!(!crate::protocol::Cause::ALL.iter().any(|cause| cause.name() == reason), "{reason} is a cause too");
    }
}

#[test]
fn what_never_plays_ends_in_time() {
    let mut cloud = Cloud::new();
    cloud.managed("a").glasses("m1", "reconnecting").wait(26);
    assert_eq!(
        (cloud.told("a"), cloud.commands()),
        (vec!["initializing".into(), "error".to_owned()], vec!["start m1".into(), "stop m1".to_owned()])
    );
    assert!(cloud.last_managed("a").message.unwrap().contains("they said last: because"));
}

fn steps() -> impl Strategy<Value = (u8, u8, u8)> {
    (0u8..22, 0u8..2, 0u8..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// In every sequence of events: at most one stream is alive, every request ends once, and nothing is due after a
    /// tick. After an idle hour nothing is left that the glasses have not been told to stop.
    #[test]
    fn every_request_ends_once(steps in proptest::collection::vec(steps(), 1..80)) {
        let mut cloud = Cloud::new();
        let mut open: BTreeMap<(bool, String), i32> = BTreeMap::new();
        for (what, who, wait) in steps {
            let app = ["a", "b"][usize::from(who)];
            let stream = cloud.machine.streams.first().map_or("m1".to_owned(), |stream| stream.id.clone());
            let there = cloud.machine.apps.get(app).is_some_and(|app| app.away.is_none());
            // A stream that is due to end now ends before it can be stopped.
            cloud.event(Event::Tick);
            settle(&mut cloud, &mut open);
            // The package refuses a second request of a kind while one runs.
            let free = |managed| there && open.get(&(managed, app.to_owned())).is_none_or(|n| *n == 0);
            match what {
                0 if free(true) => { open.insert((true, app.into()), 1); cloud.managed(app); }
                1 if free(false) => { open.insert((false, app.into()), 1); cloud.unmanaged(app); }
                2 if there && !free(true) => { cloud.stop_managed(app); }
                3 if there && !free(false) => { cloud.stop_unmanaged(app); }
                4 => { cloud.event(Event::DeviceDown); }
                5 => { cloud.event(Event::DeviceUp { device: "glasses".into() }); }
                6 => { cloud.event(Event::AppDown { app: app.into(), deliberate: false }); }
                7 => { cloud.event(Event::AppUp { app: app.into(), may_stream: true }); }
                8 | 9 => { cloud.glasses(&stream, "streaming"); }
                10 => { cloud.glasses(&stream, "reconnecting"); }
                11 => { cloud.glasses(&stream, ["error", "stopped"][usize::from(who)]); }
                12 | 13 => { cloud.publishing(&stream); }
                14 | 15 => { cloud.playable(&stream); }
                16 => { cloud.event(Event::PublisherLost { stream_id: stream, why: "x".into() }); }
                17 => { cloud.glasses_say(&json!({"type": "stream_status", "kind": "snapshot", "status": "stopped"})); }
                18 => { cloud.event(Event::Media { stream_id: stream }); }
                19 => { cloud.restart(); }
                _ => { cloud.wait(u64::from(wait)); }
            }
            prop_assert!(cloud.machine.streams.iter().filter(|stream| stream.ending.is_none()).count() <= 1);
            settle(&mut cloud, &mut open);
            // A forgotten app cannot be told any more.
            let machine = &cloud.machine;
            let ending = |managed: bool, app: &str| {
                machine.streams.iter().any(|stream| stream.is_unmanaged() != managed && stream.takes_part(app))
            };
            open.retain(|(managed, app), _| machine.apps.contains_key(app) || ending(*managed, app));
        }
        for app in ["a", "b"] {
            cloud.event(Event::AppUp { app: app.into(), may_stream: true });
        }
        // Ingest does not keep a silent publisher.
        for stream_id in cloud.machine.streams.iter().map(|stream| stream.id.clone()).collect::<Vec<_>>() {
            cloud.event(Event::PublisherLost { stream_id, why: "silent".into() });
        }
        cloud.event(Event::DeviceDown).wait(3600);
        settle(&mut cloud, &mut open);
        prop_assert!(open.values().all(|n| *n == 0), "{:?} without an end", open);
        prop_assert!(cloud.machine.streams.is_empty() && cloud.machine.waiting.is_empty());
    }
}

/// Counts off the final statuses that were sent.
fn settle(cloud: &mut Cloud, open: &mut BTreeMap<(bool, String), i32>) {
    for action in cloud.said.drain(..) {
        let (key, last) = match action {
            Action::Managed { app, status } => {
                ((true, app), matches!(status.word, ManagedWord::Stopped | ManagedWord::Error))
            }
            Action::Unmanaged { app, status } => ((false, app), matches!(status.word, "stopped" | "error" | "timeout")),
            _ => continue,
        };
        if last {
            let left = open.entry(key.clone()).or_default();
            *left -= 1;
            assert!(*left >= 0, "{key:?} ended twice");
        }
    }
}
