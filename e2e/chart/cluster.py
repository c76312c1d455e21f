"""Installs, upgrades, takes over and uninstalls the chart on a real API server.

    KUBECONFIG=... python e2e/chart/cluster.py helm3|helm4

Helm 3 applies client-side, Helm 4 server-side. Needs an API server without the driver, and kubectl.
A node selector prevents pods: other tests cover them. Removes all of its objects. Refuses to start if
a driver is installed, because it deletes the CustomResourceDefinitions.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import yaml
from helm import CHART, CRDS, NAMESPACE, PROGRAMS, ROOT, Refused, run

RELEASE = "csi"
NOWHERE = {"linux": {"nodeSelector": {"keyvault-csi/no-such-node": "true"}}}
DRIVER = ("csidriver", "secrets-store.csi.k8s.io")
CLASS = """
apiVersion: secrets-store.csi.x-k8s.io/%s
kind: SecretProviderClass
metadata: {name: %s, namespace: default}
spec: {provider: azure, parameters: {keyvaultName: v, tenantID: t, objects: "[]"}}
"""
GROUP = "secrets-store.csi.x-k8s.io"
OPENSHIFT_CRD = "securitycontextconstraints.security.openshift.io"
OPENSHIFT = f"""
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {OPENSHIFT_CRD}}}
spec:
  group: security.openshift.io
  scope: Cluster
  names: {{kind: SecurityContextConstraints, plural: securitycontextconstraints}}
  versions: [{{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object}}}}}}]
"""
KINDS = "daemonset,serviceaccount,clusterrole,clusterrolebinding,csidriver,secret"


def kubectl(*arguments, stdin=None, check=True):
    done = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True)
    assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout if check else done


def get(kind, name):
    return json.loads(kubectl("get", kind, name, "--namespace", NAMESPACE, "--output", "json"))


def crds():
    names = kubectl("get", "crd", "--output", "name").split()
    return {name.partition("/")[2] for name in names if name.endswith(GROUP)}


def classes():
    return set(kubectl("get", f"secretproviderclasses.{GROUP}", "--namespace", "default", "--output", "jsonpath={.items[*].metadata.name}").split())


def ours():
    """The objects in the cluster with the chart's label, except the CRDs."""
    listed = kubectl("get", KINDS, "--all-namespaces", "--selector", "app=secrets-store-csi-driver", "--output", "json")
    return {(o["kind"], o["metadata"]["name"]) for o in json.loads(listed)["items"]}


def may(*what):
    """Whether the driver's account has this right."""
    account = f"system:serviceaccount:{NAMESPACE}:secrets-store-csi-driver"
    return kubectl("auth", "can-i", *what, "--namespace", "default", "--as", account, check=False).stdout.strip() == "yes"


