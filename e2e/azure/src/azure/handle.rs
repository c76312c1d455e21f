//! The handle of a running emulator, and how its methods change the state.
//!
//! An invalid set-up is a mistake in the test, so the methods panic with the fix. [`Azure::apply`]
//! is for input from outside and returns the error instead.

use std::fmt::Display;
use std::sync::Arc;

use crate::error::SetupError;
use crate::seed::Seed;
use crate::state::{EmulatorState, SharedState};
use crate::vault::Vault;

/// The handle of an emulator. Clones are cheap and share its state.
#[derive(Debug, Clone)]
pub struct Azure {
    pub(crate) shared: Arc<SharedState>,
}

impl Azure {
    pub(crate) fn new(shared: Arc<SharedState>) -> Azure {
        Azure { shared }
    }

    /// Applies a seed document: adds or replaces its objects, and changes nothing else.
    pub fn apply(&self, seed: &Seed) -> Result<(), SetupError> {
        seed.apply(&self.shared)
    }

    /// Changes the state under its lock.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut EmulatorState) -> Result<T, SetupError>,
    ) -> Result<T, SetupError> {
        change(&mut self.shared.lock())
    }

    /// Changes a vault under the lock of the state.
    pub(crate) fn change_vault<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Vault) -> Result<T, SetupError>,
    ) -> Result<T, SetupError> {
        self.change(|state| change(state.vault(name)?))
    }
}

/// Panics at the line of the test that made the mistake, and not three requests later.
#[track_caller]
pub(super) fn must<T>(result: Result<T, impl Display>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("azure-emulator: {error}"),
    }
}
