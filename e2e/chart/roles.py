"""Prints every role that the chart renders, as JSON: its name and its rules.

    python e2e/chart/roles.py [VALUES]      VALUES as JSON; default: every switch is on

For tests that grant these rules to a user of a real API server.
"""

import json
import sys

from engine import Chart

EVERYTHING = {
    "enableSecretRotation": True,
    "syncSecret": {"enabled": True},
    "startupTaint": {"enabled": True},
    "rbac": {"ownerReferencesPermissionEnforcement": True},
}

if __name__ == "__main__":
    objects = Chart().objects(json.loads(sys.argv[1]) if len(sys.argv) > 1 else EVERYTHING)
    print(json.dumps({name: role["rules"] for (kind, name), role in objects.items() if kind in ("ClusterRole", "Role")}))
