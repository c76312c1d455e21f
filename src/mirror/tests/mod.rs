//! Tests of the mirror that need no server.
