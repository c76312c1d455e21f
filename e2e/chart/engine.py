"""The chart, rendered by the real Helm engine, as Python values.

Has the paths of the chart and passes the Kubernetes version; asserts nothing. `check.py`, `render.py`,
`roles.py` and `cluster.py` use it.
"""

import json
import re
from pathlib import Path

import helm_python
import yaml
from helm_python import _native

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "manifests" / "chart"
CRDS = ROOT / "manifests" / "crds"
DEPLOY = ROOT / "manifests" / "deploy"

# Name of the rendered release, which gives the DaemonSet upstream's name.
RELEASE = "csi"
NAMESPACE = "kube-system"
# The oldest version that the chart accepts, the oldest and newest supported ones, and the first one
# with serviceAccountTokenInSecrets.
KUBERNETES = ("1.20.2", "1.27.0", "1.35.0", "1.37.0")


class Chart:
    """A chart directory, loaded once."""

    def __init__(self, path=CHART):
        self.path = Path(path)
        self.loaded = helm_python.Chart.load(self.path)

    def texts(self, values=None, kubernetes="1.34.0", release=RELEASE, namespace=NAMESPACE, apis=()):
        """File name and text of each rendered template; `apis` are additional APIs of the server."""
        # The public render() cannot name a Kubernetes version or APIs; the library behind it can.
        answer = _native.call_string(
            "helm_render",
            self.loaded._raw(),
            json.dumps(values or {}),
            json.dumps({"name": release, "namespace": namespace, "kube_version": f"v{kubernetes}", "api_versions": list(apis)}),
        )
        texts = {name.split("/templates/")[1]: text for name, text in json.loads(answer).items()}
        return {name: text for name, text in texts.items() if text.strip()}

    def objects(self, values=None, **options):
        """Every Kubernetes object by kind and name; a duplicate is an error."""
        found = {}
        for name, text in self.texts(values, **options).items():
            if not name.endswith(".yaml"):
                continue
            for document in yaml.load_all(text, Loader=Strict):
                if document is None:
                    continue
                key = (document["kind"], document["metadata"]["name"])
                assert key not in found, f"{key} is rendered twice"
                found[key] = document
        return found


class Strict(yaml.SafeLoader):
    """YAML in which a duplicate key is an error, as in server-side validation."""


def _mapping(loader, node):
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    assert not twice, f"{twice} twice, {node.start_mark}"
    return loader.construct_mapping(node, deep=True)


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def plain(text):
    """A rendered text without labels and annotations for Helm, and without runs of empty lines."""
    lines = [line for line in text.splitlines() if not re.match(r"\s+(helm\.sh/(chart|resource-policy)|app\.kubernetes\.io/managed-by):", line)]
    return re.sub(r"\n{2,}", "\n", "\n".join(lines)).strip() + "\n"
