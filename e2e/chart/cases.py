"""What the chart must render, as tables: values and flags, roles and rights, mistakes and the words that name them.

`check.py` asks; here is nothing that runs.
"""


def nested(values):
    """The values in the spelling of the Azure provider's chart and of the Arc extension."""
    return {"secrets-store-csi-driver": values}


# Values, and what becomes of them.
RENDERED = [
    # The settings of the Arc extension, in its own spelling, and the same ones without the prefix.
    (nested({"enableSecretRotation": True, "rotationPollInterval": "3m", "syncSecret": {"enabled": True}}),
     {"--enable-secret-rotation": "true", "--rotation-poll-interval": "3m", "--sync-secret": "true"}),
    ({"enableSecretRotation": True, "rotationPollInterval": "3m", "syncSecret": {"enabled": True}},
     {"--enable-secret-rotation": "true", "--rotation-poll-interval": "3m", "--sync-secret": "true"}),
    # Tools that make text of everything.
    ({"enableSecretRotation": "true", "syncSecret": {"enabled": "false"}}, {"--enable-secret-rotation": "true", "--sync-secret": "false"}),
    # The nested spelling comes first, also where it says false.
    ({"enableSecretRotation": True, "rotationPollInterval": "9m", **nested({"enableSecretRotation": False, "rotationPollInterval": "1m"})},
     {"--enable-secret-rotation": "false", "--rotation-poll-interval": "1m"}),
    ({"constructPEMChain": False}, {"--construct-pem-chain": "false"}),
    ({"writeCertAndKeyInSeparateFiles": True}, {"--write-cert-and-key-in-separate-files": "true"}),
    ({"cloudName": "AzureUSGovernmentCloud"}, {"--cloud-name": "AzureUSGovernmentCloud"}),
    ({"tokenProxyURL": "https://proxy:443", "sniName": "x.y"}, {"--token-proxy-url": "https://proxy:443", "--sni-name": "x.y"}),
    ({"providerHealthCheck": True}, {"--provider-health-check": "true", "--provider-health-check-interval": "2m"}),
    ({"maxCallRecvMsgSize": 8388608}, {"--max-call-recv-msg-size": "8388608"}),
    ({"logVerbosity": 5, "logFormatJSON": True}, {"-v": "5", "--log-format-json": "true"}),
    ({"livenessProbe": {"port": 19808}}, {"--health-addr": ":19808"}),
    ({"metricsAddr": "8898"}, {"--metrics-addr": ":8898"}),
    (nested({"linux": {"metricsAddr": ":8080"}}), {"--metrics-addr": ":8080"}),
    ({"linux": {"metricsAddr": "0"}}, {"--metrics-addr": "0"}),
    ({"linux": {"kubeletRootDir": "/var/snap/microk8s/common/var/lib/kubelet/"}},
     {"--kubelet-registration-path": "/var/snap/microk8s/common/var/lib/kubelet/plugins/csi-secrets-store/csi.sock"}),
    ({"linux": {"additionalProvidersDirs": []}}, {"--additional-provider-volume-paths": ""}),
    ({"startupTaint": {"enabled": True}}, {"--startup-taint": "secrets-store.csi.k8s.io/agent-not-ready"}),
]

# What the node's account may do, by role.
RIGHTS = {
    "secretproviderclasses-role": {
        ("secrets-store.csi.x-k8s.io", "secretproviderclasses"): "get list watch",
        ("secrets-store.csi.x-k8s.io", "secretproviderclasspodstatuses"): "create get update",
        ("", "events"): "create",
    },
    "secretproviderrotation-role": {
        ("", "pods"): "list watch",
    },
    "secretprovidersyncing-role": {
        ("", "secrets"): "create delete get patch",
        ("", "pods"): "get list watch",
        ("secrets-store.csi.x-k8s.io", "secretproviderclasspodstatuses"): "list watch",
    },
    "secrets-store-csi-driver-startup-taint-role": {("", "nodes"): "get patch"},
}

# Values, and a word that must stand in their refusal.
REJECTED = [
    ({"enableSecretRotation": "yes"}, "enableSecretRotation"),
    ({"syncSecret": True}, "syncSecret"),
    (nested({"syncSecret": True}), "secrets-store-csi-driver/syncSecret"),
    ({"rotationPollInterval": 120}, "rotationPollInterval"),
    ({"rotationPollInterval": "2 minutes"}, "rotationPollInterval"),
    (nested({"rotationPollInterval": "often"}), "rotationPollInterval"),
    ({"tokenRequests": "api://AzureADTokenExchange"}, "tokenRequests"),
    ({"tokenRequests": [{"expirationSeconds": 3600}]}, "audience"),
    ({"tokenRequests": [{"audience": "a", "expirationSeconds": 60}]}, "expirationSeconds"),
    ({"livenessProbe": {"port": 70000}}, "port"),
    ({"logVerbosity": "loud"}, "logVerbosity"),
    ({"tokenProxyURL": "http://proxy"}, "tokenProxyURL"),
    ({"linux": {"kubeletRootDir": None}}, "kubeletRootDir"),
    ({"linux": {"tolerations": {"operator": "Exists"}}}, "tolerations"),
    ({"linux": {"nodeSelector": ["a"]}}, "nodeSelector"),
    ({"linux": {"podAnnotations": {"a": 1}}}, "podAnnotations"),
    ({"linux": {"metricsAddr": "all"}}, "metricsAddr"),
    ({"linux": {"image": {"digest": "latest"}}}, "digest"),
    ({"linux": {"image": {"repository": "mirror.example/oss/v2/azure/secrets-store/provider-azure"}}}, "upstream's image"),
    (nested({"install": False}), "secrets-store-csi-driver.install"),
]
