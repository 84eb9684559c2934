//! What makes two sandboxes the same: nothing that a test could see tells them apart.

use std::any::TypeId;
use std::sync::Arc;

use crate::engine::Engine;
use crate::layer::Layer;
use crate::sandbox::Prepared;

/// Compared as a whole: a digest would be as good, until it is not.
#[derive(Debug)]
pub(super) struct PlanKey {
    engine: TypeId,
    /// The plan, with the settings, limits and files in it, and what the engine depends on besides.
    text: Vec<u8>,
    /// One that was built anew in the same place is another.
    layer: Arc<Layer>,
}

impl PlanKey {
    /// None for a plan that no launcher could be told either.
    pub(super) fn of<E: Engine>(prepared: &Prepared<E>, layer: &Arc<Layer>) -> Option<Self> {
        let described = (prepared.plan(), prepared.engine().identity());
        let text = serde_json::to_vec(&described).ok()?;
        Some(Self { engine: TypeId::of::<E>(), text, layer: layer.clone() })
    }
}

impl PartialEq for PlanKey {
    fn eq(&self, other: &Self) -> bool {
        self.engine == other.engine && Arc::ptr_eq(&self.layer, &other.layer) && self.text == other.text
    }
}
