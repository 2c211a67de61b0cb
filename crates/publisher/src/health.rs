use std::sync::{Arc, Mutex, PoisonError};

use common::admin::Component;

/// A component that several parts look at, each from its side: it is ready while none of them
/// complains. (One part's success must not hide another's failure.)
#[derive(Clone, Debug)]
pub(crate) struct Health {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    component: Component,
    complaints: Mutex<Vec<Option<String>>>,
}

/// One part's side of a component.
#[derive(Clone, Debug)]
pub(crate) struct HealthSide {
    shared: Arc<Shared>,
    side: usize,
}

impl Health {
    pub(crate) fn new(component: Component) -> Self {
        let complaints = Mutex::default();
        Self {
            shared: Arc::new(Shared {
                component,
                complaints,
            }),
        }
    }

    /// A side that has nothing to say yet.
    pub(crate) fn quiet_side(&self) -> HealthSide {
        self.side(None)
    }

    /// A side without whose word the component is not ready.
    pub(crate) fn needed_side(&self) -> HealthSide {
        self.side(Some("starting".to_owned()))
    }

    fn side(&self, complaint: Option<String>) -> HealthSide {
        let mut complaints = self
            .shared
            .complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        complaints.push(complaint);
        HealthSide {
            shared: Arc::clone(&self.shared),
            side: complaints.len() - 1,
        }
    }
}

impl HealthSide {
    pub(crate) fn set_ready(&self) {
        self.set(None);
    }

    pub(crate) fn set_unready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, complaint: Option<String>) {
        let mut complaints = self
            .shared
            .complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if complaints[self.side] == complaint && complaint.is_some() {
            return;
        }
        complaints[self.side] = complaint;
        match complaints.iter().flatten().next() {
            Some(reason) => self.shared.component.set_unready(reason.clone()),
            None => self.shared.component.set_ready(),
        }
    }
}

#[cfg(test)]
mod tests {
    use common::admin::Readiness;

    use super::*;

    #[test]
    fn one_sides_success_does_not_hide_anothers_failure() {
        let readiness = Readiness::default();
        let health = Health::new(readiness.component("database"));
        let (needed, quiet) = (health.needed_side(), health.quiet_side());
        quiet.set_ready();
        assert_eq!(readiness.reasons()["database"], "starting");
        needed.set_ready();
        assert!(readiness.reasons().is_empty());
        quiet.set_unready("broken");
        needed.set_ready();
        assert_eq!(readiness.reasons()["database"], "broken");
        quiet.set_ready();
        assert!(readiness.reasons().is_empty());
    }
}
