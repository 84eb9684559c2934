//! The key of a plan: sandboxes with the same key differ in nothing that a test can see.

use std::any::TypeId;
use std::sync::Arc;

use crate::engine::Engine;
use crate::layer::Layer;
use crate::sandbox::Prepared;

/// Compared as a whole, so that no collision of digests is possible.
#[derive(Debug)]
pub(super) struct PlanKey {
    engine: TypeId,
    /// The plan, with its settings, limits and files, and the identity of the engine.
    text: Vec<u8>,
    /// A layer that was rebuilt in the same place is another one.
    layer: Arc<Layer>,
}

impl PlanKey {
    /// `None` for a plan that cannot be encoded, and so cannot be launched either.
    pub(super) fn of<E: Engine>(prepared: &Prepared<E>, layer: &Arc<Layer>) -> Option<Self> {
        let described = (prepared.plan(), prepared.engine().identity(prepared.installation()));
        let text = serde_json::to_vec(&described).ok()?;
        Some(Self { engine: TypeId::of::<E>(), text, layer: layer.clone() })
    }
}

impl PartialEq for PlanKey {
    fn eq(&self, other: &Self) -> bool {
        self.engine == other.engine && Arc::ptr_eq(&self.layer, &other.layer) && self.text == other.text
    }
}
