//! Pure. What upstream checks of a class before it asks a provider, in its order
//! (docs/reference/csi-driver.md#publish-checks).

use super::error::Error;
use crate::model::Class;

/// Checks that a class names a provider and has parameters.
///
/// # Errors
/// The field that is not set.
pub(in crate::node) fn check(class: &Class) -> Result<(), Error> {
    let reference = || class.reference.clone();
    match class.provider.as_str() {
        "" => Err(Error::ProviderUnset(reference())),
        _ if class.parameters.is_empty() => Err(Error::ParametersUnset(reference())),
        _ => Ok(()),
    }
}
