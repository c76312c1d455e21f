//! The first requests of two kubelets (`tests/it/fixtures/kubelet/*/13-registration.json`),
//! `<kubelet-root>` being `/var/lib/kubelet`, with the header blocks that they sent.
//!
//! The first two recordings have an unencoded path, as grpc-go before 1.57 sends it
//! (grpc/grpc-go#6428), and with it kubelets before 1.29. Their blocks have the recorded headers of
//! an older kubelet in grpc-go's encoding (its table, each new field indexed, Huffman code where it
//! is shorter).

use super::super::frames::{END_HEADERS, END_STREAM, HEADERS};
use super::{ACK, DATA, Fields, SETTINGS, fields, frame, hex};

/// A connection of a kubelet: the calls on it, in order.
pub(super) struct Recording {
    pub(super) calls: Vec<Call>,
}

pub(super) struct Call {
    pub(super) stream: u32,
    /// The header block on the wire.
    pub(super) block: Vec<u8>,
    pub(super) fields: Fields,
    /// The gRPC message with its five-byte prefix.
    pub(super) message: Vec<u8>,
}

impl Recording {
    /// The SETTINGS after the preface, and the acknowledgement of the server's SETTINGS.
    pub(super) fn settings() -> [Vec<u8>; 2] {
        [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])]
    }
}

impl Call {
    pub(super) fn frames(&self) -> Vec<Vec<u8>> {
        vec![frame(HEADERS, END_HEADERS, self.stream, &self.block), frame(DATA, END_STREAM, self.stream, &self.message)]
    }
}

const GET_INFO: &str = "/pluginregistration.Registration/GetInfo";
const NOTIFY: &str = "/pluginregistration.Registration/NotifyRegistrationStatus";
const NODE_GET_INFO: &str = "/csi.v1.Node/NodeGetInfo";
const RAW: &str = "/var/lib/kubelet/plugins_registry/secrets-store.csi.k8s.io-reg.sock";
const ENCODED: &str = "%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2Fsecrets-store.csi.k8s.io-reg.sock";
const EMPTY_MESSAGE: &[u8] = &[0; 5];
/// `plugin_registered: true`.
const REGISTERED: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

pub(super) fn recordings() -> [Recording; 6] {
    [registration_unencoded(), csi_unencoded(), registration_1_30(), csi_1_30(), registration_1_37(), csi_1_37()]
}

fn unencoded(path: &str, authority: &str, timeout: &str) -> Fields {
    fields(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-go/1.27.1"),
        ("te", "trailers"),
        ("grpc-timeout", timeout),
    ])
}

fn kubelet_1_30(path: &str, authority: &str, timeout: &str) -> Fields {
    kubelet(path, authority, timeout, "grpc-go/1.58.3")
}

fn kubelet_1_37(path: &str, authority: &str, timeout: &str) -> Fields {
    kubelet(path, authority, timeout, "grpc-go/1.82.1")
}

fn kubelet(path: &str, authority: &str, timeout: &str, agent: &str) -> Fields {
    let mut list = unencoded(path, authority, timeout);
    list[5].1 = agent.as_bytes().to_vec();
    list.insert(7, (b"grpc-accept-encoding".to_vec(), b"gzip".to_vec()));
    list
}

fn registration_unencoded() -> Recording {
    let first = Call {
        stream: 1,
        block: hex("8386449c62ba2d98d558598c84d83498f52fb4b31909b06931ea63115392a94f41af63b8ec628346c75b632d054b15d1\
            6cc6a91158598c84d9e9841496152859093d855c8832fd5e42e63ad61665d072755f8b1d75d0620d263d4c4d65647a8a9acac8b4\
            c7602b89d5c340027465864d833505b11f40899acac8b24d494f6a7f867df7df7856ff"),
        fields: unencoded(GET_INFO, RAW, "999982u"),
        message: EMPTY_MESSAGE.to_vec(),
    };
    let second = Call {
        stream: 3,
        block: hex("838644a862ba2d98d558598c84d83498f52fb4b31909b06931ea6349d2697d6d2cc6426c1a4c7ab72469b51fc3c2c1c0\
            7f008669f7df7de6ad"),
        fields: unencoded(NOTIFY, RAW, "4999984u"),
        message: REGISTERED.to_vec(),
    };
    Recording { calls: vec![first, second] }
}

