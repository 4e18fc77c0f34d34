//! The rule on a link that is a single queue. The benches' simulator has more realistic links.

use proptest::prelude::*;

use super::*;

const WANTED: u32 = 2_000_000;
const ROUND_TRIP: Duration = Duration::from_millis(40);

fn settings() -> FollowSettings {
    FollowSettings { limit: WANTED, floor: 150_000, frame_rate: 30 }
}

/// A link with one queue, fed by an encoder that obeys at once.
struct SimulatedLink {
    rule: Follow,
    now: Time,
    /// Bit/s.
    capacity: f64,
    /// The most the scene needs, bit/s.
    scene: f64,
    /// The encoder's least output per picture, bits.
    coarsest: f64,
    encoded: f64,
    delivered: f64,
}

impl SimulatedLink {
    fn new(capacity: f64) -> Self {
        let mut rule = Follow::new(&settings());
        let now = Duration::from_secs(50);
        rule.on(UplinkEvent::Connected, now);
        Self { rule, now, capacity, scene: f64::INFINITY, coarsest: 0.0, encoded: 0.0, delivered: 0.0 }
    }

    fn step(&mut self) -> Decision {
        let step = INTERVAL.as_secs_f64();
        self.now += INTERVAL;
        let Decision { bitrate, pictures } = self.rule.decision();
        let pictures_made = 30.0 * step / f64::from(pictures.one_in(30));
        self.encoded += (f64::from(bitrate).min(self.scene) * step).max(self.coarsest * pictures_made) / 8.0;
        self.delivered = (self.delivered + self.capacity * step / 8.0).min(self.encoded);
        let backlog = self.encoded - self.delivered;
        let sample = UplinkSample {
            acked: self.delivered as u64 + 1,
            arrived: self.delivered as u64 + 1,
            outstanding: backlog.min(30e3) as u64 + 100,
            unsent: (backlog - 14e3).clamp(0.0, 16e3) as u64,
            waiting: (backlog - 30e3).max(0.0) as u64,
            queued: Duration::from_secs_f64((backlog - 30e3).max(0.0) * 8.0 / f64::from(bitrate)),
            round_trip: ROUND_TRIP + Duration::from_secs_f64(backlog.min(14e3) * 8.0 / self.capacity.max(1e3)),
            encoded: self.encoded as u64,
        };
        self.rule.on(UplinkEvent::Sampled(sample), self.now)
    }

    fn run(&mut self, seconds: u64) -> Decision {
        (0..seconds * 10).map(|_| self.step()).last().expect("some time")
    }

    /// Seconds of media on the way.
    fn queue(&self) -> f64 {
        (self.encoded - self.delivered) * 8.0 / self.capacity
    }
}

#[test]
fn a_link_with_room_is_left_alone() {
    let mut link = SimulatedLink::new(5e6);
    for _ in 0..600 {
        assert_eq!(link.step(), Decision { bitrate: WANTED, pictures: Pictures::All });
    }
}

#[test]
fn it_falls_within_a_second_and_is_back_within_ten() {
    let mut link = SimulatedLink::new(2.2e6);
    link.run(20);
    link.capacity = 0.6e6;
    link.run(1);
    assert!(link.rule.decision().bitrate < 600_000, "{:?}", link.rule.decision());
    link.run(4);
    for _ in 0..200 {
        link.step();
        assert!(link.queue() < 0.5, "a queue of {} s once settled", link.queue());
    }
    let settled = link.run(1).bitrate;
    assert!((480_000..=650_000).contains(&settled), "{settled}");
    link.capacity = 2.2e6;
    let back = link.run(10).bitrate;
    assert!(back >= WANTED / 10 * 9, "{back}");
}