def wait_for(what, condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def wait_for_rights(granted=(), refused=()):
    """The API server learns of roles by watches."""
    wait_for(f"{granted} without {refused}", lambda: all(may(*what) for what in granted) and not any(may(*what) for what in refused))


def make_class(name, version="v1"):
    """The API server serves a new CustomResourceDefinition after a moment."""
    manifest = CLASS % (version, name)
    wait_for(f"a class of {version}", lambda: kubectl("apply", "--filename", "-", stdin=manifest, check=False).returncode == 0)


class Helm:
    """`helm3` or `helm4` in the chart's namespace; no pod of the chart gets a node."""

    def __init__(self, program):
        self.program = program

    def __call__(self, *arguments, **options):
        return run(self.program, *arguments, "--namespace", NAMESPACE, "--timeout", "60s", **options)

    def install(self, release, values=None, *options, chart=CHART):
        return self("install", release, str(chart), *options, values=placed(values, chart))

    def upgrade(self, values=None, *options, chart=CHART):
        return self("upgrade", RELEASE, str(chart), "--reset-values", *options, values=placed(values, chart))

    def uninstall(self, release):
        return self("uninstall", release)


def placed(values, chart):
    """The values, and for our chart a node selector that no node has."""
    return {**NOWHERE, **(values or {})} if chart == CHART else values or {}


def refused(words, command, *arguments):
    try:
        command(*arguments)
    except Refused as error:
        assert words in str(error), f"{words!r} is missing in: {error}"
    else:
        raise AssertionError(f"{arguments} succeeded")


def a_fresh_install_creates_everything(helm):
    notes = helm.install(RELEASE)
    assert "The driver runs on each node" in notes and "Rotation is off" in notes, notes
    assert len(crds()) == 2, crds()
    make_class("one")
    make_class("older", "v1alpha1")
    assert classes() == {"one", "older"}
    daemonset = get("daemonset", "csi-secrets-store-csi-driver")
    assert [c["name"] for c in daemonset["spec"]["template"]["spec"]["containers"]] == ["secrets-store"]
    assert get(*DRIVER)["spec"].get("requiresRepublish", False) is False
    assert not {name for kind, name in ours() if "rotation" in name or "syncing" in name}, ours()


def settings_can_be_changed_later(helm):
    helm.upgrade({"enableSecretRotation": True, "syncSecret": {"enabled": True}, "rotationPollInterval": "30s"})
    assert get(*DRIVER)["spec"]["requiresRepublish"] is True
    assert {("ClusterRole", "secretproviderrotation-role"), ("ClusterRole", "secretprovidersyncing-role")} <= ours()
    arguments = get("daemonset", "csi-secrets-store-csi-driver")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert {"--enable-secret-rotation=true", "--sync-secret=true", "--rotation-poll-interval=30s"} <= set(arguments), arguments
    wait_for_rights(granted=[("create", "secrets")], refused=[("list", "secrets")])
    helm.upgrade()
    assert get(*DRIVER)["spec"].get("requiresRepublish", False) is False
    assert not {name for kind, name in ours() if "rotation" in name or "syncing" in name}, ours()
    wait_for_rights(granted=[("list", f"secretproviderclasses.{GROUP}")], refused=[("get", "secrets")])
    assert classes() == {"one", "older"}


def delete_is_granted_on_openshift(helm):
    """A CustomResourceDefinition of its API group emulates OpenShift, as the chart recognizes it."""
    statuses = f"secretproviderclasspodstatuses.{GROUP}"
    both = [("delete", "secrets"), ("delete", statuses)]
    sync, setting = {"syncSecret": {"enabled": True}}, "ownerReferencesPermissionEnforcement"
    helm.upgrade(sync)
    wait_for_rights(granted=[("patch", "secrets"), ("update", statuses)], refused=both)
    helm.upgrade({**sync, "rbac": {setting: True}})
    wait_for_rights(granted=both)
    try:
        kubectl("apply", "--filename", "-", stdin=OPENSHIFT)
        kubectl("wait", "--for=condition=Established", f"crd/{OPENSHIFT_CRD}", "--timeout=60s")
        helm.upgrade(sync)
        wait_for_rights(granted=both)
        helm.upgrade({**sync, "rbac": {setting: False}})
        wait_for_rights(refused=both)
    finally:
        kubectl("delete", "crd", OPENSHIFT_CRD, "--ignore-not-found", "--timeout=60s")
    helm.upgrade()


def an_upgrade_upgrades_the_crds(helm):
    """To a later version of the chart, whose CRD has one more column, and back."""
    with tempfile.TemporaryDirectory() as folder:
        later = Path(folder) / "chart"
        shutil.copytree(CHART, later)
        path = later / "files" / "crds" / f"{GROUP}_secretproviderclasses.yaml"
        crd = yaml.safe_load(path.read_text())
        column = {"name": "Later", "type": "string", "jsonPath": ".metadata.name"}
        crd["spec"]["versions"][0].setdefault("additionalPrinterColumns", []).append(column)
        path.write_text(yaml.safe_dump(crd))
        before = get("crd", f"secretproviderclasses.{GROUP}")
        helm.upgrade(NOWHERE, chart=later)
        after = get("crd", f"secretproviderclasses.{GROUP}")
        assert after["metadata"]["uid"] == before["metadata"]["uid"], "the CRD was deleted and created, and every class with it deleted"
        assert column in after["spec"]["versions"][0]["additionalPrinterColumns"], "the CRD was not upgraded"
    helm.upgrade()
    assert get("crd", f"secretproviderclasses.{GROUP}")["spec"] == before["spec"]
    assert classes() == {"one", "older"}


def deleted_and_changed_objects_are_restored(helm):
    role = ("clusterrole", "secretproviderclasses-role")
    before = get(*role)["rules"]
    kubectl("delete", *role)
    helm.upgrade()
    assert get(*role)["rules"] == before
    kubectl("patch", *role, "--type=json", "--patch", '[{"op": "remove", "path": "/rules/0"}]')
    if helm.program == "helm3":
        helm.upgrade()
    else:
        refused("conflict", helm.upgrade)
        helm.upgrade({}, "--force-conflicts")
    assert get(*role)["rules"] == before


def uninstalling_keeps_crds_and_classes(helm):
    helm.uninstall(RELEASE)
    assert ours() == set(), ours()
    assert len(crds()) == 2 and classes() == {"one", "older"}


def crds_of_another_owner_need_take_ownership(helm):
    refused("invalid ownership metadata", helm.install, "other")
    assert ours() == set(), ours()
    helm.install("other", {"linux": {**NOWHERE["linux"], "crds": {"enabled": False}}})
    helm.uninstall("other")
    helm.install("other", {}, "--take-ownership")
    annotations = get("crd", f"secretproviderclasses.{GROUP}")["metadata"]["annotations"]
    assert annotations["meta.helm.sh/release-name"] == "other", annotations
    helm.uninstall("other")
    assert classes() == {"one", "older"}


def installers(helm):
    """Helm 4 continues with the way of applying by which a release was installed."""
    return [Helm(program) for program in PROGRAMS[:PROGRAMS.index(helm.program) + 1]]


def roll_back(helm, installer):
    """As docs/install.md says: server-side apply cannot remove a probe, it leaves an empty one."""
    helm("rollback", RELEASE, "1", *(["--server-side=false"] if installer.program == "helm4" else []))


def upstreams_release_is_upgraded_to_this_chart(helm):
    for installer in installers(helm):
        take_over(helm, installer)


def take_over(helm, installer):
    """Upstream's CRDs come from crds/, so Helm does not own them. The DaemonSet keeps its name."""
    delete_crds()
    with tempfile.TemporaryDirectory() as folder:
        upstream = Path(folder) / "upstream"
        shutil.copytree(ROOT / "e2e" / "chart" / "upstream", upstream)
        shutil.copytree(CRDS, upstream / "crds", dirs_exist_ok=True)
        installer.install(RELEASE, chart=upstream)
    make_class("one")
    before = get("daemonset", "csi-secrets-store-csi-driver")
    assert len(before["spec"]["template"]["spec"]["containers"]) == 3
    refused("invalid ownership metadata", helm.upgrade)
    helm.upgrade({}, "--take-ownership")
    after = get("daemonset", "csi-secrets-store-csi-driver")
    assert after["metadata"]["uid"] == before["metadata"]["uid"], "the DaemonSet was deleted and created instead of being updated"
    assert [c["name"] for c in after["spec"]["template"]["spec"]["containers"]] == ["secrets-store"]
    assert kubectl("get", "clusterrole", "secretprovidertokenrequest-role", check=False).returncode != 0, "the role with the right to create tokens still exists"
    rules = get("clusterrole", "secretproviderclasses-role")["rules"]
    assert not any("pods" in rule["resources"] for rule in rules), rules
    assert classes() == {"one"}
    # And back: upstream's objects return, classes stay.
    roll_back(helm, installer)
    back = get("daemonset", "csi-secrets-store-csi-driver")
    assert len(back["spec"]["template"]["spec"]["containers"]) == 3 and back["metadata"]["uid"] == before["metadata"]["uid"]
    assert classes() == {"one"} and len(crds()) == 2
    helm.uninstall(RELEASE)


def upstreams_provider_is_upgraded_to_this_chart(helm):
    """The driver belongs to another release, which does not change."""
    alone = {"secrets-store-csi-driver": {"install": False}}
    name = ("daemonset", f"{RELEASE}-csi-secrets-store-provider-azure")
    for installer in installers(helm):
        delete_crds()
        helm.install("other")
        driver = get("daemonset", "other-secrets-store-csi-driver")["metadata"]
        installer.install(RELEASE, chart=ROOT / "e2e" / "chart" / "upstream-provider")
        before = get(*name)
        notes = helm.upgrade(alone)
        assert "/var/run/secrets-store-csi-providers/azure.sock" in notes and "Rotation is" not in notes, notes
        after = get(*name)
        assert after["metadata"]["uid"] == before["metadata"]["uid"], "the DaemonSet was deleted and created instead of being updated"
        (one,) = after["spec"]["template"]["spec"]["containers"]
        assert one["args"][0] == "provider" and one["securityContext"]["capabilities"] == {"drop": ["ALL"]}, one
        assert one["livenessProbe"]["httpGet"]["port"] == "healthz", one["livenessProbe"]
        roll_back(helm, installer)
        assert get(*name)["spec"]["template"]["spec"]["containers"][0]["args"] == before["spec"]["template"]["spec"]["containers"][0]["args"]
        helm.uninstall(RELEASE)
        found = get("daemonset", "other-secrets-store-csi-driver")["metadata"]
        assert (found["uid"], found["generation"]) == (driver["uid"], driver["generation"]), "the driver's DaemonSet was changed"
        assert len(crds()) == 2
        helm.uninstall("other")


def delete_crds():
    for name in crds():
        kubectl("delete", "crd", name, "--timeout", "60s")


STEPS = [
    a_fresh_install_creates_everything,
    settings_can_be_changed_later,
    delete_is_granted_on_openshift,
    an_upgrade_upgrades_the_crds,
    deleted_and_changed_objects_are_restored,
    uninstalling_keeps_crds_and_classes,
    crds_of_another_owner_need_take_ownership,
    upstreams_release_is_upgraded_to_this_chart,
    upstreams_provider_is_upgraded_to_this_chart,
]


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in PROGRAMS:
        sys.exit(__doc__)
    if kubectl("get", *DRIVER, check=False).returncode == 0 or crds():
        sys.exit("this cluster has a driver or its CRDs: set KUBECONFIG to a cluster without them")
    helm = Helm(sys.argv[1])
    done = 0
    try:
        for step in STEPS:
            began = time.monotonic()
            step(helm)
            done += 1
            print(f"ok {step.__name__}, {time.monotonic() - began:.1f} s", flush=True)
    except Exception:  # noqa: BLE001: each step needs the one before.
        print(f"FAILED {step.__name__}\n{traceback.format_exc(limit=-3)}")
    finally:
        for release in (RELEASE, "other"):
            helm("uninstall", release, "--ignore-not-found")
        kubectl("delete", KINDS, "--all-namespaces", "--selector", "app=secrets-store-csi-driver", "--ignore-not-found", check=False)
        delete_crds()
    print(f"{done} of {len(STEPS)} steps hold")
    sys.exit(0 if done == len(STEPS) else 1)


if __name__ == "__main__":
    main()
