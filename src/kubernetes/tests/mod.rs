use crate::model::{ClassRef, PodRef, Reason};

mod crds;
mod limits;
mod objects;
mod pods;
mod secrets;

fn pod(name: &str) -> PodRef {
    PodRef { namespace: "ns".parse().unwrap(), name: name.parse().unwrap(), uid: format!("uid-{name}") }
}
