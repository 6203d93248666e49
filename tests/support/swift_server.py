"""OpenStack Swift with its S3 interface, as one process: account, container, object and proxy server.

Run by the Python of `.venv-swift` alone, since eventlet, which Swift is built on, changes sockets and threads
of its whole process. Usage: `swift_server.py FOLDER PORT`, with the account's secret in SWIFT_SECRET. All it
writes lies in FOLDER. It ends when its standard input does, so that it outlives no test process.
"""

import os
import sys
from pathlib import Path

import eventlet

eventlet.monkey_patch()

import swift.common.utils  # noqa: E402 (sockets and threads must have been changed)
from eventlet import wsgi  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.wsgi import SwiftHttpProtocol, loadapp  # noqa: E402

HOST = "127.0.0.1"
SWIFT = """
[swift-hash]
swift_hash_path_prefix = kairos
swift_hash_path_suffix = tests
[storage-policy:0]
name = one
default = yes
"""
STORAGE = """
[DEFAULT]
devices = {folder}/devices
swift_dir = {folder}
mount_check = false
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
PIPELINE = (
    *("catch_errors", "healthcheck", "cache", "listing_formats", "bulk", "s3api", "tempauth", "copy", "slo"),
    *("dlo", "versioned_writes", "symlink"),
)
PROXY = """
[DEFAULT]
swift_dir = {folder}
[pipeline:main]
pipeline = {pipeline} proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
"""
FILTERS = {
    "cache": "use = egg:swift#memcache\nmemcache_servers = 127.0.0.1:9",  # there is none, and none is needed
    "s3api": "use = egg:swift#s3api\nlocation = us-east-1",
    "tempauth": "use = egg:swift#tempauth\nuser_test_tester = {secret} .admin",
}


def main() -> None:
    """Write the configuration and the rings, then serve."""
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    (folder / "devices" / "disk").mkdir(parents=True)
    (folder / "swift.conf").write_text(SWIFT)
    swift.common.utils.set_swift_dir(str(folder))
    sockets = {kind: eventlet.listen((HOST, 0)) for kind in ("account", "container", "object")}
    for kind, listening in sockets.items():
        ring(listening.getsockname()[1]).save(str(folder / f"{kind}.ring.gz"))
        (folder / f"{kind}.conf").write_text(STORAGE.format(folder=folder, kind=kind))
    filters = {name: FILTERS.get(name, f"use = egg:swift#{name}") for name in PIPELINE}
    filters["tempauth"] = filters["tempauth"].format(secret=os.environ["SWIFT_SECRET"])
    sections = (f"[filter:{name}]\n{text}\n" for name, text in filters.items())
    proxy = PROXY.format(folder=folder, pipeline=" ".join(PIPELINE))
    (folder / "proxy.conf").write_text(proxy + "".join(sections))
    sockets["proxy"] = eventlet.listen((HOST, port))
    for kind, listening in sockets.items():
        app = loadapp(str(folder / f"{kind}.conf"), global_conf={"log_name": kind})
        options = {"protocol": SwiftHttpProtocol, "capitalize_response_headers": False, "log_output": False}
        eventlet.spawn(wsgi.server, listening, app, **options)
    eventlet.tpool.execute(sys.stdin.read)


def ring(port: int) -> "swift.common.ring.RingData":
    """A ring of one disk, behind the server at this port."""
    builder = RingBuilder(4, 1, 1)  # 16 partitions, one replica
    place = {"ip": HOST, "port": port, "replication_ip": HOST, "replication_port": port}
    builder.add_dev({"region": 1, "zone": 1, "device": "disk", "weight": 1.0, "meta": "", **place})
    builder.rebalance()
    return builder.get_ring()


if __name__ == "__main__":
    main()
