"""Installs, upgrades and uninstalls the chart in the cluster of KUBECONFIG, with the Helm engine.

    python release.py install|upgrade RELEASE [FILE]     FILE has the values as JSON; default: none
    python release.py uninstall RELEASE

Replaces the command `helm` for tests that are not Python. The namespace is that of docs/install.md.
"""

import json
import sys
from pathlib import Path

import helm_python
from engine import CHART, NAMESPACE
from helm_python import _native


def put(action, release, values):
    config = helm_python.Config(namespace=NAMESPACE)
    with helm_python.Chart.load(CHART) as chart:
        options = json.dumps({"namespace": NAMESPACE, "timeout_seconds": 60})
        _native.call_string(f"helm_{action}", config._raw(), _native.HANDLE(0), chart._raw(), None, release, json.dumps(values), options)


def main(action, release, file=None):
    if action == "uninstall":
        helm_python.Config(namespace=NAMESPACE).uninstall(release, timeout=60)
    else:
        put(action, release, json.loads(Path(file).read_text()) if file else {})


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except helm_python.HelmError as error:
        sys.exit(f"{' '.join(sys.argv[1:])}: {error}")
