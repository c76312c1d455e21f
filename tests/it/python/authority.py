"""Calls both sockets with every :authority that kubelets have sent.

usage: authority.py CSI_SOCKET REGISTRATION_SOCKET

Needs grpcio. Messages are plain bytes: the script imports nothing of the product.
"""

import sys

import grpc

csi, registration = sys.argv[1:]

AUTHORITIES = [
    "/var/lib/kubelet/plugins/secrets-store.csi.k8s.io/csi.sock",
    "%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2Fsecrets-store.csi.k8s.io-reg.sock",
    "/var/lib/kubelet/plugins_registry/secrets-store.csi.k8s.io-reg.sock",
    "localhost",
]
CALLS = [
    (csi, "/csi.v1.Node/NodeGetInfo", b"node-1"),
    (registration, "/pluginregistration.Registration/GetInfo", b"CSIPlugin"),
]

for authority in AUTHORITIES:
    for socket, method, expected in CALLS:
        options = [("grpc.default_authority", authority)]
        with grpc.insecure_channel(f"unix://{socket}", options=options) as channel:
            call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
            answer = call(b"", timeout=10)
        if expected not in answer:
            sys.exit(f"{authority}: {method} answered {answer!r}")
        print(f"ok {method} {authority}")
