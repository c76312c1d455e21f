"""The helm programs of `e2e/tools`, and the chart as they render it, as Python values.

Has the paths of the chart; the only assertion is that no object is rendered twice. `check.py`,
`render.py` and `cluster.py` use it.
"""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "manifests" / "chart"
CRDS = ROOT / "manifests" / "crds"
DEPLOY = ROOT / "manifests" / "deploy"

# Name of the rendered release, which gives the DaemonSet upstream's name.
RELEASE = "csi"
NAMESPACE = "kube-system"
# The oldest version that the chart accepts, the oldest tested one, the first one with
# serviceAccountTokenInSecrets, and the newest tested one.
KUBERNETES = ("1.27.0", "1.30.14", "1.35.0", "1.37.2")
PROGRAMS = ("helm3", "helm4")


class Refused(Exception):
    """Helm failed; the text is its message."""


def run(program, *arguments, values=None):
    """Runs `helm3` or `helm4`, with values from standard input, and returns what it prints."""
    tools = os.environ.get("KEYVAULT_CSI_TOOLS", "")
    if not (path := Path(tools, "bin", program)).exists():
        sys.exit(f"KEYVAULT_CSI_TOOLS='{tools}' has no bin/{program}: set it to the output of `e2e/tools`, which builds helm once")
    command = [path, *arguments, *([] if values is None else ["--values", "-"])]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True)
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout


@functools.cache
def template(program, release, arguments, values):
    """What `helm template` prints; `values` is JSON."""
    return run(program, "template", release, str(CHART), *arguments, values=json.loads(values))


# The renderings of the default program so far.
rendered = {}


def texts(values=None, kubernetes="1.34.0", release=RELEASE, namespace=NAMESPACE, apis=(), settings=(), program="helm4"):
    """File name and text of each rendered template; `apis` are additional APIs of the server, and
    `settings` arguments such as `--set a=b`."""
    arguments = ("--namespace", namespace, "--kube-version", kubernetes, *(f"--api-versions={api}" for api in apis), *settings)
    call = (release, arguments, json.dumps(values or {}))
    printed = template(program, *call)
    if program == "helm4":
        rendered[call] = printed
    found = {}
    _, *parts = re.split(r"^---\n# Source: [^/\n]+/templates/(.+)\n", printed, flags=re.MULTILINE)
    for name, text in zip(parts[::2], parts[1::2]):
        found.setdefault(name, []).append(text)
    return {name: "---\n".join(documents) for name, documents in found.items()}


def objects(values=None, **options):
    """Every Kubernetes object by kind and name; a duplicate is an error."""
    found = {}
    for text in texts(values, **options).values():
        for document in yaml.load_all(text, Loader=Strict):
            key = (document["kind"], document["metadata"]["name"])
            assert key not in found, f"{key} is rendered twice"
            found[key] = document
    return found


class Strict(yaml.CSafeLoader):
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
