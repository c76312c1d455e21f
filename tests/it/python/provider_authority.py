"""Calls a provider with every :authority that drivers send.

usage: provider_authority.py SOCKET

Needs grpcio. Messages are plain bytes: the script imports nothing of the product.
"""

import sys

import grpc

(socket,) = sys.argv[1:]

# Upstream's driver since 1.6; older ones send the path, raw or escaped by the gRPC library.
AUTHORITIES = ["localhost", "/provider/azure.sock", "%2Fprovider%2Fazure.sock"]
METHOD = "/v1alpha1.CSIDriverProvider/Version"

for authority in AUTHORITIES:
    options = [("grpc.default_authority", authority)]
    with grpc.insecure_channel(f"unix://{socket}", options=options) as channel:
        call = channel.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
        answer = call(b"\x0a\x08v1alpha1", timeout=10)
    if b"secrets-store-csi-driver-provider-azure" not in answer:
        sys.exit(f"{authority}: {METHOD} answered {answer!r}")
    print(f"ok {METHOD} {authority}")