fn csi_unencoded() -> Recording {
    let call = Call {
        stream: 1,
        block: hex("83864492608832fdc2be93c856349e42e22a725529ff41a963b8ec628346c75b632d054b15d16cc6a90c20a4b0a942c8\
            49ec2ae44197eaf21731d8220cba0e4ebf5f8b1d75d0620d263d4c4d65647a8a9acac8b4c7602b89d5c340027465864d833505b1\
            1f40899acac8b24d494f6a7f85088000029f"),
        fields: unencoded(NODE_GET_INFO, "/var/lib/kubelet/plugins/secrets-store.csi.k8s.io/csi.sock", "120000m"),
        message: EMPTY_MESSAGE.to_vec(),
    };
    Recording { calls: vec![call] }
}

fn registration_1_30() -> Recording {
    let first = Call {
        stream: 1,
        block: hex(
            "8386459c62ba2d98d558598c84d83498f52fb4b31909b06931ea63115392a94f41b754587b8ec545868346a8b0f5b632d054\
            aa2c35d16cc6a91158598c84d9e9516141496152859093d855c8832fd5e42e63ad61665d07275f5f8b1d75d0620d263d4c4d6564\
            7a8b9acac8b4c7602bb6f2ecff40027465864d833505b11f408e9acac8b0c842d6958b510f21aa9b839bd9ab40899acac8b24d49\
            4f6a7f867df7df75cb7f",
        ),
        fields: kubelet_1_30(GET_INFO, ENCODED, "999976u"),
        message: EMPTY_MESSAGE.to_vec(),
    };
    let second = Call {
        stream: 3,
        block: hex(
            "838645a862ba2d98d558598c84d83498f52fb4b31909b06931ea6349d2697d6d2cc6426c1a4c7ab72469b51fc4c3c2c1c07f\
            008669f7df7dd15b",
        ),
        fields: kubelet_1_30(NOTIFY, ENCODED, "4999972u"),
        message: REGISTERED.to_vec(),
    };
    Recording { calls: vec![first, second] }
}

fn csi_1_30() -> Recording {
    let call = Call {
        stream: 1,
        block: hex(
            "83864592608832fdc2be93c856349e42e22a725529ff4186a0e41d139d095f8b1d75d0620d263d4c4d65647a8b9acac8b4c7\
            602bb6f2ecff40027465864d833505b11f408e9acac8b0c842d6958b510f21aa9b839bd9ab40899acac8b24d494f6a7f85085f7d\
            f6a9",
        ),
        fields: kubelet_1_30(NODE_GET_INFO, "localhost", "119994m"),
        message: EMPTY_MESSAGE.to_vec(),
    };
    Recording { calls: vec![call] }
}

fn registration_1_37() -> Recording {
    let first = Call {
        stream: 1,
        block: hex(
            "8386459c62ba2d98d558598c84d83498f52fb4b31909b06931ea63115392a94f41b754587b8ec545868346a8b0f5b632d054\
            aa2c35d16cc6a91158598c84d9e9516141496152859093d855c8832fd5e42e63ad61665d07275f5f8b1d75d0620d263d4c4d6564\
            7a8a9acac8b4c7602bbc25c340027465864d833505b11f408e9acac8b0c842d6958b510f21aa9b839bd9ab40899acac8b24d494f\
            6a7f867df7df75cb7f",
        ),
        fields: kubelet_1_37(GET_INFO, ENCODED, "999976u"),
        message: EMPTY_MESSAGE.to_vec(),
    };
    let second = Call {
        stream: 3,
        block: hex(
            "838645a862ba2d98d558598c84d83498f52fb4b31909b06931ea6349d2697d6d2cc6426c1a4c7ab72469b51fc4c3c2c1c07f\
            008669f7df7dd7ad",
        ),
        fields: kubelet_1_37(NOTIFY, ENCODED, "4999978u"),
        message: REGISTERED.to_vec(),
    };
    Recording { calls: vec![first, second] }
}

fn csi_1_37() -> Recording {
    let call = Call {
        stream: 1,
        block: hex(
            "83864592608832fdc2be93c856349e42e22a725529ff4186a0e41d139d095f8b1d75d0620d263d4c4d65647a8a9acac8b4c7\
            602bbc25c340027465864d833505b11f408e9acac8b0c842d6958b510f21aa9b839bd9ab40899acac8b24d494f6a7f85085f7df6\
            69",
        ),
        fields: kubelet_1_37(NODE_GET_INFO, "localhost", "119993m"),
        message: EMPTY_MESSAGE.to_vec(),
    };
    Recording { calls: vec![call] }
}
