"""Writes curl's configuration for the bare requests of N locks: index, manifest, configuration.

usage: bare-requests.py PORT_TO_ASK PORT_TO_WRITE N
"""

import json
import sys
import urllib.request

ask, write, number = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
ACCEPT = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"


def get(path):
    request = urllib.request.Request(f"http://127.0.0.1:{ask}{path}", headers={"Accept": ACCEPT})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


print(f'header = "Accept: {ACCEPT}"')
for n in range(1, number + 1):
    base = f"/v2/bench/image{n}"
    manifest = get(f"{base}/manifests/1.0")["manifests"][0]["digest"]
    config = get(f"{base}/manifests/{manifest}")["config"]["digest"]
    for path in (f"{base}/manifests/1.0", f"{base}/manifests/{manifest}", f"{base}/blobs/{config}"):
        print(f'url = "http://127.0.0.1:{write}{path}"')
        print('output = "/dev/null"')
