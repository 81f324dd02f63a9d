//! Fleets as lines of text: what is heard of each slot, ten seconds a character, and what is found when.

use super::*;
use crate::fleet::STABLE_AFTER;

const LIMIT: Duration = Duration::from_secs(60);

fn second(second: u64) -> Monotonic {
    Monotonic(second * 1_000_000_000)
}

fn told(finding: &Finding) -> String {
    match finding {
        Finding::CutOff(slots) => {
            format!("cut-off {}", slots.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        }
        Finding::Reunited => "reunited".to_owned(),
        Finding::Out(slot) => format!("out {slot}"),
        Finding::In(slot) => format!("in {slot}"),
        Finding::Lost(slot) => format!("lost {slot}"),
        Finding::Back(slot, why) => format!("back {slot} {why}"),
    }
}

/// Plays a fleet: `#` is heard, `.` is not connected, `~` is connected and says nothing, `D` is heard and drained, `x` is not connected,
/// not asked for, and owns nothing once it is out. `orders`: `hold` or `resume` at a second. Every slot is in at the beginning.
fn play(fleet: &[&str], orders: &[(u64, &str)]) -> Vec<String> {
    let mut watch = Watch::new(second(0));
    let mut held = Held::default();
    let lines: Vec<(Slot, Vec<char>)> = fleet
        .iter()
        .map(|line| {
            let (slot, heard) = line.split_once(' ').unwrap();
            let (region, number) = slot.split_once('/').unwrap();
            let number = shared::name::SlotNumber::new(number.parse().unwrap()).unwrap();
            (Slot { region: region.parse().unwrap(), number }, heard.trim().chars().collect())
        })
        .collect();
    let mut known: Vec<Known> = lines
        .iter()
        .map(|(slot, _)| Known {
            slot: slot.clone(),
            present: true,
            drained: false,
            needed: true,
            connected: false,
            stable: false,
            heard: second(0),
            limit: LIMIT,
            lost: false,
        })
        .collect();
    let mut since = vec![second(0); lines.len()];
    let mut found = Vec::new();
    let end = lines.iter().map(|(_, heard)| heard.len()).max().unwrap();
    for at in 0..u64::try_from(end).unwrap() * 10 {
        let now = second(at);
        for ((known, (_, heard)), since) in known.iter_mut().zip(&lines).zip(&mut since) {
            let sign = heard.get(usize::try_from(at / 10).unwrap()).copied().unwrap_or('.');
            let connected = matches!(sign, '#' | '~' | 'D');
            if connected && !known.connected {
                *since = now;
            }
            if matches!(sign, '#' | 'D') {
                known.heard = now;
            }
            known.connected = connected;
            known.drained = sign == 'D';
            known.present &= !known.drained;
            known.needed = sign != 'x' || known.present;
            known.stable = connected && now.since(*since) >= STABLE_AFTER;
        }
        for (_, order) in orders.iter().filter(|(when, _)| *when == at) {
            held.by_operator = *order == "hold";
            if *order == "resume" {
                held.cut_off = false;
                watch.begin_anew(now);
            }
        }
        for finding in watch.look(now, held, &known) {
            found.push(format!("{at} {}", told(&finding)));
            let mut of = |slot: &Slot, change: fn(&mut Known)| {
                known.iter_mut().filter(|known| known.slot == *slot).for_each(change);
            };
            match &finding {
                Finding::CutOff(_) => held.cut_off = true,
                Finding::Reunited => held.cut_off = false,
                Finding::Out(slot) => of(slot, |known| known.present = false),
                Finding::In(slot) => of(slot, |known| known.present = true),
                Finding::Lost(slot) => of(slot, |known| known.lost = true),
                Finding::Back(slot, _) => of(slot, |known| known.lost = false),
            }
        }
    }
    found
}

fn expect(fleet: &[&str], orders: &[(u64, &str)], found: &[&str]) {
    assert_eq!(play(fleet, orders), found, "{fleet:#?} {orders:?}");
}

#[test]
fn a_silent_slot_is_lost_and_out_after_its_limit_and_in_again_when_stable() {
    expect(
        &[
            "eu/1 ##################################",
            "eu/2 ##################################",
            "eu/3 ##........########################",
        ],
        &[],
        &["79 lost eu/3", "79 out eu/3", "100 back eu/3 heard", "220 in eu/3"],
    );
}

#[test]
fn a_slot_that_returns_in_time_was_never_away() {
    expect(&["eu/1 ##########", "eu/2 ##.....###", "eu/3 ##########"], &[], &[]);
}

#[test]
fn a_slot_that_comes_and_goes_owns_nothing_until_it_stays() {
    expect(
        &[
            "eu/1 ##################################################",
            "eu/2 #.......####..####.......#########################",
            "eu/3 ##################################################",
        ],
        &[],
        &["69 lost eu/2", "69 out eu/2", "80 back eu/2 heard", "239 lost eu/2", "250 back eu/2 heard", "370 in eu/2"],
    );
}

#[test]
fn where_the_region_has_nobody_else_ownership_stays_and_the_loss_is_told_all_the_same() {
    expect(
        &["eu/1 ##........###", "us/1 #############", "us/2 #############"],
        &[],
        &["79 lost eu/1", "100 back eu/1 heard"],
    );
}

#[test]
fn a_region_that_falls_keeps_its_hosts_until_one_of_it_lives() {
    expect(
        &[
            "eu/1 ##.............................",
            "eu/2 ##...........##################",
            "us/1 ###############################",
            "us/2 ###############################",
            "us/3 ###############################",
        ],
        &[],
        &["79 lost eu/1", "79 lost eu/2", "130 out eu/1", "130 back eu/2 heard"],
    );
}

#[test]
fn most_slots_falling_together_hold_everything_until_half_are_there() {
    let fleet =
        ["eu/1 ############################", "eu/2 ##............##............", "eu/3 ###........................."];
    // Two of three, ten seconds apart: nobody is lost and nothing moves. One comes back: half are there, and the third's time begins anew.
    expect(
        &fleet,
        &[],
        &[
            "44 cut-off eu/2 eu/3",
            "140 reunited",
            "200 lost eu/3",
            "200 out eu/3",
            // The second one falls alone this time.
            "219 lost eu/2",
            "219 out eu/2",
        ],
    );
}

#[test]
fn slots_that_fall_one_after_the_other_are_lost_one_by_one() {
    expect(
        &["eu/1 ####################", "eu/2 ##..................", "eu/3 ######.............."],
        &[],
        &["79 lost eu/2", "79 out eu/2", "119 lost eu/3", "119 out eu/3"],
    );
}

#[test]
fn an_operator_ends_the_cut_and_every_silence_counts_anew() {
    expect(
        &["eu/1 ####################", "eu/2 ##..................", "eu/3 ##.................."],
        &[(100, "resume")],
        &["34 cut-off eu/2 eu/3", "160 lost eu/2", "160 out eu/2", "160 lost eu/3", "160 out eu/3"],
    );
}

#[test]
fn while_an_operator_holds_the_moves_losses_are_told_and_nothing_moves() {
    expect(
        &["eu/1 ####################", "eu/2 ##..................", "eu/3 ####################"],
        &[(10, "hold"), (120, "resume")],
        &["79 lost eu/2", "180 out eu/2"],
    );
}

#[test]
fn a_drained_slot_is_no_part_of_the_majority_and_no_loss() {
    expect(
        &["eu/1 ####################", "eu/2 ##..................", "eu/3 DDDDDDDDDDDDDDDDDDDD"],
        &[],
        &["79 lost eu/2", "79 out eu/2"],
    );
    expect(
        &["eu/1 ##########################", "eu/2 ##.......DDDDD############", "eu/3 ##########################"],
        &[],
        &["79 lost eu/2", "79 out eu/2", "90 back eu/2 drained", "210 in eu/2"],
    );
}

#[test]
fn a_slot_nobody_asks_for_any_more_is_missed_only_while_it_owns_something() {
    expect(
        &["eu/1 ##########", "eu/2 ##xxxxxxxx", "eu/3 ##########"],
        &[],
        &["79 lost eu/2", "79 out eu/2", "80 back eu/2 not-needed"],
    );
}

#[test]
fn the_only_slot_of_an_installation_is_lost_and_no_cut() {
    expect(&["eu/1 ##........##"], &[], &["79 lost eu/1", "100 back eu/1 heard"]);
}

#[test]
fn connected_and_saying_nothing_is_silent_too() {
    expect(
        &["eu/1 ###########", "eu/2 ##~~~~~~~##", "eu/3 ###########"],
        &[],
        &["79 lost eu/2", "79 out eu/2", "90 back eu/2 heard"],
    );
}

#[test]
fn a_master_that_starts_among_the_lost_does_not_take_itself_for_cut_off() {
    let known = |number: u32, lost: bool| Known {
        slot: Slot { region: "eu".parse().unwrap(), number: shared::name::SlotNumber::new(number).unwrap() },
        present: !lost,
        drained: false,
        needed: true,
        connected: !lost,
        stable: false,
        heard: second(if lost { 0 } else { 20 }),
        limit: LIMIT,
        lost,
    };
    let fleet = [known(1, false), known(2, true), known(3, true)];
    assert_eq!(Watch::new(second(0)).look(second(20), Held::default(), &fleet), []);
}
