"""Checks of the chart as helm renders it. Needs no cluster.

    python e2e/chart/check.py BINARY      BINARY is the program, which must accept every flag of the chart

Renders with Helm 4; a check renders everything with Helm 3 too. Prints `ok NAME` for each check, and
exits with 0 only if all of them hold.
"""

import copy
import difflib
import os
import re
import subprocess
import sys
import traceback
from multiprocessing.pool import ThreadPool

import helm
import render
import yaml
from cases import ALONE, OWNERS, PROVIDER_RENDERED, REJECTED, RENDERED, RIGHTS, RIGHTS_WITH_OWNERS, nested
from helm import CHART, KUBERNETES, NAMESPACE, PROGRAMS, ROOT, Refused

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def daemonset(objects, suffix=""):
    (found,) = [o for (kind, name), o in objects.items() if kind == "DaemonSet" and name.endswith("windows") == bool(suffix)]
    return found


def container(objects, suffix=""):
    (found,) = daemonset(objects, suffix)["spec"]["template"]["spec"]["containers"]
    return found


def pod(objects):
    return daemonset(objects)["spec"]["template"]["spec"]


def driver(objects):
    return objects["CSIDriver", "secrets-store.csi.k8s.io"]["spec"]


def flags(objects, suffix="", role="node"):
    """The arguments after the subcommand, as a dictionary."""
    subcommand, *arguments = container(objects, suffix)["args"]
    assert subcommand == role, subcommand
    pairs = [argument.partition("=")[::2] for argument in arguments]
    assert len({name for name, _ in pairs}) == len(pairs), f"a flag is passed twice: {arguments}"
    return dict(pairs)


def names(objects, kind):
    return {name for found, name in objects if found == kind}


def same(what, found, expected):
    assert found == expected, f"{what}: {found!r}, should be {expected!r}"


@check
def defaults_are_upstreams():
    objects = helm.objects()
    found = flags(objects)
    for name, expected in {
        "--endpoint": "$(CSI_ENDPOINT)",
        "--nodeid": "$(KUBE_NODE_NAME)",
        "--registration-dir": "/registration",
        "--kubelet-registration-path": "/var/lib/kubelet/plugins/csi-secrets-store/csi.sock",
        "--kubelet-root": "/var/lib/kubelet",
        "--provider-volume": "/var/run/secrets-store-csi-providers",
        "--additional-provider-volume-paths": "/etc/kubernetes/secrets-store-csi-providers",
        "--metrics-addr": ":8095",
        "--health-addr": "127.0.0.1:9808",
        "--enable-secret-rotation": "false",
        "--sync-secret": "false",
        "--construct-pem-chain": "true",
        "--write-cert-and-key-in-separate-files": "false",
        "--max-call-recv-msg-size": "4194304",
        "--provider-health-check": "false",
    }.items():
        same(name, found.pop(name), expected)
    same("other flags", found, {})
    env = {e["name"]: e.get("value") or e["valueFrom"]["fieldRef"]["fieldPath"] for e in container(objects)["env"]}
    same("env", env, {"CSI_ENDPOINT": "unix:///csi/csi.sock", "KUBE_NODE_NAME": "spec.nodeName", "MALLOC_ARENA_MAX": "2"})
    same("image", container(objects)["image"], f"keyvault-csi:{program_version()}")
    same("labels", daemonset(objects)["spec"]["selector"], {"matchLabels": {"app": "secrets-store-csi-driver"}})


