use proptest::prelude::*;

use super::*;

const START: i64 = 1_800_000_000;
const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The truth, and what the clocks make of it. All in seconds.
struct World {
    /// The true time since the start.
    passed: i64,
    /// Of that, what the machine slept, and what it was paused without noticing.
    slept: i64,
    paused: i64,
    /// How far wall clock and API server are ahead of the truth.
    wall: i64,
    server: i64,
    correction: Correction,
}

impl World {
    fn new(wall: i64, server: i64) -> Self {
        let start = Moment { wall: midway(wall), ..Moment::default() };
        let mut world =
            World { passed: 0, slept: 0, paused: 0, wall, server, correction: Correction::new(start) };
        world.hear();
        world
    }

    fn moment(&self) -> Moment {
        let seconds = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
        Moment {
            awake: seconds(self.passed - self.slept - self.paused),
            slept: seconds(self.slept),
            wall: midway(self.passed + self.wall),
        }
    }

    /// The API server answers.
    fn hear(&mut self) {
        let (date, now) = (at(self.passed + self.server), self.moment());
        self.correction.server_said(date, now, now);
    }

    fn pass(&mut self, seconds: i64) {
        self.passed += seconds;
        self.correction.compare(self.moment());
        self.hear();
    }

    /// How far the corrected time is ahead of the truth.
    fn error(&self) -> i64 {
        self.correction.at(self.moment()).as_second() - (START + self.passed)
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

/// Half a second later, which a `Date` of whole seconds does not show.
fn midway(seconds: i64) -> Timestamp {
    at(seconds) + Duration::from_millis(500)
}

#[test]
fn correction_ignores_steps_of_the_wall_clock_that_the_api_server_does_not_share() {
    for step in [-DAY, -2 * HOUR, -4 * MINUTE, -6, 6, 4 * MINUTE, 2 * HOUR, DAY, 400 * DAY] {
        let mut world = World::new(0, 0);
        world.pass(10);
        world.wall += step;
        world.pass(10);
        assert_eq!((world.error(), world.correction.rewound()), (0, 0), "{step} s");
        let expected = Changes { stepped: Some(step), ..Changes::default() };
        assert_eq!(world.correction.take_changes(), expected, "{step} s");
        world.pass(HOUR);
        assert_eq!((world.error(), world.correction.take_changes()), (0, Changes::default()), "{step} s");
    }
}

#[test]
fn correction_of_many_small_steps_does_not_creep() {
    let mut world = World::new(0, 0);
    for _ in 0..100 {
        world.wall -= 4;
        world.pass(10);
    }
    assert!(world.error().abs() <= 5, "{}", world.error());
}

#[test]
fn correction_starts_by_the_api_server_where_the_wall_clock_differs() {
    for ahead in [-DAY, 2 * HOUR, 40] {
        let mut world = World::new(ahead, 0);
        assert_eq!(world.error(), 0, "{ahead} s");
        world.pass(10);
        assert_eq!(world.correction.difference(), Some(-ahead));
        assert_eq!(world.correction.standing(world.moment()), Standing::Doubtful);
        world.wall = 0;
        world.pass(10);
        assert_eq!(world.error(), 0, "it was corrected");
        assert_eq!(world.correction.standing(world.moment()), Standing::Trusted);
    }
    // 1970, as before its first synchronization: no guide.
    assert_eq!(World::new(0, -START).error(), 0);
}

#[test]
fn correction_counts_what_was_slept() {
    let mut world = World::new(0, 0);
    world.slept += HOUR;
    world.pass(HOUR);
    assert_eq!((world.error(), world.correction.rewound()), (0, 0));
    let slept = HOUR.unsigned_abs();
    assert_eq!(world.correction.take_changes(), Changes { slept, ..Changes::default() });
}

#[test]
fn correction_follows_the_wall_clock_where_the_api_server_agrees_with_it() {
    // Neither clock of the machine counted a pause; then its wall clock was synchronized.
    let mut world = World::new(0, 0);
    world.paused += HOUR;
    world.wall -= HOUR;
    world.pass(HOUR);
    assert_eq!(world.error(), -HOUR, "wall clock and age agree");
    world.wall = 0;
    world.pass(1);
    assert_eq!((world.error(), world.correction.rewound()), (0, 0));
    assert_eq!(world.correction.take_changes().corrected, HOUR);

    // Both were two hours ahead.
    let mut world = World::new(2 * HOUR, 2 * HOUR);
    (world.wall, world.server) = (0, 0);
    world.pass(10);
    assert_eq!((world.error(), world.correction.rewound()), (0, 2 * HOUR.unsigned_abs()));
}

#[test]
fn correction_ignores_steps_of_the_api_server() {
    let mut world = World::new(0, 0);
    world.server += DAY;
    world.pass(10);
    world.pass(10);
    assert_eq!((world.error(), world.correction.server_agrees()), (0, false));
    assert_eq!(world.correction.standing(world.moment()), Standing::Doubtful);
    world.server = 0;
    world.pass(10);
    assert_eq!((world.error(), world.correction.server_agrees()), (0, true));
}

#[test]
fn correction_ignores_the_date_of_a_slow_response() {
    let mut world = World::new(0, 0);
    let sent = world.moment();
    world.passed += 60;
    world.correction.server_said(at(-DAY), sent, world.moment());
    assert_eq!(world.correction.difference(), Some(0));
}

#[test]
fn correction_asks_the_api_server_only_where_the_clocks_disagree() {
    let mut world = World::new(0, 0);
    let age = Duration::from_secs(10);
    world.passed += HOUR;
    assert!(!world.correction.is_open(world.moment(), age), "they agree");
    world.wall += HOUR;
    assert!(world.correction.is_open(world.moment(), age));
    world.hear();
    assert!(!world.correction.is_open(world.moment(), age));
}

#[test]
fn standing_is_implausible_outside_of_this_century_from_2026_on() {
    let correction = Correction::new(Moment::default());
    for (time, expected) in [
        ("1970-01-01T00:10:00Z", Standing::Implausible),
        ("2025-12-31T23:59:59Z", Standing::Implausible),
        ("2026-01-01T00:00:00Z", Standing::Trusted),
        ("2099-12-31T23:59:59Z", Standing::Trusted),
        ("2100-01-01T00:00:00Z", Standing::Implausible),
    ] {
        let now = Moment { wall: time.parse().unwrap(), ..Moment::default() };
        assert_eq!(correction.standing(now), expected, "{time}");
    }
}

proptest! {
    #[test]
    fn correction_is_right_whatever_is_done_to_the_wall_clock(
        ahead in -DAY..DAY,
        steps in prop::collection::vec((-2 * DAY..2 * DAY, 1..300i64, any::<bool>()), 0..30),
    ) {
        let mut world = World::new(ahead, 0);
        for (step, seconds, sleeps) in steps {
            world.wall += step;
            if sleeps {
                world.slept += seconds;
            }
            world.pass(seconds);
            prop_assert!(world.error().abs() <= 6, "{} s", world.error());
        }
    }
}
