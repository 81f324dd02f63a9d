//! What the rounds have in common: a load of numbered answers, a fleet for it, and moments that are drawn.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tests::audit::Audit;
use tests::fakes::Fakes;
use tests::fleet::Fleet;
use tests::ledger::positions;
use tests::load::Load;
use tests::wait::until;

/// No single thing takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The last results are on their way for so long at most, also on a busy machine.
pub(crate) const ARRIVES: Duration = Duration::from_secs(120);
/// The claims that this program proves: of the first issue, and of this one with more rounds.
pub(crate) const CLAIMS: [u8; 2] = [4, 16];

/// A number from the environment.
pub(crate) fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Waits for a moment that was drawn: the moment is the input of this test, not a synchronisation.
pub(crate) fn let_run(draw: &mut StdRng, millis: std::ops::Range<u64>) {
    let moment = Duration::from_millis(draw.random_range(millis));
    until(moment, || false);
}

/// Results that lie on a satellite's disk and are not acknowledged, by its log.
pub(crate) fn undelivered(log: &str) -> u64 {
    let positions = positions(log);
    let known = |run: &String| positions.acknowledged.get(run).copied().unwrap_or(0);
    positions.durable.iter().map(|(run, durable)| durable.saturating_sub(known(run))).sum()
}

/// A fleet of one region, its daemons, and its judge; everything runs and is connected.
pub(crate) fn started(directory: &Path, load: Load, slots: u32) -> (Fleet, Fakes, Audit) {
    let (mut fleet, fakes, audit) = laid_out(directory, load, slots);
    fleet.start().unwrap();
    fleet.until_connected(PATIENCE).unwrap();
    (fleet, fakes, audit)
}

/// The same before anything but the daemons runs.
pub(crate) fn laid_out(directory: &Path, load: Load, slots: u32) -> (Fleet, Fakes, Audit) {
    let fakes = Fakes::start(directory, &load.daemons()).unwrap();
    let configuration = load.configuration(slots, &fakes.addresses);
    installed(directory, load, slots, fakes, &configuration)
}

/// The same where a slot of which nothing is heard for so long is failed over.
pub(crate) fn failing_over(directory: &Path, load: Load, slots: u32, after: Duration) -> (Fleet, Fakes, Audit) {
    let fakes = Fakes::start(directory, &load.daemons()).unwrap();
    let configuration = load.configuration_with(slots, after, &fakes.addresses);
    installed(directory, load, slots, fakes, &configuration)
}

fn installed(directory: &Path, load: Load, slots: u32, fakes: Fakes, configuration: &str) -> (Fleet, Fakes, Audit) {
    let config = directory.join("site.yaml");
    fs::write(&config, configuration).unwrap();
    let names: Vec<(&str, u32)> = (1..=slots).map(|number| ("eu", number)).collect();
    let fleet = Fleet::new(directory, &config, &names).unwrap();
    let audit = Audit { ledger: fakes.ledger.clone(), commands: load.commands(), ..Audit::default() };
    (fleet, fakes, audit)
}