#[test]
fn the_kernel_holds_what_keeps_the_link_busy_and_more_when_nothing_arrives() {
    let mut link = SimulatedLink::new(5e6);
    link.run(5);
    // Enough for two round trips and 100 ms, at 2 Mbit/s and 80 messages a second.
    let before = link.rule.send_buffer().expect("the link is known");
    assert_eq!(before, 76_000);
    link.capacity = 0.6e6;
    link.run(1);
    let fallen = link.rule.send_buffer().expect("it still is");
    assert!((40_000..=44_000).contains(&fallen), "{fallen}");
    link.capacity = 0.0;
    link.run(1);
    assert!(link.rule.send_buffer() > Some(2 * fallen), "{:?}", link.rule.send_buffer());
    link.capacity = 0.6e6;
    link.run(1);
    assert!(link.rule.send_buffer() <= Some(fallen), "{:?}", link.rule.send_buffer());
    link.rule.on(UplinkEvent::Connected, link.now);
    assert_eq!(link.rule.send_buffer(), None, "another connection may be over another network");
}

#[test]
fn a_still_scene_takes_nothing_away_and_proves_nothing() {
    let mut link = SimulatedLink::new(1e6);
    let before = link.run(30).bitrate;
    link.scene = 50e3;
    let after = link.run(60).bitrate;
    assert!(after >= before / 10 * 8, "{before} before, {after} after a minute of stillness");
    assert!(after <= WANTED, "{after}");
    link.scene = f64::INFINITY;
    link.run(4);
    assert!(link.queue() < 0.8, "a queue of {} s once it moves again", link.queue());
}

#[test]
fn the_connection_after_a_black_hole_begins_where_the_one_before_usually_was() {
    let mut link = SimulatedLink::new(1e6);
    let before = link.run(60).bitrate;
    link.capacity = 0.0;
    assert_eq!(link.run(3).bitrate, 24_000);
    link.capacity = 1e6;
    (link.encoded, link.delivered) = (0.0, 0.0);
    let after = link.rule.on(UplinkEvent::Connected, link.now);
    assert!(after.bitrate >= before / 2, "{before} before, {after:?} after");
    link.run(2);
    assert_eq!(link.rule.decision().pictures, Pictures::All);
    assert!(link.run(8).bitrate >= before / 10 * 8);
}

#[test]
fn an_outage_ends_in_key_frames_and_is_forgotten_soon() {
    let mut link = SimulatedLink::new(4e6);
    link.run(10);
    link.capacity = 1.0;
    assert_eq!(link.run(4).pictures, Pictures::KeyFrames);
    link.capacity = 4e6;
    let back = link.run(8);
    assert_eq!(back.pictures, Pictures::All);
    assert!(back.bitrate >= WANTED / 10 * 8, "{back:?}");
}

#[test]
fn below_the_floor_pictures_are_left_out() {
    let mut link = SimulatedLink::new(90e3);
    link.run(60);
    let pictures: Vec<Pictures> = (0..300).map(|_| link.step().pictures).collect();
    assert!(pictures.iter().all(|pictures| *pictures != Pictures::All), "{pictures:?}");
    assert!(link.queue() < 2.0, "a queue of {} s", link.queue());
}

#[test]
fn an_encoder_that_cannot_go_lower_gets_fewer_pictures() {
    let mut link = SimulatedLink::new(500e3);
    link.coarsest = 800e3 / 30.0;
    link.run(30);
    let decision = link.run(10);
    assert_ne!(decision.pictures, Pictures::All, "{decision:?}");
    assert!(link.queue() < 1.5, "a queue of {} s", link.queue());
}

#[test]
fn a_new_limit_holds_at_once() {
    let mut rule = Follow::new(&settings());
    let now = Duration::from_secs(1);
    assert_eq!(rule.on(UplinkEvent::Limit(800_000), now).bitrate, 800_000);
    assert_eq!(rule.on(UplinkEvent::Limit(1_500_000), now).bitrate, 1_500_000, "nothing spoke against it");
}

