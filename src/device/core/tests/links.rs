//! Two links at once.

use super::*;

impl Daemon {
    fn by(&mut self, link: LinkId, message: &Value) {
        self.give(Input::LinkMessage(link, message.to_string()));
    }

    fn linked() -> Self {
        let mut daemon = Self::new();
        daemon.give(Input::LinkUp(LinkId::Cloud));
        daemon.give(Input::LinkUp(LinkId::Uart));
        daemon.sent_over.clear();
        daemon
    }

    /// What was sent over a link since the last time.
    fn heard(&mut self, link: LinkId) -> Vec<Value> {
        let (heard, rest) = std::mem::take(&mut self.sent_over).into_iter().partition(|(over, _)| *over == link);
        self.sent_over = rest;
        heard.into_iter().map(|(_, message)| message).collect()
    }

    fn words(&mut self, link: LinkId) -> Vec<String> {
        let word = |message: Value| {
            let word = message.get("status").unwrap_or(&message["type"]);
            word.as_str().unwrap().to_owned()
        };
        self.heard(link).into_iter().map(word).collect()
    }

    fn streams(&self) -> bool {
        self.core.state(self.now).stream.is_some()
    }
}

#[test]
fn an_answer_goes_back_where_the_question_came_from() {
    for (asking, other) in [(LinkId::Cloud, LinkId::Uart), (LinkId::Uart, LinkId::Cloud)] {
        let mut daemon = Daemon::linked();
        daemon.by(asking, &json!({"type": "ping", "mId": 7}));
        daemon.by(asking, &json!({"type": "get_rtmp_status"}));
        daemon.by(asking, &json!({"type": "keep_stream_alive", "streamId": "s9", "ackId": "a"}));
        daemon.by(asking, &json!({"type": "start_stream", "streamId": "s9"}));
        assert_eq!(daemon.words(asking), ["msg_ack", "pong", "stopped", "error", "error"]);
        assert_eq!(daemon.words(other), Vec::<String>::new());
    }
}

#[test]
fn what_becomes_of_a_stream_is_told_over_both_each_in_its_dialect() {
    let mut daemon = Daemon::linked();
    daemon.by(LinkId::Cloud, &json!({"type": "get_rtmp_status"}));
    daemon.sent_over.clear();
    daemon.by(LinkId::Uart, &start_message("s1", "a"));
    daemon.by(LinkId::Uart, &json!({"type": "stop_stream"}));
    let (phone, cloud) = (daemon.heard(LinkId::Uart), daemon.heard(LinkId::Cloud));
    let statuses = |heard: &[Value]| heard.iter().map(|m| m["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(statuses(&phone), ["initializing", "streaming", "stopping", "stopped"]);
    assert_eq!(statuses(&phone), statuses(&cloud));
    assert!(phone.iter().all(|message| message["type"] == "stream_status"), "{phone:?}");
    assert!(cloud.iter().all(|message| message["type"] == "rtmp_stream_status"), "{cloud:?}");
}

#[test]
fn a_stop_without_an_id_is_for_what_the_same_link_started() {
    let mut daemon = Daemon::linked();
    daemon.by(LinkId::Cloud, &start_message("s1", "a"));
    daemon.by(LinkId::Uart, &json!({"type": "stop_rtmp_stream"}));
    assert!(daemon.streams());
    assert_eq!(daemon.heard(LinkId::Uart).last().unwrap()["errorDetails"], "not_streaming");
    daemon.by(LinkId::Uart, &json!({"type": "stop_rtmp_stream", "streamId": "s1"}));
    assert!(!daemon.streams(), "who knows the id means that stream");
}

#[test]
fn only_the_loss_of_the_link_that_started_it_ends_a_stream() {
    let mut daemon = Daemon::linked();
    daemon.by(LinkId::Uart, &json!({"type": "start_stream", "streamUrl": "rtmp://h/live/k", "appId": "a"}));
    daemon.give(Input::LinkDown(LinkId::Cloud));
    daemon.pass(Duration::from_mins(10));
    assert!(daemon.streams());
    daemon.give(Input::LinkDown(LinkId::Uart));
    daemon.pass(Duration::from_mins(1));
    // The other link's return changes nothing.
    daemon.give(Input::LinkUp(LinkId::Cloud));
    daemon.pass(Duration::from_mins(2));
    assert!(!daemon.streams());
    assert_eq!(daemon.reports.last().unwrap().2, Some(Cause::LinkLost));
    assert_eq!(daemon.words(LinkId::Cloud).last().unwrap(), "error");
    daemon.sent_over.clear();
    daemon.give(Input::LinkUp(LinkId::Uart));
    let missed = daemon.heard(LinkId::Uart);
    assert_eq!((&missed[0]["kind"], &missed[1]["cause"]), (&json!("snapshot"), &json!("link_lost")));
}

#[test]
fn each_link_has_message_ids_of_its_own() {
    let mut daemon = Daemon::linked();
    let ping = json!({"type": "ping", "mId": 7});
    for link in LinkId::ALL {
        daemon.by(link, &ping);
        daemon.by(link, &ping);
        assert_eq!(daemon.words(link), ["msg_ack", "pong", "msg_ack"]);
    }
}

#[test]
fn a_phone_that_begins_is_told_the_whole_state() {
    let mut daemon = Daemon::linked();
    daemon.by(LinkId::Uart, &json!({"type": "phone_ready"}));
    let heard = daemon.heard(LinkId::Uart);
    assert!(heard[0]["type"] == "glasses_ready" && heard[0]["timestamp"].is_u64(), "{heard:?}");
    assert_eq!(heard[1]["kind"], "snapshot");
}

#[test]
fn a_photo_is_refused_over_the_serial_line() {
    let mut daemon = Daemon::linked();
    daemon.by(LinkId::Uart, &json!({"type": "photo_request", "requestId": "p1", "appId": "a"}));
    let heard = daemon.heard(LinkId::Uart);
    assert!(heard.len() == 1 && heard[0].to_string().contains("p1"), "{heard:?}");
    assert!(daemon.core.is_idle());
}
