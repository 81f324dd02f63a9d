//! The state as it lies in a checkpoint: bytes, and back. Everything derived (chunks, names, catalog) is left out. A disk format:
//! fields are only added.

use std::collections::BTreeMap;
use std::sync::Arc;

use minicbor::{Decode, Encode};
use shared::name::{CheckId, Generation, InstallationId, JournalIndex, Slot, Term, Timeline};
use shared::time::Timestamp;

use super::attention::Attention;
use super::bygone::BygoneCommands;
use super::command::Errand;
use super::{GapSeen, Lineage, Object, SlotState, Status};

/// What is shared in memory is written out in full.
struct Whole<T>(Arc<T>);

impl<C, T: Encode<C>> Encode<C> for Whole<T> {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        self.0.encode(encoder, context)
    }
}

impl<'b, C, T: Decode<'b, C>> Decode<'b, C> for Whole<T> {
    fn decode(decoder: &mut minicbor::Decoder<'b>, context: &mut C) -> Result<Self, minicbor::decode::Error> {
        T::decode(decoder, context).map(Arc::new).map(Self)
    }
}

/// The state as it lies in a checkpoint. Everything derived (chunks, names, catalog) is left out.
#[derive(Encode, Decode)]
struct Frozen {
    #[n(0)]
    head: JournalIndex,
    #[n(1)]
    at: Timestamp,
    #[n(2)]
    term: Term,
    #[n(3)]
    installation: Option<InstallationId>,
    #[n(4)]
    timeline: Timeline,
    #[n(5)]
    first_check: CheckId,
    #[n(6)]
    next_check: CheckId,
    #[n(7)]
    generation: Generation,
    #[n(8)]
    digest: String,
    #[n(9)]
    objects: Vec<Whole<Object>>,
    #[n(10)]
    slots: BTreeMap<Slot, Whole<SlotState>>,
    #[n(11)]
    gaps: Vec<GapSeen>,
    #[n(12)]
    lineage: Option<Whole<Lineage>>,
    #[n(13)]
    attention: Option<Whole<Attention>>,
    #[n(14)]
    #[cbor(default)]
    commands: BTreeMap<JournalIndex, Whole<Errand>>,
    #[n(15)]
    bygone: Option<Whole<BygoneCommands>>,
}

impl Status {
    /// The state as bytes: equal states give equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let frozen = Frozen {
            head: self.head,
            at: self.at,
            term: self.term,
            installation: self.installation.clone(),
            timeline: self.timeline,
            first_check: self.first_check,
            next_check: self.next_check,
            generation: self.generation,
            digest: self.digest.clone(),
            objects: self.chunks.iter().flat_map(|chunk| chunk.iter().flatten().cloned()).map(Whole).collect(),
            slots: self.slots.iter().map(|(slot, state)| (slot.clone(), Whole(Arc::clone(state)))).collect(),
            gaps: self.gaps.as_ref().clone(),
            attention: Some(Whole(Arc::clone(&self.attention))),
            lineage: Some(Whole(Arc::clone(&self.lineage))),
            commands: self.commands.iter().map(|(index, errand)| (*index, Whole(Arc::clone(errand)))).collect(),
            bygone: Some(Whole(Arc::clone(&self.bygone))),
        };
        let mut bytes = Vec::new();
        // Writing into a Vec cannot fail, and none of our types refuses to be encoded.
        let _ = minicbor::encode(&frozen, &mut bytes);
        bytes
    }

    /// Reads what [`Status::encode`] wrote. The catalog must be given afterwards (see [`Status::catalog`]).
    ///
    /// # Errors
    /// When the bytes are no state.
    pub fn decode(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        let frozen: Frozen = minicbor::decode(bytes)?;
        let mut status = Self {
            head: frozen.head,
            at: frozen.at,
            term: frozen.term,
            installation: frozen.installation,
            timeline: frozen.timeline,
            first_check: frozen.first_check,
            next_check: frozen.next_check,
            generation: frozen.generation,
            digest: frozen.digest,
            slots: frozen.slots.into_iter().map(|(slot, state)| (slot, state.0)).collect(),
            gaps: Arc::new(frozen.gaps),
            attention: frozen.attention.map_or_else(Arc::default, |attention| attention.0),
            lineage: frozen.lineage.map(|lineage| lineage.0).unwrap_or_default(),
            commands: Arc::new(frozen.commands.into_iter().map(|(index, errand)| (index, errand.0)).collect()),
            bygone: frozen.bygone.map(|bygone| bygone.0).unwrap_or_default(),
            ..Self::new()
        };
        for object in frozen.objects {
            status.insert(object.0);
        }
        status.count_waiting();
        Ok(status)
    }
}