#[test]
fn what_is_known_of_the_network_is_where_it_begins() {
    let mut link = SimulatedLink::new(1e6);
    assert_eq!(link.rule.carries(), None);
    link.run(60);
    let known = link.rule.carries().expect("it was too little");
    assert!((700_000..1_050_000).contains(&known), "{known}");
    let mut again = SimulatedLink::new(1e6);
    again.rule.on(UplinkEvent::Known(known), again.now);
    assert_eq!(again.rule.decision().bitrate, known / 50_000 * 50_000);
    for _ in 0..20 {
        again.step();
        assert!(again.queue() < 0.5, "a queue of {} s from the start", again.queue());
    }
    assert_eq!(Follow::new(&settings()).on(UplinkEvent::Known(9_000_000), Duration::ZERO).bitrate, WANTED);
}

proptest! {
    #[test]
    fn whatever_comes_it_stays_within_its_bounds(
        limit in 100_000_u32..10_000_000,
        floor in 50_000_u32..1_000_000,
        events in prop::collection::vec((0_u64..3_000, 0_u64..1 << 40, 0_u64..1 << 24, 0_u64..1 << 40, 0_u64..9_000, any::<bool>()), 1..300),
    ) {
        let mut rule = Follow::new(&FollowSettings { limit, floor, frame_rate: 30 });
        let mut now = Duration::ZERO;
        for (step, acked, outstanding, encoded, wait, connected) in events {
            now += Duration::from_millis(step);
            if connected && step > 2_900 {
                rule.on(UplinkEvent::Connected, now);
            }
            let sample = UplinkSample {
                acked,
                arrived: acked + outstanding / 7,
                outstanding, encoded,
                unsent: outstanding / 2,
                waiting: outstanding * 3,
                queued: Duration::from_millis(wait),
                round_trip: Duration::from_millis(wait / 3),
            };
            let decision = rule.on(UplinkEvent::Sampled(sample), now);
            prop_assert!((24_000..=limit).contains(&decision.bitrate), "{decision:?}");
            prop_assert!(rule.send_buffer().is_some_and(|bytes| (16_000..=12_000_000).contains(&bytes)));
        }
    }
}

/// A link of 3 Mbit/s and 200 ms round trip, for ten seconds after ten: the lowest bitrate decided. During the samples
/// `hole` acknowledgements wait for a lost segment; during `held` TCP sends at most four segments per round trip.
fn least_far_away(hole: std::ops::Range<usize>, held: std::ops::Range<usize>) -> u32 {
    let mut rule = Follow::new(&settings());
    let mut now = Duration::from_secs(50);
    rule.on(UplinkEvent::Connected, now);
    let (mut produced, mut acked) = (3000, 0);
    let mut sent = std::collections::VecDeque::from([3000_u64, 3000]);
    let mut least = WANTED;
    for number in 0..200 {
        now += INTERVAL;
        produced += u64::from(rule.decision().bitrate) / 80;
        let (before, arrived) = (sent[1], sent.pop_front().expect("two round trips of a sample each"));
        let most = if held.contains(&number) { (arrived + 4 * 1448).max(before) } else { before + 3_000_000 / 80 };
        sent.push_back(produced.min(most));
        if !hole.contains(&number) {
            acked = arrived;
        }
        let (outstanding, unsent) = (produced - acked, produced - sent[1]);
        let round_trip = Duration::from_millis(200);
        let sample = UplinkSample {
            acked,
            arrived,
            outstanding,
            unsent,
            round_trip,
            encoded: produced - 3000,
            ..UplinkSample::default()
        };
        let decision = rule.on(UplinkEvent::Sampled(sample), now);
        if number >= 100 {
            least = least.min(decision.bitrate);
        }
    }
    least
}

#[test]
fn a_long_way_is_no_queue_and_neither_is_a_lost_segment() {
    assert_eq!(least_far_away(0..0, 0..0), WANTED);
    assert_eq!(least_far_away(120..123, 0..0), WANTED, "while it is sent again the rest arrives");
}

#[test]
fn a_pause_of_tcp_itself_is_not_taken_for_the_link() {
    let least = least_far_away(0..0, 120..124);
    assert!(
        (WANTED / 4..WANTED).contains(&least),
        "what waits is to drain, but the link is as wide as before: {least}"
    );
}
