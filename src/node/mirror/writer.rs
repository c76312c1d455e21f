//! Makes one Secret what a class asks for: looks, decides by `plan`, writes, and looks again when somebody was faster.
//!
//! Remembers what it saw of each Secret, so that what is as it should be costs no request, and a check costs a look at the
//! metadata. Does not know classes or pods.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::debug;

use super::plan::{self, OwnerChange, Owners, Plan, Refusal, Wanted};
use crate::kubernetes::{Revision, SecretContent, SecretError, SecretRef, Secrets, StoredSecret};
use crate::model::{ClassRef, Owner};

/// How often one try may find that the Secret changed under its hands.
const ROUNDS: usize = 8;
/// For how long a refused write is not sent again: an admission policy may be what refuses it, and can change.
const REFUSED: Duration = Duration::from_secs(600);

/// Why a class's Secrets are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    /// Something changed on this node: what was seen last is taken for granted.
    News,
    /// It is time: somebody may have changed or deleted a Secret.
    Check,
}

/// What was done about a Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing: it is as it should be.
    Unchanged,
    /// Nothing: another node has written newer content.
    Newer,
    /// It was made.
    Created,
    /// Its content, or all its owners, were changed.
    Updated,
    /// Owners were added.
    AddedOwners,
}

/// Why a Secret is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is not ours to write.
    Refusal(Refusal),
    /// It cannot be read or written.
    Secret(SecretError),
}

/// Writes Secrets. Cheap to clone; all clones share what was seen.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    secrets: Secrets,
    seen: Arc<Mutex<HashMap<SecretRef, Seen>>>,
    refused: Arc<Mutex<HashMap<SecretRef, Refused>>>,
}

/// A write that the API server refused for its content: the same one is not sent again to the same Secret.
#[derive(Debug, Clone)]
struct Refused {
    /// What was there; `None` when nothing was.
    revision: Option<Revision>,
    /// Of what was wanted; see [`Wanted::digest`].
    digest: [u8; 32],
    /// The class that wanted it.
    class: String,
    when: Instant,
    why: SecretError,
}

/// What a Secret was when it was as it should be.
#[derive(Debug, Clone)]
struct Seen {
    revision: Revision,
    /// Of what was wanted; see [`Wanted::digest`].
    digest: [u8; 32],
    /// Of all that it was made of.
    inputs: [u8; 32],
    /// The class that wanted it.
    class: String,
    outcome: Outcome,
}

impl Writer {
    /// A writer that has seen nothing.
    pub(super) fn new(secrets: Secrets) -> Writer {
        Writer { secrets, seen: Arc::default(), refused: Arc::default() }
    }

    /// Whether the Secret is known to be what is made of these inputs, so that nothing needs to be made.
    ///
    /// # Errors
    /// The API server does not let us look.
    pub(super) async fn known(
        &self,
        at: &SecretRef,
        look: Look,
        inputs: [u8; 32],
    ) -> Result<Option<Outcome>, SecretError> {
        self.unchanged(at, look, |seen| seen.inputs == inputs).await
    }

    /// Makes a Secret what is wanted, which was made of `inputs`. `abandoned` is asked whether a class wants the
    /// Secret no more.
    ///
    /// # Errors
    /// It is not ours to write, or the API server does not let us.
    pub(super) async fn ensure<F: Future<Output = bool>>(
        &self,
        wanted: &Wanted,
        inputs: [u8; 32],
        look: Look,
        abandoned: impl Fn(String) -> F,
    ) -> Result<Outcome, Failure> {
        let digest = wanted.digest();
        if let Some(outcome) = self.unchanged(&wanted.at, look, |seen| seen.digest == digest).await? {
            if let Some(seen) = self.lock().get_mut(&wanted.at).filter(|seen| seen.digest == digest) {
                seen.inputs = inputs;
            }
            return Ok(outcome);
        }
        let mut orphaned = false;
        let mut last = SecretError::Changed;
        let mut added = false;
        for _ in 0..ROUNDS {
            let stored = self.secrets.get(&wanted.at).await?;
            let before = stored.as_ref().map(|stored| stored.revision.clone());
            let tried = match stored {
                None => match self.refused_before(wanted, None, digest) {
                    Some(why) => return Err(why.into()),
                    None => self.create(wanted).await,
                },
                Some(stored) => match plan::plan(wanted, &stored, orphaned, Timestamp::now()) {
                    Ok(plan) if plan.writes() => match self.refused_before(wanted, before.as_ref(), digest) {
                        Some(why) => return Err(why.into()),
                        None => self.carry_out(wanted, stored, plan).await,
                    },
                    Ok(plan) => self.carry_out(wanted, stored, plan).await,
                    Err(Refusal::OtherClass(class)) if !orphaned && abandoned(class.clone()).await => {
                        orphaned = true;
                        continue;
                    }
                    Err(refusal) => {
                        self.lock().remove(&wanted.at);
                        return Err(Failure::Refusal(refusal));
                    }
                },
            };
            match tried {
                // An owner is added without looking what else changed; so look.
                Ok((_, Outcome::AddedOwners)) => added = true,
                Ok((revision, outcome)) => {
                    let outcome = if added && outcome == Outcome::Unchanged { Outcome::AddedOwners } else { outcome };
                    let kept = if outcome == Outcome::Newer { Outcome::Newer } else { Outcome::Unchanged };
                    let class = wanted.class.clone();
                    self.refused().remove(&wanted.at);
                    self.lock().insert(wanted.at.clone(), Seen { revision, digest, inputs, class, outcome: kept });
                    return Ok(outcome);
                }
                // Another node was faster, or somebody deleted it: look again.
                Err(failure @ (SecretError::Exists | SecretError::Changed | SecretError::Gone)) => {
                    debug!(secret = %wanted.at, err = %failure, "the Secret changed meanwhile");
                    last = failure;
                }
                Err(why) => {
                    if why.is_final() {
                        let (class, when) = (wanted.class.clone(), Instant::now());
                        let refused = Refused { revision: before, digest, class, when, why: why.clone() };
                        let mut all = self.refused();
                        all.retain(|_, refused| refused.when.elapsed() < REFUSED);
                        all.insert(wanted.at.clone(), refused);
                    }
                    return Err(why.into());
                }
            }
        }
        Err(last.into())
    }

