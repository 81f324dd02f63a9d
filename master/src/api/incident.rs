//! Problems of the fleet as the interface shows them: a lost slot is one, whatever it owned, and so is a master that is cut off. Decides
//! only the words.

use serde::Serialize;
use shared::name::{JournalIndex, RegionName, SlotNumber};
use shared::time::Timestamp;

use crate::coordinator::View;
use crate::entry::IncidentKind;
use crate::status::attention::OpenIncident;

/// One incident that has not ended.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ShownIncident<'a> {
    pub(crate) kind: &'static str,
    region: Option<&'a RegionName>,
    slot: Option<SlotNumber>,
    pub(crate) since: Timestamp,
    /// Row that began it.
    index: JournalIndex,
    slots: u64,
    /// Checks that its slots owned when it began.
    checks: u64,
    /// How many of them others have taken over.
    moved: u64,
    /// In words.
    pub(crate) text: String,
}

/// All of them, oldest first.
pub(crate) fn incidents_of(view: &View) -> Vec<ShownIncident<'_>> {
    view.status.attention().incidents().iter().map(|open| shown(open, owned(view, open))).collect()
}

/// Checks that a lost slot still owns: others may have taken them over later than at once.
fn owned(view: &View, open: &OpenIncident) -> u64 {
    let owned = open.incident.slot.as_ref().map_or(0, |slot| view.status.owned(slot).len());
    u64::try_from(owned).unwrap_or(u64::MAX)
}

fn shown(open: &OpenIncident, owned: u64) -> ShownIncident<'_> {
    let incident = &open.incident;
    ShownIncident {
        kind: incident.kind.as_str(),
        region: incident.slot.as_ref().map(|slot| &slot.region),
        slot: incident.slot.as_ref().map(|slot| slot.number),
        since: open.since,
        index: open.index,
        slots: incident.slots,
        checks: incident.checks,
        moved: if incident.slot.is_some() { incident.checks.saturating_sub(owned) } else { 0 },
        text: words(open, owned),
    }
}

fn words(open: &OpenIncident, owned: u64) -> String {
    let incident = &open.incident;
    let checks = |number: u64| format!("{number} {}", if number == 1 { "check" } else { "checks" });
    match (incident.kind, &incident.slot) {
        (IncidentKind::SlotLost, Some(slot)) => {
            let what = match (incident.checks, incident.checks.saturating_sub(owned)) {
                (0, _) => "it owned no checks".to_owned(),
                (all, moved) if all == moved => format!("other slots took over its {}", checks(all)),
                (all, 0) => format!("its {} may be out of date, no other slot has taken them over", checks(all)),
                (all, moved) => {
                    format!("{moved} of its {} went to other slots, the others may be out of date", checks(all))
                }
            };
            format!("slot {slot} is lost: {what}")
        }
        (IncidentKind::CutOff | IncidentKind::SlotLost, _) => format!(
            "this master is cut off: {} slots fell silent together, {} may be out of date; no host is moved until half of the slots \
             are connected or `perigee-master moves resume` says so",
            incident.slots,
            checks(incident.checks)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::rig::slot;
    use crate::entry::Incident;

    #[test]
    fn a_loss_says_what_became_of_its_checks() {
        let table = [
            (0, 0, "owned no checks"),
            (1, 1, "other slots took over its 1 check"),
            (12, 0, "its 12 checks may be out of date"),
            (12, 5, "5 of its 12 checks went to other slots"),
        ];
        for (checks, moved, part) in table {
            let incident = Incident {
                kind: IncidentKind::SlotLost,
                slot: Some(slot("eu", 2)),
                open: true,
                reason: "silent".to_owned(),
                slots: 1,
                checks,
                moved,
                author: None,
                opened: None,
            };
            let open = OpenIncident { index: JournalIndex(1), since: Timestamp::EPOCH, incident };
            let text = words(&open, checks - moved);
            assert!(text.starts_with("slot eu/2 is lost: ") && text.contains(part), "{text}");
        }
    }
}
