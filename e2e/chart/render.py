"""Writes derived files: the chart's copy of the CRDs, and manifests/deploy rendered from the chart.

    python e2e/chart/render.py            write them
    python e2e/chart/render.py --check    change nothing; fail and list files that are out of date

The CRDs are copied, because a packaged chart, and tools that fetch a directory of a repository, do not
follow links.
"""

import sys

from helm import CHART, CRDS, DEPLOY, ROOT, plain, texts

NAMES = {"fullnameOverride": "secrets-store-csi-driver"}
PROVIDER = {"secrets-store-csi-driver": {"install": False}, "fullnameOverride": "csi-secrets-store-provider-azure"}
BOTH = {**NAMES, "enableSecretRotation": True, "syncSecret": {"enabled": True}}
HEAD = "# Rendered from manifests/chart by `make manifests`: edit the chart. See docs/install.md.\n"


def copies():
    sources = sorted(CRDS.glob("*.yaml"))
    assert len(sources) == 2, f"{CRDS} should have the two CRDs, has {[path.name for path in sources]}"
    return {CHART / "files" / "crds" / path.name: path.read_text() for path in sources}


def rendered(program="helm4"):
    before, after = ({"kubernetes": version, "release": "keyvault-csi", "program": program} for version in ("1.34.0", "1.35.0"))
    base, both, provider = texts(NAMES, **before), texts(BOTH, **before), texts(PROVIDER, **before)
    newer, newer_both = texts(NAMES, **after), texts(BOTH, **after)

    def file(found, *templates):
        return HEAD + "---\n".join(plain(found[template]) for template in templates)

    return {
        DEPLOY / "1-crds.yaml": file(base, "crds.yaml"),
        DEPLOY / "2-rbac.yaml": file(base, "serviceaccount.yaml", "rbac.yaml", "rbac-people.yaml"),
        DEPLOY / "3-csidriver.yaml": file(base, "csidriver.yaml"),
        DEPLOY / "4-daemonset.yaml": file(base, "daemonset.yaml"),
        DEPLOY / "rotation-and-sync" / "1-rbac.yaml": file(both, "rbac-rotation.yaml", "rbac-sync.yaml"),
        DEPLOY / "rotation-and-sync" / "2-csidriver.yaml": file(both, "csidriver.yaml"),
        DEPLOY / "rotation-and-sync" / "3-daemonset.yaml": file(both, "daemonset.yaml"),
        DEPLOY / "provider-alone" / "provider.yaml": file(provider, "serviceaccount.yaml", "daemonset-provider.yaml"),
        DEPLOY / "from-1.35" / "csidriver.yaml": file(newer, "csidriver.yaml"),
        DEPLOY / "from-1.35" / "csidriver-rotation.yaml": file(newer_both, "csidriver.yaml"),
    }


def stale(wanted, present):
    """Files that differ, are missing, or should not exist."""
    differing = [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    return differing + [path for path in present if path not in wanted]


def main():
    write = "--check" not in sys.argv[1:]
    out_of_date = []
    # The second one renders the copies of the first.
    for make, folder in ((copies, CHART / "files" / "crds"), (rendered, DEPLOY)):
        wanted = make()
        found = stale(wanted, folder.rglob("*.yaml"))
        out_of_date += found
        for path in found if write else []:
            if path in wanted:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(wanted[path])
            else:
                path.unlink()
    for path in out_of_date:
        print(f"{'written' if write else 'out of date'}: {path.relative_to(ROOT)}")
    if out_of_date and not write:
        sys.exit("run `make manifests`")


if __name__ == "__main__":
    main()