    /// Forgets what was seen for a class.
    pub(super) fn forget_class(&self, class: &ClassRef) {
        self.lock().retain(|at, seen| at.namespace != class.namespace || seen.class != class.name.as_str());
        self.refused().retain(|at, refused| at.namespace != class.namespace || refused.class != class.name.as_str());
    }

    /// Why this very write to this very Secret was refused, if that is not too long ago.
    fn refused_before(&self, wanted: &Wanted, there: Option<&Revision>, digest: [u8; 32]) -> Option<SecretError> {
        let refused = self.refused();
        let same = |refused: &&Refused| refused.digest == digest && refused.revision.as_ref() == there;
        let lasting = |refused: &&Refused| refused.when.elapsed() < REFUSED;
        refused.get(&wanted.at).filter(same).filter(lasting).map(|refused| refused.why.clone())
    }

    /// Whether the Secret is as it was seen, and that is what is wanted.
    async fn unchanged(
        &self,
        at: &SecretRef,
        look: Look,
        wanted: impl Fn(&Seen) -> bool,
    ) -> Result<Option<Outcome>, SecretError> {
        let seen = self.lock().get(at).filter(|seen| wanted(seen)).cloned();
        match (seen, look) {
            (None, _) => Ok(None),
            (Some(seen), Look::News) => Ok(Some(seen.outcome)),
            (Some(seen), Look::Check) => {
                let now = self.secrets.revision(at).await?;
                Ok((now.as_ref() == Some(&seen.revision)).then_some(seen.outcome))
            }
        }
    }

    async fn create(&self, wanted: &Wanted) -> Result<(Revision, Outcome), SecretError> {
        let owners: &[Owner] = match &wanted.owners {
            Owners::These(owners) => owners,
            Owners::Nobody => &[],
        };
        let (labels, annotations) = (wanted.labels(), wanted.annotations(wanted.written));
        let content = content(wanted, &labels, &annotations);
        Ok((self.secrets.create(&wanted.at, &content, owners).await?, Outcome::Created))
    }

    async fn carry_out(
        &self,
        wanted: &Wanted,
        stored: StoredSecret,
        plan: Plan,
    ) -> Result<(Revision, Outcome), SecretError> {
        let at = &wanted.at;
        let mut revision = stored.revision;
        let mut outcome = if plan.newer { Outcome::Newer } else { Outcome::Unchanged };
        if let Some(writers) = &plan.take_over {
            revision = self.secrets.set_writers(at, &revision, writers).await?;
        }
        if let Some(written) = plan.content {
            let (labels, annotations) = (wanted.labels(), wanted.annotations(written));
            revision = self.secrets.apply(at, &revision, &content(wanted, &labels, &annotations)).await?;
            outcome = Outcome::Updated;
        }
        match &plan.owners {
            OwnerChange::Keep => {}
            OwnerChange::Add(owners) => {
                for owner in owners {
                    revision = self.secrets.add_owner(at, &revision.uid, owner).await?;
                }
                outcome = Outcome::AddedOwners;
            }
            OwnerChange::Replace(owners) => {
                revision = self.secrets.set_owners(at, &revision, owners).await?;
                outcome = Outcome::Updated;
            }
        }
        Ok((revision, outcome))
    }

    fn refused(&self) -> MutexGuard<'_, HashMap<SecretRef, Refused>> {
        // Every change is one insertion or removal.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SecretRef, Seen>> {
        // Every change is one insertion or removal.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn content<'a>(
    wanted: &'a Wanted,
    labels: &'a std::collections::BTreeMap<String, String>,
    annotations: &'a std::collections::BTreeMap<String, String>,
) -> SecretContent<'a> {
    SecretContent { r#type: &wanted.secret.r#type, labels, annotations, data: &wanted.secret.data }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Failure {
        Failure::Secret(error)
    }
}
