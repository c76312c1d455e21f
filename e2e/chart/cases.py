"""The expectations of `check.py`: values and flags, roles and rights, mistakes and messages."""


def nested(values):
    """The values in the spelling of the Azure provider's chart and of the Arc extension."""
    return {"secrets-store-csi-driver": values}


# Values, and the flags that they become.
RENDERED = [
    # The settings of the Arc extension, in its own spelling, and the same ones without the prefix.
    (nested({"enableSecretRotation": True, "rotationPollInterval": "3m", "syncSecret": {"enabled": True}}),
     {"--enable-secret-rotation": "true", "--rotation-poll-interval": "3m", "--sync-secret": "true"}),
    ({"enableSecretRotation": True, "rotationPollInterval": "3m", "syncSecret": {"enabled": True}},
     {"--enable-secret-rotation": "true", "--rotation-poll-interval": "3m", "--sync-secret": "true"}),
    # Booleans as text, which some tools write.
    ({"enableSecretRotation": "true", "syncSecret": {"enabled": "false"}}, {"--enable-secret-rotation": "true", "--sync-secret": "false"}),
    # The nested spelling has precedence, also if it is false.
    ({"enableSecretRotation": True, "rotationPollInterval": "9m", **nested({"enableSecretRotation": False, "rotationPollInterval": "1m"})},
     {"--enable-secret-rotation": "false", "--rotation-poll-interval": "1m"}),
    ({"constructPEMChain": False}, {"--construct-pem-chain": "false"}),
    ({"writeCertAndKeyInSeparateFiles": True}, {"--write-cert-and-key-in-separate-files": "true"}),
    ({"cloudName": "AzureUSGovernmentCloud"}, {"--cloud-name": "AzureUSGovernmentCloud"}),
    ({"cloudFiles": {"configMap": "clouds"}}, {"--cloud-files-dir": "/etc/keyvault-csi/clouds"}),
    (nested({"cloudFiles": {"hostPath": "/etc/kubernetes/clouds"}}), {"--cloud-files-dir": "/etc/kubernetes/clouds"}),
    ({"cloudFiles": None}, {"--cloud-files-dir": None}),
    ({"tokenProxyURL": "https://proxy:443", "sniName": "x.y"}, {"--token-proxy-url": "https://proxy:443", "--sni-name": "x.y"}),
    ({"providerHealthCheck": True}, {"--provider-health-check": "true", "--provider-health-check-interval": "2m"}),
    ({"maxCallRecvMsgSize": 8388608}, {"--max-call-recv-msg-size": "8388608"}),
    ({"azureProvider": "external"}, {"--azure-provider": "external"}),
    (nested({"azureProvider": "external"}), {"--azure-provider": "external"}),
    ({"logVerbosity": 5, "logFormatJSON": True}, {"-v": "5", "--log-format-json": "true"}),
    ({"livenessProbe": {"port": 19808}}, {"--health-addr": "127.0.0.1:19808"}),
    ({"linux": {"hostNetwork": False}}, {"--health-addr": ":9808"}),
    ({"metricsAddr": "8898"}, {"--metrics-addr": ":8898"}),
    (nested({"linux": {"metricsAddr": ":8080"}}), {"--metrics-addr": ":8080"}),
    ({"linux": {"metricsAddr": "0"}}, {"--metrics-addr": "0"}),
    ({"linux": {"kubeletRootDir": "/var/snap/microk8s/common/var/lib/kubelet/"}},
     {"--kubelet-registration-path": "/var/snap/microk8s/common/var/lib/kubelet/plugins/csi-secrets-store/csi.sock",
      "--kubelet-root": "/var/snap/microk8s/common/var/lib/kubelet"}),
    ({"linux": {"additionalProvidersDirs": []}}, {"--additional-provider-volume-paths": ""}),
    ({"linux": {"customUserAgent": "team-a/1.0"}}, {"--custom-user-agent": "team-a/1.0"}),
    ({"startupTaint": {"enabled": True}}, {"--startup-taint": "secrets-store.csi.k8s.io/agent-not-ready"}),
]

