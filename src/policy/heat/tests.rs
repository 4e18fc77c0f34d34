use proptest::prelude::*;

use super::*;

const DWELL: Duration = Duration::from_secs(20);
const BEAT: Duration = Duration::from_millis(1500);
const LIMITS: Limits = Limits { throttle: 85.0, end: 95.0 };

struct Board {
    heat: Heat,
    now: Time,
}

impl Board {
    fn new() -> Self {
        Self { heat: Heat::new(DWELL), now: Duration::from_secs(5) }
    }

    fn read(&mut self, celsius: f64) -> usize {
        self.now += BEAT;
        self.heat.on(HeatSample::of(celsius, LIMITS), self.now);
        self.heat.step()
    }

    fn hold(&mut self, celsius: f64, time: Duration) -> usize {
        for _ in 0..time.as_millis() / BEAT.as_millis() {
            self.read(celsius);
        }
        self.heat.step()
    }
}

#[test]
fn a_slow_ramp_takes_every_step_before_the_kernel_throttles_and_gives_it_back() {
    let mut board = Board::new();
    let mut steps = vec![board.read(60.0)];
    for tenth in 600..850 {
        steps.push(board.read(f64::from(tenth) / 10.0));
    }
    for tenth in (500..850).rev() {
        steps.push(board.hold(f64::from(tenth) / 10.0, Duration::from_secs(3)));
    }
    steps.dedup();
    assert_eq!(steps, [0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0]);
}

#[test]
fn one_bad_reading_changes_nothing() {
    let mut board = Board::new();
    board.hold(60.0, DWELL);
    assert_eq!(board.read(120.0), 0);
    assert!(!board.heat.too_hot());
    assert_eq!(board.hold(60.0, DWELL), 0);
    assert_eq!(board.hold(78.0, DWELL), 2);
    board.read(-40.0);
    assert_eq!(board.hold(78.0, DWELL), 2);
}

#[test]
fn a_step_back_needs_three_degrees_and_a_dwell() {
    let mut board = Board::new();
    board.hold(76.0, DWELL);
    assert_eq!(board.hold(72.5, DWELL * 10), 1, "not cool enough");
    assert_eq!(board.hold(71.9, DWELL / 2), 1, "not long enough");
    assert_eq!(board.hold(76.0, BEAT * 3), 1);
    assert_eq!(board.hold(71.9, DWELL * 3 / 4), 1, "the dwell begins anew");
    assert_eq!(board.hold(71.9, DWELL / 2), 0);
}

#[test]
fn a_stream_on_hot_glasses_begins_with_what_they_bear() {
    let mut board = Board::new();
    assert_eq!(board.read(82.0), 4);
    board.now += Duration::from_mins(10);
    assert_eq!(board.read(50.0), 0, "nobody waits for dwells that passed unseen");
}

#[test]
fn the_end_is_final_until_it_is_well_cooler() {
    let mut board = Board::new();
    board.hold(94.9, DWELL);
    assert!(!board.heat.too_hot());
    board.hold(95.0, BEAT * 3);
    assert!(board.heat.too_hot());
    board.hold(82.5, DWELL);
    assert!(board.heat.too_hot());
    board.hold(81.9, BEAT * 3);
    assert!(!board.heat.too_hot());
}

