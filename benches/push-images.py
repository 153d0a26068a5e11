"""Pushes N small images, each an index with one platform, to the registry on loopback.

usage: push-images.py PORT N
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile
import urllib.request

port, number = int(sys.argv[1]), int(sys.argv[2])
base = f"http://127.0.0.1:{port}/v2"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def send(method, url, data, kind):
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": kind})
    with urllib.request.urlopen(request) as answer:
        return answer.headers.get("Location")


def blob(repository, data):
    where = send("POST", f"{base}/{repository}/blobs/uploads/", b"", "application/octet-stream")
    joint = "&" if "?" in where else "?"
    send("PUT", f"{where}{joint}digest={digest(data)}", data, "application/octet-stream")
    return {"digest": digest(data), "size": len(data)}


def manifest(repository, name, value, kind):
    data = json.dumps(value).encode()
    send("PUT", f"{base}/{repository}/manifests/{name}", data, kind)
    return {"mediaType": kind, "digest": digest(data), "size": len(data)}


OCI = "application/vnd.oci.image"
for n in range(1, number + 1):
    repository = f"bench/image{n}"
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = 2000
        tar.addfile(entry, io.BytesIO(f"{n:2000d}".encode()))
    packed = gzip.compress(plain.getvalue(), mtime=0)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": [f"IMAGE={n}"], "Entrypoint": ["/bin/engine"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(plain.getvalue())]},
    }
    layer = blob(repository, packed)
    held = blob(repository, json.dumps(config).encode())
    made = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": {"mediaType": f"{OCI}.config.v1+json", **held},
        "layers": [{"mediaType": f"{OCI}.layer.v1.tar+gzip", **layer}],
    }
    probe = manifest(repository, digest(json.dumps(made).encode()), made, f"{OCI}.manifest.v1+json")
    probe["platform"] = {"os": "linux", "architecture": "amd64"}
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [probe]}
    manifest(repository, "1.0", index, f"{OCI}.index.v1+json")