# The same for the provider alone.
ALONE = nested({"install": False, "enableSecretRotation": True, "syncSecret": {"enabled": True}, "linux": {"metricsAddr": ":1"}})
PROVIDER_RENDERED = [
    (ALONE, {"--endpoint": "unix:///provider/azure.sock", "--healthz-addr": "127.0.0.1", "--healthz-port": "8989", "--healthz-path": "/healthz", "--healthz-timeout": "5s",
             "--prometheus-port": "8898", "--construct-pem-chain": "true", "--write-cert-and-key-in-separate-files": "false"}),
    # The command lines of upstream's documentation.
    ({**nested({"install": "false"}), "enableSecretRotation": True, "linux": {"enabled": True}}, {"--prometheus-port": "8898"}),
    ({**ALONE, "metricsAddr": "9090"}, {"--prometheus-port": "9090"}),
    ({**ALONE, "metricsAddr": ":9090"}, {"--prometheus-port": "9090"}),
    ({**ALONE, "metricsAddr": "0"}, {"--prometheus-port": "0"}),
    ({**ALONE, "linux": {"healthzPort": 18989, "healthzPath": "/live", "healthzTimeout": "1s", "customUserAgent": "x"}},
     {"--healthz-port": "18989", "--healthz-path": "/live", "--healthz-timeout": "1s", "--custom-user-agent": "x"}),
    ({**ALONE, "constructPEMChain": False, "writeCertAndKeyInSeparateFiles": True, "cloudName": "AzureChinaCloud", "logVerbosity": 5, "logFormatJSON": True},
     {"--construct-pem-chain": "false", "--write-cert-and-key-in-separate-files": "true", "--cloud-name": "AzureChinaCloud", "-v": "5", "--log-format-json": "true"}),
    ({**ALONE, "cloudFiles": {"configMap": "clouds"}}, {"--cloud-files-dir": "/etc/keyvault-csi/clouds"}),
    ({**ALONE, "cloudFiles": {"hostPath": "/etc/kubernetes/clouds"}}, {"--cloud-files-dir": "/etc/kubernetes/clouds"}),
    ({**ALONE, "tokenProxyURL": "https://proxy:443", "sniName": "x.y"}, {"--token-proxy-url": "https://proxy:443", "--sni-name": "x.y"}),
]

# The rights of the driver's account, by role.
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
        ("", "secrets"): "create get patch",
        ("", "pods"): "get list watch",
        ("secrets-store.csi.x-k8s.io", "secretproviderclasspodstatuses"): "list watch",
    },
    "secrets-store-csi-driver-startup-taint-role": {("", "nodes"): "get patch"},
}

# The same for an API server with the admission plug-in OwnerReferencesPermissionEnforcement.
RIGHTS_WITH_OWNERS = {
    **RIGHTS,
    "secretproviderclasses-role": {
        **RIGHTS["secretproviderclasses-role"],
        ("secrets-store.csi.x-k8s.io", "secretproviderclasspodstatuses"): "create delete get update",
    },
    "secretprovidersyncing-role": {**RIGHTS["secretprovidersyncing-role"], ("", "secrets"): "create delete get patch"},
}
OPENSHIFT = "security.openshift.io/v1"
# Values, additional APIs of the server, and whether the roles are for that plug-in.
OWNERS = [
    ({}, [], False),
    ({}, [OPENSHIFT], True),
    # Another version or group of OpenShift's does not count.
    ({}, ["security.openshift.io/v2", "route.openshift.io/v1"], False),
    ({"rbac": {"ownerReferencesPermissionEnforcement": "auto"}}, [OPENSHIFT], True),
    ({"rbac": {"ownerReferencesPermissionEnforcement": None}}, [OPENSHIFT], True),
    ({"rbac": {"ownerReferencesPermissionEnforcement": True}}, [], True),
    ({"rbac": {"ownerReferencesPermissionEnforcement": "true"}}, [], True),
    ({"rbac": {"ownerReferencesPermissionEnforcement": False}}, [OPENSHIFT], False),
    ({"rbac": {"ownerReferencesPermissionEnforcement": "false"}}, [OPENSHIFT], False),
    (nested({"rbac": {"ownerReferencesPermissionEnforcement": True}}), [], True),
    (nested({"rbac": {"ownerReferencesPermissionEnforcement": False}}), [OPENSHIFT], False),
]

# Values, and a word that the error must contain.
REJECTED = [
    ({"enableSecretRotation": "yes"}, "enableSecretRotation"),
    ({"rbac": {"ownerReferencesPermissionEnforcement": "yes"}}, "ownerReferencesPermissionEnforcement"),
    (nested({"rbac": {"ownerReferencesPermissionEnforcement": "always"}}), "ownerReferencesPermissionEnforcement"),
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
    ({"cloudFiles": {"configMap": "Clouds"}}, "configMap"),
    ({"cloudFiles": {"hostPath": "clouds"}}, "hostPath"),
    ({"cloudFiles": {"configMap": "clouds", "hostPath": "/etc/clouds"}}, "not both"),
    ({"linux": {"kubeletRootDir": None}}, "kubeletRootDir"),
    ({"linux": {"tolerations": {"operator": "Exists"}}}, "tolerations"),
    ({"linux": {"nodeSelector": ["a"]}}, "nodeSelector"),
    ({"linux": {"podAnnotations": {"a": 1}}}, "podAnnotations"),
    ({"linux": {"metricsAddr": "all"}}, "metricsAddr"),
    ({"linux": {"image": {"digest": "latest"}}}, "digest"),
    ({"linux": {"image": {"repository": "mirror.example/oss/v2/azure/secrets-store/provider-azure"}}}, "upstream's image"),
    ({**nested({"install": False}), "windows": {"enabled": True}}, "the provider alone is for Linux nodes"),
    ({"linux": {"healthzPath": "healthz"}}, "healthzPath"),
    ({"linux": {"healthzPort": 0}}, "healthzPort"),
    ({"linux": {"healthzTimeout": "soon"}}, "healthzTimeout"),
    ({"linux": {"customUserAgent": "a\nb"}}, "customUserAgent"),
]
