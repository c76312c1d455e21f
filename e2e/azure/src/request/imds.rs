//! Which operation of the metadata service a method and a path name.

use hyper::Method;

use crate::record::Kind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImdsOperation {
    Token,
    Unknown,
}

impl ImdsOperation {
    pub(crate) fn parse(method: &Method, segments: &[&str]) -> ImdsOperation {
        match segments {
            ["metadata", "identity", "oauth2", "token"] if method == Method::GET => ImdsOperation::Token,
            _ => ImdsOperation::Unknown,
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            ImdsOperation::Token => Kind::Token,
            ImdsOperation::Unknown => Kind::Other,
        }
    }
}
