//! The plans of a worker under their numbers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use crate::lock::lock;
use crate::plan::Plan;

/// Plans under their numbers.
#[derive(Debug, Default)]
pub struct Plans(Mutex<HashMap<u64, Arc<Plan>>>);

impl Plans {
    /// Adds a plan under a number that is not in use.
    pub fn add(&self, number: u64, plan: Plan) -> bool {
        // A refused plan is dropped only when the lock is free.
        let plan = Arc::new(plan);
        let mut plans = lock(&self.0);
        match plans.entry(number) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(plan.clone());
                true
            }
        }
    }

    /// The plan of a number.
    pub fn get(&self, number: u64) -> Option<Arc<Plan>> {
        lock(&self.0).get(&number).cloned()
    }

    /// Removes the plans of a session.
    pub fn remove_of(&self, session: u64) {
        let removed: Vec<_> = lock(&self.0).extract_if(|_, plan| plan.session == session).collect();
        drop(removed);
    }

    /// Removes plans.
    pub fn remove(&self, numbers: &[u64]) {
        let removed: Vec<_> = {
            let mut plans = lock(&self.0);
            numbers.iter().filter_map(|number| plans.remove(number)).collect()
        };
        drop(removed);
    }
}