@check
def names_are_upstreams():
    everything = {"enableSecretRotation": True, "syncSecret": {"enabled": True}}
    objects = helm.objects(everything)
    same("roles", names(objects, "ClusterRole"), {
        "secretproviderclasses-role", "secretproviderrotation-role", "secretprovidersyncing-role",
        "secretproviderclasses-admin-role", "secretproviderclasses-viewer-role", "secretproviderclasspodstatuses-viewer-role",
    })
    same("bindings", names(objects, "ClusterRoleBinding"), {
        "secretproviderclasses-rolebinding", "secretproviderrotation-rolebinding", "secretprovidersyncing-rolebinding",
    })
    same("accounts", names(objects, "ServiceAccount"), {"secrets-store-csi-driver"})
    same("container", container(objects)["name"], "secrets-store")
    same("drivers", names(objects, "CSIDriver"), {"secrets-store.csi.k8s.io"})
    template = daemonset(objects)["spec"]["template"]
    same("account", template["spec"]["serviceAccountName"], "secrets-store-csi-driver")
    same("default container", template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"], "secrets-store")
    same("ports", {p["name"]: p["containerPort"] for p in container(objects)["ports"]}, {"healthz": 9808, "metrics": 8095})
    same("volumes", {v["name"] for v in pod(objects)["volumes"]}, {"plugin-dir", "registration-dir", "mountpoint-dir", "providers-dir", "providers-dir-0"})
    for release, values, expected in (
        ("csi", {}, "csi-secrets-store-csi-driver"),
        ("my-secrets-store-csi-driver", {}, "my-secrets-store-csi-driver"),
        ("csi", {"fullnameOverride": "one"}, "one"),
        ("csi", {"nameOverride": "two"}, "csi-two"),
        ("csi", nested({"fullnameOverride": "secrets-store-csi-driver"}), "secrets-store-csi-driver"),
    ):
        same("name", names(helm.objects(values, release=release), "DaemonSet"), {expected})


@check
def settings_become_flags():
    for values, expected in RENDERED:
        found = flags(helm.objects(values))
        for name, value in expected.items():
            same(f"{values} {name}", found.get(name), value)


@check
def documented_command_lines_work():
    """Command lines in the documentation of Arc and of upstream, with Helm's own parser of --set."""
    prefix = "secrets-store-csi-driver."
    for line, expected in (
        (f"{prefix}enableSecretRotation=true,{prefix}rotationPollInterval=3m,{prefix}syncSecret.enabled=true",
         {"--enable-secret-rotation": "true", "--rotation-poll-interval": "3m", "--sync-secret": "true"}),
        ("enableSecretRotation=true,rotationPollInterval=30s,syncSecret.enabled=true,tokenRequests[0].audience=conjur,logVerbosity=4",
         {"--enable-secret-rotation": "true", "--rotation-poll-interval": "30s", "-v": "4"}),
        (f"linux.kubeletRootDir=/var/lib/k0s/kubelet,{prefix}linux.kubeletRootDir=/var/lib/k0s/kubelet",
         {"--kubelet-registration-path": "/var/lib/k0s/kubelet/plugins/csi-secrets-store/csi.sock",
          "--kubelet-root": "/var/lib/k0s/kubelet"}),
    ):
        for option in ("--set", "--set-string"):
            if option == "--set-string" and "tokenRequests" in line:
                continue
            found = flags(helm.objects(settings=(option, line)))
            for name, value in expected.items():
                same(f"{option} {line} {name}", found.get(name), value)


@check
def the_program_accepts_every_flag():
    binary = sys.argv[1]
    for values, _ in RENDERED + PROVIDER_RENDERED:
        # As the kubelet expands the container's variables.
        variables = {"$(CSI_ENDPOINT)": "unix:///csi/csi.sock", "$(KUBE_NODE_NAME)": "node"}
        arguments = container(helm.objects(values))["args"]
        for name, value in variables.items():
            arguments = [argument.replace(name, value) for argument in arguments]
        # The program prints its help only if it accepts every flag before.
        done = subprocess.run([binary, *arguments, "--help"], capture_output=True, text=True)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        assert "--endpoint" in done.stdout, done.stdout


@check
def rotation_and_tokens_reach_the_csidriver():
    base = driver(helm.objects())
    same("driver", {k: v for k, v in base.items() if k != "tokenRequests"},
         {"podInfoOnMount": True, "attachRequired": False, "volumeLifecycleModes": ["Ephemeral"], "requiresRepublish": False})
    same("audiences", [r["audience"] for r in base["tokenRequests"]], ["api://AzureADTokenExchange", "api://AKSIdentityBinding"])
    for values in ({"enableSecretRotation": True}, nested({"enableSecretRotation": "true"})):
        same("republish", driver(helm.objects(values))["requiresRepublish"], True)
    for values in ({"tokenRequests": []}, nested({"tokenRequests": []})):
        for kubernetes in KUBERNETES:
            found = driver(helm.objects(values, kubernetes=kubernetes))
            assert not {"tokenRequests", "serviceAccountTokenInSecrets"} & found.keys(), found
    # No fsGroupPolicy: before 1.29 it could not be changed in upstream's object when that is taken
    # over.
    assert "fsGroupPolicy" not in base


@check
def each_kubernetes_version_gets_fields_that_it_has():
    for kubernetes in KUBERNETES:
        objects = helm.objects({"enableSecretRotation": True, "syncSecret": {"enabled": True}, "windows": {"enabled": True}}, kubernetes=kubernetes)
        at_least_35 = tuple(map(int, kubernetes.split(".")))[:2] >= (1, 35)
        same(f"{kubernetes}: tokens in secrets", driver(objects).get("serviceAccountTokenInSecrets"), True if at_least_35 else None)
        same(f"{kubernetes}: versions", {o["apiVersion"] for o in objects.values()},
             {"apps/v1", "v1", "storage.k8s.io/v1", "rbac.authorization.k8s.io/v1", "apiextensions.k8s.io/v1"})
        for program in PROGRAMS:
            # It fails for warnings too.
            helm.run(program, "lint", str(CHART), "--strict", "--quiet", "--kube-version", kubernetes)


@check
def older_versions_of_kubernetes_are_refused():
    for program in PROGRAMS:
        refused({}, "chart requires kubeVersion: >=1.27.0-0 which is incompatible with Kubernetes v1.26.15", kubernetes="1.26.15", program=program)
        assert helm.objects(kubernetes="1.27.0-gke.1", program=program)


@check
def one_container_with_least_privileges():
    objects = helm.objects()
    spec, one = pod(objects), container(objects)
    same("containers", (len(spec["containers"]), spec.get("initContainers")), (1, None))
    same("security", one["securityContext"], {"privileged": True, "readOnlyRootFilesystem": True, "runAsUser": 0})
    same("seccomp", spec["securityContext"], {"seccompProfile": {"type": "RuntimeDefault"}})
    assert "cpu" not in one["resources"]["limits"], "a CPU limit"
    same("memory", (one["resources"]["requests"]["memory"], one["resources"]["limits"]["memory"]), ("24Mi", "200Mi"))
    assert not {"hostPID", "hostIPC"} & spec.keys()
    same("network", (spec["hostNetwork"], spec["dnsPolicy"]), (True, "ClusterFirstWithHostNet"))
    same("priority", spec["priorityClassName"], "system-node-critical")
    same("tolerations", spec["tolerations"], [{"operator": "Exists"}])
    same("nodes", spec["nodeSelector"], {"kubernetes.io/os": "linux"})
    mounts = {m["name"]: m for m in one["volumeMounts"]}
    same("propagation", {n: m.get("mountPropagation") for n, m in mounts.items() if "mountPropagation" in m}, {"mountpoint-dir": "Bidirectional"})
    # The paths inside and outside must be equal, because kubelets send the outer one.
    paths = {v["name"]: v["hostPath"]["path"] for v in spec["volumes"]}
    for name in ("mountpoint-dir", "providers-dir", "providers-dir-0"):
        same(name, mounts[name]["mountPath"], paths[name])
    same("probes", (one["livenessProbe"]["httpGet"], one["readinessProbe"]["httpGet"]),
         ({"host": "127.0.0.1", "path": "/healthz", "port": "healthz"}, {"host": "127.0.0.1", "path": "/readyz", "port": "healthz"}))


@check
def health_is_on_loopback_with_host_network():
    """On the node's network pods do not reach loopback; on the pod network the kubelet probes the pod."""
    for values in ({}, ALONE):
        for on, host in ((True, "127.0.0.1"), (False, None), ("true", "127.0.0.1"), ("false", None)):
            objects = helm.objects({**values, "linux": {"hostNetwork": on}})
            one = container(objects)
            probes = [one[probe]["httpGet"] for probe in ("livenessProbe", "readinessProbe") if probe in one]
            same(f"hostNetwork {on}", {probe.get("host") for probe in probes}, {host})
            if values:
                same("address", flags(objects, role="provider").get("--healthz-addr"), host)
            else:
                same("address", flags(objects)["--health-addr"], f"{host or ''}:9808")


@check
def settings_of_the_pod_take_effect():
    settings = {
        "kubeletRootDir": "/opt/rke/var/lib/kubelet", "providersDir": "/p", "additionalProvidersDirs": ["/p", "/q"],
        "nodeSelector": {"a": "b"}, "tolerations": [], "affinity": {"podAffinity": {}}, "priorityClassName": "",
        "updateStrategy": {"type": "OnDelete"}, "podLabels": {"l": "1"}, "podAnnotations": {"m": "2"}, "daemonsetAnnotations": {"n": "3"},
        "env": [{"name": "X", "value": "y"}], "volumes": [{"name": "v", "emptyDir": {}}], "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "driver": {"resources": {"limits": {"cpu": "1"}}},
    }
    common = {"imagePullSecrets": [{"name": "pull"}], "commonLabels": {"team": "x"}}
    for values in ({"linux": settings, **common}, nested({"linux": settings, **common})):
        objects = helm.objects(values)
        whole, spec, one = daemonset(objects), pod(objects), container(objects)
        same("kubelet", flags(objects)["--kubelet-registration-path"], "/opt/rke/var/lib/kubelet/plugins/csi-secrets-store/csi.sock")
        same("root", flags(objects)["--kubelet-root"], "/opt/rke/var/lib/kubelet")
        mounts = {m["name"]: m["mountPath"] for m in one["volumeMounts"]}
        same("mounts", mounts, {"plugin-dir": "/csi", "registration-dir": "/registration", "mountpoint-dir": "/opt/rke/var/lib/kubelet/pods",
                                "providers-dir": "/p", "providers-dir-1": "/q", "v": "/v"})
        same("volumes", {v["name"] for v in spec["volumes"]}, set(mounts))
        same("nodes", spec["nodeSelector"], {"kubernetes.io/os": "linux", "a": "b"})
        assert "tolerations" not in spec and "priorityClassName" not in spec, spec.keys()
        same("affinity", spec["affinity"]["podAffinity"], {})
        same("strategy", whole["spec"]["updateStrategy"]["type"], "OnDelete")
        same("env", one["env"][-1], {"name": "X", "value": "y"})
        same("cpu", one["resources"]["limits"]["cpu"], "1")
        same("pull", spec["imagePullSecrets"], [{"name": "pull"}])
        meta = whole["spec"]["template"]["metadata"]
        same("labels", (meta["labels"]["l"], meta["labels"]["team"], meta["annotations"]["m"], whole["metadata"]["annotations"]), ("1", "x", "2", {"n": "3"}))
        for key, found in objects.items():
            same(f"{key}: common label", found["metadata"]["labels"].get("team"), "x")
    digest = "sha256:" + "0" * 64
    same("digest", container(helm.objects({"linux": {"image": {"tag": "1", "digest": digest}}}))["image"], f"keyvault-csi@{digest}")
    # Values for upstream's chart have its image below the nested key, which this chart must not
    # use.
    values = nested({"linux": {"image": {"repository": "registry.k8s.io/csi-secrets-store/driver", "tag": "v1.5.6"}}})
    same("image", container(helm.objects(values))["image"], f"keyvault-csi:{program_version()}")


def bound_rights(objects):
    """The rights of the driver's account, by role: verbs by API group and resource."""
    bound = {}
    for (kind, _), o in objects.items():
        if kind == "ClusterRoleBinding":
            same("subject", o["subjects"], [{"kind": "ServiceAccount", "name": "secrets-store-csi-driver", "namespace": NAMESPACE}])
            rules = objects["ClusterRole", o["roleRef"]["name"]]["rules"]
            bound[o["roleRef"]["name"]] = {(g, r): " ".join(rule["verbs"]) for rule in rules for g in rule["apiGroups"] for r in rule["resources"]}
    return bound


@check
def delete_is_granted_only_for_the_admission_plugin_that_requires_it():
    switches = {"enableSecretRotation": True, "syncSecret": {"enabled": True}, "startupTaint": {"enabled": True}}
    for values, apis, on in OWNERS:
        objects = helm.objects({**switches, **copy.deepcopy(values)}, apis=apis)
        same(f"{values} with {apis}", bound_rights(objects), RIGHTS_WITH_OWNERS if on else RIGHTS)


@check
def each_right_comes_with_its_switch():
    switches = {
        "secretproviderrotation-role": {"enableSecretRotation": True},
        "secretprovidersyncing-role": {"syncSecret": {"enabled": True}},
        "secrets-store-csi-driver-startup-taint-role": {"startupTaint": {"enabled": True}},
    }
    for on in [None, *switches]:
        objects = helm.objects(copy.deepcopy(switches.get(on)))
        same(f"with {on}", bound_rights(objects), {name: RIGHTS[name] for name in ["secretproviderclasses-role", on] if name})
        assert not names(objects, "Role") and not names(objects, "RoleBinding")
    none = helm.objects({"rbac": {"install": False}, "enableSecretRotation": True, "syncSecret": {"enabled": True}, "startupTaint": {"enabled": True}})
    for kind in ("ClusterRole", "ClusterRoleBinding", "ServiceAccount"):
        same(f"rbac.install false: {kind}", names(none, kind), set())
    for role, verb in (("secretproviderclasses-admin-role", "delete"), ("secretproviderclasses-viewer-role", "get"), ("secretproviderclasspodstatuses-viewer-role", "get")):
        found = helm.objects()["ClusterRole", role]
        assert verb in found["rules"][0]["verbs"] and any("aggregate-to" in label for label in found["metadata"]["labels"]), found


@check
def crds_outlive_the_release():
    for values, expected in (({}, 2), ({"linux": {"crds": {"enabled": False}}}, 0), (nested({"linux": {"crds": {"enabled": False}}}), 0)):
        crds = [o for (kind, _), o in helm.objects(values).items() if kind == "CustomResourceDefinition"]
        same("crds", len(crds), expected)
        for crd in crds:
            same("policy", crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep")
            assert "helm.sh/hook" not in crd["metadata"]["annotations"], "Helm would delete and create a hook"
            same("versions", {v["name"]: (v["served"], v["storage"]) for v in crd["spec"]["versions"]}, {"v1": (True, True), "v1alpha1": (True, False)})
    assert not (CHART / "crds").exists(), "Helm never upgrades CRDs in crds/"


@check
def a_proxy_as_arc_sets_it():
    proxy = {"isProxyEnabled": True, "httpProxy": "http://u:p@proxy:3128", "httpsProxy": "http://proxy:3128", "noProxy": "10.0.0.0/8,.svc", "proxyCert": "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"}
    objects = helm.objects({"Azure": {"proxySettings": proxy, "Cluster": {"Region": "x"}}})
    same("config", objects["Secret", "arc-proxy-config"]["stringData"],
         {"HTTP_PROXY": proxy["httpProxy"], "HTTPS_PROXY": proxy["httpsProxy"], "NO_PROXY": proxy["noProxy"]})
    same("cert", objects["Secret", "arc-proxy-cert"]["stringData"], {"proxy-cert.crt": proxy["proxyCert"]})
    same("env", container(objects)["envFrom"], [{"secretRef": {"name": "arc-proxy-config"}}])
    same("mount", [m["mountPath"] for m in container(objects)["volumeMounts"] if m["name"] == "proxy-certstore"], ["/etc/ssl/certs/proxy-cert.crt"])

    def checksum(values):
        return daemonset(helm.objects({"Azure": {"proxySettings": values}}))["spec"]["template"]["metadata"]["annotations"].get("checksum/proxy")

    assert checksum(proxy) == checksum(dict(proxy)) != checksum({**proxy, "noProxy": "x"}), "a changed proxy does not restart the pods"
    assert proxy["httpProxy"] not in str(daemonset(objects)), "the DaemonSet contains the password"
    for off in ({}, {"Azure": {"proxySettings": {**proxy, "isProxyEnabled": False}}}, {"Azure": {"Cluster": {}}}):
        objects = helm.objects(off)
        assert not names(objects, "Secret") and "envFrom" not in container(objects), off
    without = helm.objects({"Azure": {"proxySettings": {"isProxyEnabled": "true", "httpsProxy": "http://proxy:3128"}}})
    same("secrets", names(without, "Secret"), {"arc-proxy-config"})


@check
def files_of_custom_clouds_are_mounted_whole():
    """In both DaemonSets, read-only, and not as a subPath, which the kubelet never updates."""
    for base in ({}, ALONE):
        for files, source, path in (
            ({"configMap": "clouds"}, {"configMap": {"name": "clouds"}}, "/etc/keyvault-csi/clouds"),
            ({"hostPath": "/etc/clouds"}, {"hostPath": {"path": "/etc/clouds", "type": "Directory"}}, "/etc/clouds"),
        ):
            objects = helm.objects({**base, "cloudFiles": files})
            same("volume", [v for v in pod(objects)["volumes"] if v["name"] == "cloud-files"], [{"name": "cloud-files", **source}])
            same("mount", [m for m in container(objects)["volumeMounts"] if m["name"] == "cloud-files"],
                 [{"name": "cloud-files", "mountPath": path, "readOnly": True}])
        assert "cloud-files" not in str(helm.objects(base)), "a mount without the setting"
    windows = helm.objects({"windows": {"enabled": True}, "cloudFiles": {"configMap": "clouds"}})
    same("windows", flags(windows, "windows")["--cloud-files-dir"], r"C:\keyvault-csi\clouds")


@check
def windows_is_off_by_default():
    same("off", names(helm.objects(), "DaemonSet"), {"csi-secrets-store-csi-driver"})
    for values in ({"windows": {"enabled": True}}, nested({"windows": {"enabled": True}})):
        objects = helm.objects(values)
        spec = daemonset(objects, "windows")["spec"]["template"]["spec"]
        same("nodes", spec["nodeSelector"]["kubernetes.io/os"], "windows")
        assert "securityContext" not in container(objects, "windows") and "hostNetwork" not in spec
        same("socket", flags(objects, "windows")["--kubelet-registration-path"], r"C:\var\lib\kubelet\plugins\csi-secrets-store\csi.sock")
        assert "--kubelet-root" not in flags(objects, "windows"), "--kubelet-root is for Linux only"
    only = helm.objects({"linux": {"enabled": False}, "windows": {"enabled": True}})
    same("only", names(only, "DaemonSet"), {"csi-secrets-store-csi-driver-windows"})


@check
def the_provider_alone_looks_like_upstreams():
    for values, expected in PROVIDER_RENDERED:
        found = flags(helm.objects(values), role="provider")
        for name, value in expected.items():
            same(f"{values} {name}", found.get(name), value)
    for kubernetes in KUBERNETES:
        objects = helm.objects(ALONE, kubernetes=kubernetes)
        # No role, no CSIDriver, no CustomResourceDefinition: those belong to the driver.
        same("objects", set(objects), {("DaemonSet", "csi-csi-secrets-store-provider-azure"), ("ServiceAccount", "csi-secrets-store-provider-azure")})
    same("selector", daemonset(objects)["spec"]["selector"], {"matchLabels": {"app": "csi-secrets-store-provider-azure"}})
    spec, one = pod(objects), container(objects)
    same("container", (one["name"], len(spec["containers"])), ("provider-azure-installer", 1))
    same("account", spec["serviceAccountName"], "csi-secrets-store-provider-azure")
    same("security", one["securityContext"],
         {"runAsUser": 0, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}})
    same("folders", [v["hostPath"]["path"] for v in spec["volumes"]], ["/var/run/secrets-store-csi-providers"])
    same("mounts", [m["mountPath"] for m in one["volumeMounts"]], ["/provider"])
    same("network", (spec["hostNetwork"], spec["dnsPolicy"]), (True, "ClusterFirstWithHostNet"))
    same("ports", {p["name"]: p["containerPort"] for p in one["ports"]}, {"healthz": 8989, "metrics": 8898})
    same("probe", one["livenessProbe"]["httpGet"], {"host": "127.0.0.1", "path": "/healthz", "port": "healthz"})
    same("privileged", container(helm.objects({**ALONE, "linux": {"privileged": True}}))["securityContext"],
         {"runAsUser": 0, "readOnlyRootFilesystem": True, "privileged": True})
    same("no account", names(helm.objects({**ALONE, "rbac": {"install": False}}), "ServiceAccount"), set())
    same("not on Linux", helm.objects({**ALONE, "linux": {"enabled": False}, "rbac": {"install": False}}), {})
    for release, values, expected in (
        ("csi-secrets-store-provider-azure", ALONE, "csi-secrets-store-provider-azure"),
        ("csi", {**ALONE, "fullnameOverride": "one"}, "one"),
        ("csi", nested({"install": False, "fullnameOverride": "secrets-store-csi-driver"}), "csi-csi-secrets-store-provider-azure"),
    ):
        same("name", names(helm.objects(values, release=release), "DaemonSet"), {expected})
    proxy = {"isProxyEnabled": True, "httpsProxy": "http://proxy:3128", "proxyCert": "x"}
    objects = helm.objects({**ALONE, "Azure": {"proxySettings": proxy}})
    same("proxy", container(objects)["envFrom"], [{"secretRef": {"name": "arc-proxy-config"}}])
    assert "/etc/ssl/certs/proxy-cert.crt" in [m["mountPath"] for m in container(objects)["volumeMounts"]]
    settings = {"nodeSelector": {"a": "b"}, "tolerations": [], "priorityClassName": "", "podLabels": {"l": "1"}, "providersDir": "/p",
                "env": [{"name": "X", "value": "y"}], "volumes": [{"name": "v", "emptyDir": {}}], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    objects = helm.objects({**ALONE, "linux": settings, "imagePullSecrets": [{"name": "pull"}], "commonLabels": {"team": "x"}})
    spec, one = pod(objects), container(objects)
    same("set", (spec["nodeSelector"]["a"], one["env"][-1]["name"], spec["imagePullSecrets"][0]["name"]), ("b", "X", "pull"))
    assert "tolerations" not in spec and "priorityClassName" not in spec, spec.keys()
    same("volumes", {v["name"]: v.get("hostPath", {}).get("path") for v in spec["volumes"]}, {"provider-vol": "/p", "v": None})


@check
def mistakes_are_named():
    for values, word in REJECTED:
        for program in PROGRAMS:
            refused(values, word, program=program)


def refused(values, words, **options):
    try:
        helm.objects(values, **options)
    except Refused as error:
        assert words in str(error), f"{values}: {words!r} is missing in: {error}"
    else:
        raise AssertionError(f"{values} is accepted")


@check
def values_of_upstreams_charts_are_accepted():
    """All settings of their documentation; those without a meaning here change nothing."""
    meaningless = {
        "enableArcExtension": True, "arc": {"enableMonitoring": False}, "filteredWatchSecret": True,
        "Azure": {"Cluster": {"ResourceId": "x", "Region": "y", "Distribution": "z"}, "Identity": {"isEnabled": True, "Type": "SystemAssigned"}, "Extension": {"Name": "n"}},
        "rbac": {"install": True, "pspEnabled": False},
        "livenessProbe": {"port": 9808, "logLevel": 2},
        "linux": {"privileged": True, "healthzPort": 8989, "healthzPath": "/healthz", "healthzTimeout": "5s",
                  "registrarImage": {"tag": "v2"}, "registrar": {"resources": {}, "logVerbosity": 5}, "livenessProbeImage": {"tag": "v2"}},
        "secrets-store-csi-driver": {"install": True, "filteredWatchSecret": True, "linux": {"image": {"tag": "v1.5.6"}, "registrarImage": {"tag": "x"},
                                     "crds": {"image": {"tag": "x"}, "enabled": True}}},
    }
    same("objects", helm.objects(meaningless), helm.objects())
    # The values file of Microsoft's extension.
    arc = {"logFormatJSON": True, "linux": {"tolerations": [], "dnsPolicy": ""}, "windows": {"enabled": True, "tolerations": []},
           **nested({"logFormatJSON": True, "tokenRequests": [{"audience": "api://AzureADTokenExchange"}], "windows": {"enabled": True},
                     "linux": {"podAnnotations": {"prometheus.io/port": "8080"}, "metricsAddr": ":8080"}, "fullnameOverride": "secrets-store-csi-driver"})}
    objects = helm.objects(arc)
    assert "dnsPolicy" not in pod(objects) and "tolerations" not in pod(objects)
    same("metrics", flags(objects)["--metrics-addr"], ":8080")
    same("audiences", driver(objects)["tokenRequests"], [{"audience": "api://AzureADTokenExchange"}])


@check
def plain_yaml_and_crds_are_current():
    found = render.stale(render.copies(), (CHART / "files" / "crds").rglob("*.yaml")) + render.stale(render.rendered(), render.DEPLOY.rglob("*.yaml"))
    same("out of date; run `make manifests`", [str(path.relative_to(ROOT)) for path in found], [])


@check
def the_readme_lists_every_setting():
    readme = (CHART / "README.md").read_text()

    def leaves(value, at=""):
        if isinstance(value, dict) and value and not at.endswith(("affinity", "resources", "updateStrategy", "image")):
            for key, below in value.items():
                yield from leaves(below, f"{at}.{key}" if at else key)
        else:
            yield at

    missing = [name for name in leaves(yaml.safe_load((CHART / "values.yaml").read_text())) if f"`{name}`" not in readme and f"`<os>.{name.partition('.')[2]}`" not in readme]
    same("not in README.md", missing, [])
    same("version", yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"], program_version())


def program_version():
    return re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]


@check
def helm_3_renders_the_same():
    """Everything that the checks above rendered, but for empty lines."""
    assert len(helm.rendered) > 100, len(helm.rendered)

    def lines(text):
        return [line for line in text.splitlines() if line]

    with ThreadPool(os.cpu_count()) as pool:
        others = pool.imap(lambda call: helm.template("helm3", *call), helm.rendered)
        for (call, text), other in zip(helm.rendered.items(), others):
            same(f"{call}", list(difflib.unified_diff(lines(text), lines(other), lineterm="", n=1)), [])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    failed = 0
    for function in CHECKS:
        try:
            function()
            print(f"ok {function.__name__}")
        except Exception:  # noqa: BLE001: the other checks run nevertheless.
            failed += 1
            print(f"FAILED {function.__name__}\n{traceback.format_exc(limit=-2)}")
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks hold")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
