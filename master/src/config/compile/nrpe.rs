//! The service `nrpe` that every host has whose NRPE daemon is asked for anything: it asks the daemon for itself, so that a daemon
//! that cannot be reached is one problem with a name of its own. Decides which hosts have it and how it is checked.
//!
//! The surprise: its policy is the host's, not that of any service, and it is CRITICAL when the daemon cannot be asked unless the
//! host says otherwise: for this one service that is the finding, not the lack of one.

use shared::assignment::Policy;
use shared::check::{Check, NRPE_VERSION_COMMAND, NrpeCheck, State};
use shared::name::{ObjectName, ServiceName};

use super::host::Draft;
use super::{Compiler, policy};
use crate::config::CheckDefinition;
use crate::config::raw::Settings;

/// What the service is called; one of the same name in the files takes its place.
const SERVICE: &str = "nrpe";

/// The service as one host wants it.
#[derive(Debug, Clone, Copy)]
pub(super) struct NrpeService {
    policy: Policy,
    on_transport_error: State,
}

impl NrpeService {
    /// `None`: the host says `nrpe: { service: false }`.
    pub(super) fn of(settings: &Settings) -> Option<Self> {
        let wanted = settings.nrpe.service.as_ref().is_none_or(|at| at.value);
        wanted.then(|| Self {
            policy: policy(settings),
            on_transport_error: settings.on_transport_error.as_ref().map_or(State::Critical, |at| at.value),
        })
    }
}

impl Compiler<'_> {
    pub(super) fn compile_nrpe_services(&mut self, drafts: &[Draft]) {
        let Ok(service) = SERVICE.parse::<ServiceName>() else { return };
        for draft in drafts {
            let Some(wanted) = &draft.nrpe_service else { continue };
            let name = ObjectName::service(draft.name.clone(), service.clone());
            if self.objects.contains_key(&name) {
                continue;
            }
            // Any of its checks knows how the daemon is spoken to.
            let own = self.objects.range(ObjectName::host(draft.name.clone())..);
            let mut own = own.take_while(|(object, _)| object.host == draft.name);
            let asked = own.find_map(|(_, definition)| match &definition.check {
                Check::Nrpe(check) => Some((check.clone(), definition.region.clone())),
                _ => None,
            });
            let Some((check, region)) = asked else { continue };
            let check = Check::Nrpe(NrpeCheck {
                command: NRPE_VERSION_COMMAND.to_owned(),
                args: Vec::new(),
                on_transport_error: wanted.on_transport_error,
                ..check
            });
            let command_name = SERVICE.to_owned();
            self.objects.insert(name, CheckDefinition { check, policy: wanted.policy, command_name, region });
        }
    }
}