#[test]
fn limits_come_from_the_zones_own_trip_points() {
    let trip = |kind, celsius| Trip { kind, celsius };
    let (passive, hot, critical) = (TripKind::Passive, TripKind::Hot, TripKind::Critical);
    let limits = |throttle, end| Limits { throttle, end };
    assert_eq!(Limits::of(&[], false), limits(85.0, 95.0));
    let rockchip = [trip(passive, 75.0), trip(passive, 85.0), trip(critical, 115.0)];
    assert_eq!(Limits::of(&rockchip, false), limits(75.0, 112.0));
    assert_eq!(Limits::of(&rockchip, true), limits(85.0, 112.0));
    assert_eq!(Limits::of(&[trip(critical, 110.0), trip(hot, 105.0)], false), limits(85.0, 102.0));
    assert_eq!(Limits::of(&[trip(passive, 95.0)], false), limits(95.0, 103.0));
    assert_eq!(Limits::of(&[trip(passive, 45.0), trip(critical, 60.0)], false), limits(45.0, 57.0), "the skin");
    assert_eq!(Limits::of(&[trip(critical, 80.0)], false), limits(76.0, 77.0));
    assert_eq!(Limits::of(&[trip(passive, -273.0), trip(critical, 0.0)], false), limits(85.0, 95.0), "not in use");
    assert_eq!(Limits::of(&rockchip, false).or(Some(70.0), None), limits(70.0, 112.0));
    assert_eq!(Limits::of(&rockchip, false).or(None, Some(60.0)), limits(59.0, 60.0));
}

#[test]
fn the_zone_nearest_to_its_limit_counts() {
    let skin = HeatSample::of(46.0, Limits { throttle: 45.0, end: 57.0 });
    let cpu = HeatSample::of(70.0, LIMITS);
    assert_eq!(cpu.worse(skin), skin);
}

proptest! {
    /// For any readings: one step at a time, none taken without need, none taken back without cause and patience.
    #[test]
    fn steps_follow_the_temperature_one_at_a_time(readings in prop::collection::vec(40.0..110.0_f64, 1..400)) {
        let mut board = Board::new();
        let mut last_three: VecDeque<f64> = VecDeque::new();
        let mut changed_at = board.now;
        for (index, celsius) in readings.into_iter().enumerate() {
            let before = board.heat.step();
            let after = board.read(celsius);
            last_three.push_back(celsius);
            if last_three.len() > 3 {
                last_three.pop_front();
            }
            let (least, most) = last_three.iter().fold((f64::MAX, f64::MIN), |(a, b), &t| (a.min(t), b.max(t)));
            if index > 0 {
                prop_assert!(after.abs_diff(before) <= 1);
            }
            if after > before {
                prop_assert!(step_at(most - LIMITS.throttle) > before);
            }
            if after < before {
                prop_assert!(step_at(least - LIMITS.throttle + HYSTERESIS) < before);
                prop_assert!(board.now.saturating_sub(changed_at) >= DWELL);
            }
            if after != before {
                changed_at = board.now;
            }
            prop_assert_eq!(board.heat.allowance() == Allowance::ALL, after == 0);
        }
    }

    /// Glasses that warm with what the stream does and cool by themselves: the steps settle instead of swinging, and
    /// throttling is avoided where it can be.
    #[test]
    fn on_real_glasses_it_settles(
        ambient in 20.0..45.0_f64,
        idle in 5.0..20.0_f64,
        load in 10.0..70.0_f64,
        slowness in 20.0..400.0_f64,
        noise in 0.0..0.8_f64,
        seed in any::<u64>(),
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut board = Board::new();
        let mut celsius = ambient;
        let (mut turns, mut rising, mut hottest) = (0, true, f64::MIN);
        let hours = 2.0;
        for _ in 0..(hours * 3600.0 / BEAT.as_secs_f64()) as usize {
            let Allowance { percent, pictures } = board.heat.allowance();
            // Half of the load is pictures, half is bits.
            let work = 0.5 * f64::from(percent) / 100.0 + 0.5 / f64::from(pictures.one_in(30));
            celsius += (ambient + idle + load * work - celsius) * BEAT.as_secs_f64() / slowness;
            hottest = hottest.max(celsius);
            let before = board.heat.step();
            let after = board.read(celsius + noise * (random.f64() * 2.0 - 1.0));
            if after != before && (after > before) != rising {
                rising = !rising;
                turns += 1;
            }
        }
        let least = ambient + idle + load * (0.5 * 0.2 + 0.5 * 0.25);
        prop_assert!(least > LIMITS.throttle - 3.0 || hottest < LIMITS.throttle + 1.0, "{hottest}");
        prop_assert!(f64::from(turns) <= 16.0 * hours, "{turns} turns");
    }
}
