//! What `perigee-master check-config` prints: every mistake with its place, or what each region would have to do.
//!
//! Writes to what it is given and ends with the exit status of the command: 0 good, 2 wrong. Knows no running master.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use shared::name::RegionName;

use super::diagnostic::{Diagnostic, Severity};
use super::{Catalog, compile, load};

/// Exit status of a configuration that can be activated.
pub const EXIT_GOOD: u8 = 0;
/// Exit status of one that cannot.
pub const EXIT_WRONG: u8 = 2;

/// What a region is asked to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegionLoad {
    /// The region.
    pub region: RegionName,
    /// Slots expected.
    pub slots: u32,
    /// Hosts in it.
    pub hosts: usize,
    /// Services in it.
    pub services: usize,
    /// Checks a second while nothing is soft.
    pub checks_per_second: f64,
    /// The same for one slot, if all expected slots are there.
    pub checks_per_second_per_slot: f64,
}

/// The load of every region.
#[must_use]
pub fn loads(catalog: &Catalog) -> Vec<RegionLoad> {
    let mut loads: BTreeMap<&RegionName, RegionLoad> = catalog
        .regions
        .iter()
        .map(|(name, region)| {
            let load = RegionLoad {
                region: name.clone(),
                slots: region.slots,
                hosts: 0,
                services: 0,
                checks_per_second: 0.0,
                checks_per_second_per_slot: 0.0,
            };
            (name, load)
        })
        .collect();
    for (object, definition) in &catalog.objects {
        let Some(load) = loads.get_mut(&definition.region) else { continue };
        *(if object.is_host() { &mut load.hosts } else { &mut load.services }) += 1;
        let seconds = std::time::Duration::from_millis(definition.policy.check_interval_ms.max(1)).as_secs_f64();
        load.checks_per_second += 1.0 / seconds;
    }
    // Three digits are what a person reads; sums of many thirds of a second have noise behind them.
    let round = |value: f64| (value * 1_000.0).round() / 1_000.0;
    loads
        .into_values()
        .map(|load| RegionLoad {
            checks_per_second: round(load.checks_per_second),
            checks_per_second_per_slot: round(load.checks_per_second / f64::from(load.slots.max(1))),
            ..load
        })
        .collect()
}

/// The answer as JSON has it.
#[derive(Serialize)]
struct Answer<'a> {
    ok: bool,
    errors: usize,
    warnings: usize,
    diagnostics: &'a [Diagnostic],
    regions: Vec<RegionLoad>,
    digest: Option<String>,
}

/// Checks a file or directory and writes what there is to say. Gives the exit status.
///
/// # Errors
/// When `out` cannot be written to.
pub fn check_config(path: &Path, json: bool, out: &mut impl Write) -> io::Result<u8> {
    let (catalog, diagnostics) = match load(path) {
        Ok(sources) => match compile(&sources) {
            Ok((catalog, warnings)) => (Some(catalog), warnings),
            Err(diagnostics) => (None, diagnostics),
        },
        Err(error) => (None, vec![Diagnostic::of_path(path, error.to_string())]),
    };
    let count = |severity| diagnostics.iter().filter(|found| found.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let regions = catalog.as_ref().map(loads).unwrap_or_default();
    if json {
        let digest = catalog.as_ref().map(|catalog| catalog.digest.to_string());
        let answer = Answer { ok: catalog.is_some(), errors, warnings, diagnostics: &diagnostics, regions, digest };
        serde_json::to_writer_pretty(&mut *out, &answer)?;
        writeln!(out)?;
    } else {
        for diagnostic in &diagnostics {
            writeln!(out, "{}", diagnostic.render())?;
        }
        summary(out, catalog.as_ref(), &regions, errors, warnings)?;
    }
    Ok(if catalog.is_some() { EXIT_GOOD } else { EXIT_WRONG })
}

fn summary(
    out: &mut impl Write,
    catalog: Option<&Catalog>,
    regions: &[RegionLoad],
    errors: usize,
    warnings: usize,
) -> io::Result<()> {
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let Some(catalog) = catalog else {
        return writeln!(
            out,
            "{}, {}: this configuration cannot be activated",
            plural(errors, "mistake"),
            plural(warnings, "warning")
        );
    };
    let width = regions.iter().map(|load| load.region.as_str().len()).max().unwrap_or(0).max("region".len());
    writeln!(
        out,
        "{:width$} {:>6} {:>8} {:>9} {:>9} {:>7}",
        "region", "slots", "hosts", "services", "checks/s", "a slot"
    )?;
    for load in regions {
        writeln!(
            out,
            "{:width$} {:>6} {:>8} {:>9} {:>9.2} {:>7.2}",
            load.region, load.slots, load.hosts, load.services, load.checks_per_second, load.checks_per_second_per_slot
        )?;
    }
    writeln!(out, "good, {}; digest {}", plural(warnings, "warning"), catalog.digest)
}
