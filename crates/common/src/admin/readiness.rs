use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing::{info, warn};

/// Whether a service can do its work, and if not, what is missing. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Option<String>>>>);

/// One thing a service needs, e.g. its database. It counts as missing until it is first set ready.
#[derive(Clone, Debug)]
pub struct Component {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Adds a component, not ready yet.
    #[must_use]
    pub fn component(&self, name: &'static str) -> Component {
        self.lock().insert(name, Some("starting".to_owned()));
        Component {
            name,
            readiness: self.clone(),
        }
    }

    /// What is missing and why, by component; empty if the service is ready.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<&'static str, String> {
        let components = self.lock();
        components
            .iter()
            .filter_map(|(name, reason)| Some((*name, reason.clone()?)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Component {
    /// Says that the component works; logged when it did not before.
    pub fn set_ready(&self) {
        let before = self.readiness.lock().insert(self.name, None);
        if matches!(before, Some(Some(_))) {
            info!(component = self.name, "ready");
        }
    }

    /// Says why the component does not work; logged when the reason changes.
    pub fn set_unready(&self, reason: impl Into<String>) {
        let reason = reason.into();
        let before = self
            .readiness
            .lock()
            .insert(self.name, Some(reason.clone()));
        if before != Some(Some(reason.clone())) {
            warn!(component = self.name, reason, "not ready");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_ready_when_all_its_components_are() {
        let readiness = Readiness::default();
        let database = readiness.component("database");
        let broker = readiness.component("broker");
        assert_eq!(readiness.reasons().len(), 2);
        database.set_ready();
        broker.set_unready("connection refused");
        let reasons = readiness.reasons();
        assert_eq!(
            reasons.into_iter().collect::<Vec<_>>(),
            [("broker", "connection refused".to_owned())]
        );
        broker.set_ready();
        assert!(readiness.reasons().is_empty());
    }
}
