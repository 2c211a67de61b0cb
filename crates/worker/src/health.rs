//! A component that several parts look at, each from its side.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::admin::Component;

/// A component that is ready while none of its sides complains: that a probe can read must not hide
/// that slices cannot be written.
#[derive(Clone, Debug)]
pub struct Health {
    component: Component,
    complaints: Arc<Mutex<Vec<Option<String>>>>,
}

/// One part's side of a component.
#[derive(Clone, Debug)]
pub struct Side {
    health: Health,
    index: usize,
}

impl Health {
    /// A component without sides yet.
    #[must_use]
    pub fn new(component: Component) -> Self {
        Self {
            component,
            complaints: Arc::default(),
        }
    }

    /// A side without whose word the component is not ready.
    #[must_use]
    pub fn needed_side(&self) -> Side {
        self.side(Some("starting".to_owned()))
    }

    /// A side that has nothing to complain of until it says so.
    #[must_use]
    pub fn quiet_side(&self) -> Side {
        self.side(None)
    }

    /// What the first of its sides that complains says; none if all is well.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.complaints().iter().flatten().next().cloned()
    }

    fn complaints(&self) -> MutexGuard<'_, Vec<Option<String>>> {
        self.complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn side(&self, complaint: Option<String>) -> Side {
        let mut complaints = self.complaints();
        complaints.push(complaint);
        Side {
            health: self.clone(),
            index: complaints.len() - 1,
        }
    }
}

impl Side {
    /// Says that this side has nothing to complain of.
    pub fn set_ready(&self) {
        self.set(None);
    }

    /// Says what is wrong as this side sees it.
    pub fn set_unready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    /// What this side complains of, if anything.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.health.complaints()[self.index].clone()
    }

    /// Whether any other side complains.
    #[must_use]
    pub fn another_complains(&self) -> bool {
        let complaints = self.health.complaints();
        let mut others = complaints.iter().enumerate();
        others.any(|(index, complaint)| index != self.index && complaint.is_some())
    }

    fn set(&self, complaint: Option<String>) {
        let mut complaints = self.health.complaints();
        complaints[self.index] = complaint;
        // The lock is held until the component knows, so that what it hears last is the truth.
        match complaints.iter().flatten().next() {
            Some(reason) => self.health.component.set_unready(reason.clone()),
            None => self.health.component.set_ready(),
        }
    }
}

#[cfg(test)]
mod tests {
    use common::admin::Readiness;

    use super::*;

    #[test]
    fn a_component_is_ready_while_no_side_complains() {
        let readiness = Readiness::default();
        let health = Health::new(readiness.component("database"));
        let (probe, slices) = (health.needed_side(), health.quiet_side());
        slices.set_ready();
        assert_eq!(readiness.reasons()["database"], "starting");
        probe.set_ready();
        assert!(readiness.reasons().is_empty());
        slices.set_unready("read only");
        probe.set_ready();
        assert_eq!(readiness.reasons()["database"], "read only");
        slices.set_ready();
        assert!(readiness.reasons().is_empty());
    }
}
