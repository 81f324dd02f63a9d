//! What the operator of a world asks of the owners of checks, and how it must end: every command whose owner is there is answered.

use std::time::Duration;

use master::coordinator::{Commanding, RequestId, Told};
use master::status::Status;
use shared::check::State;
use shared::command::{Passive, What};
use shared::time::Monotonic;

use super::{STATES, World};

impl World {
    /// The operator asks something of the owner of some check; now and then the same again, before it was done.
    pub(in crate::simulation) fn command(&mut self) -> Option<()> {
        if self.master_pauses() {
            return None;
        }
        let status = self.master.as_ref()?.coordinator.published().clone();
        let names = self.estate.configured();
        let (name, _) = self.chance.pick(&names)?;
        let check = status.id(name)?;
        let times = if self.chance.one_in(4) { 3 } else { 1 };
        for _ in 0..times {
            let what = match self.chance.below(4) {
                0 => What::Reset,
                1 => self.result_from_outside(),
                _ => What::CheckNow,
            };
            self.requests += 1;
            let (request, at, now) = (RequestId(self.requests), self.wall(), Monotonic(self.now));
            self.line(|| format!("the operator asks of {name}: {}", what.as_str()));
            if let Some(master) = &mut self.master {
                master.coordinator.handle_command(request, check, what, "operator", now, at);
            }
            self.drain_master();
        }
        Some(())
    }

    /// Numbered like an answer, so that its effect is counted like one.
    fn result_from_outside(&mut self) -> What {
        self.answers += 1;
        let state = self.chance.pick(&STATES).copied().unwrap_or(State::Ok);
        self.witness.submitted(self.answers);
        What::Passive(Passive { state, text: format!("serial={}", self.answers) })
    }

    /// The operator hears how a command was taken.
    pub(in crate::simulation) fn told(&mut self, commanding: &Commanding) {
        match commanding {
            Commanding::Taken { told: Told::Owner(_), .. } => {
                self.witness.reach("the owner of a check is told a command")
            }
            Commanding::Taken { told: Told::Silent(_), .. } => self.witness.reach("a command waits for a silent owner"),
            Commanding::Taken { told: Told::Old { .. }, .. } => {
                self.witness.reach("a command waits because its owner is of the version before");
            }
            Commanding::Taken { told: Told::Nobody, .. } => self.witness.reach("a command waits for the first owner"),
            Commanding::NotCommitted => self.witness.reach("a command was not committed"),
            Commanding::Unknown | Commanding::TooMany(_) | Commanding::TooMuch => {}
        }
    }

    /// Long after the last fault no command waits whose owner is there and understands it.
    pub(super) fn judge_commands(&mut self, status: &Status) {
        const TIME: Duration = Duration::from_secs(120);
        let now = self.wall();
        let waits = status.errands().filter(|(_, errand)| errand.what.is_some() && now.since(errand.at) > TIME);
        let mut late = Vec::new();
        for (index, errand) in waits {
            let owner = status.object(errand.check).and_then(|object| object.owner.as_ref());
            let site = owner.and_then(|owner| self.sites.get(&self.witness.holder(&owner.slot)?));
            if let Some(site) = site.filter(|site| !site.old) {
                late.push(format!("{} has not answered command {index}: {errand:?}", site.slot));
            }
        }
        for what in late {
            self.witness.violated("I10", what);
        }
    }
}
