"""Checks the lines of apus.service in the file named, as `journalctl -o json` prints them, field by field."""

import json
import sys

lines = [json.loads(line) for line in open(sys.argv[1])]
workers = {line.get("APUS_WORKER") for line in lines if line["_SYSTEMD_UNIT"] == "apus.service"}
assert {"supervisor", "nameserver-0", "filter-0"} <= workers, workers
about = {line.get("APUS_ABOUT") for line in lines}
assert {"nameserver-0", "broker-store-0", "replication-0", "filter-0"} <= about, about
own = [line for line in lines if line.get("APUS_WORKER") == "nameserver-0"]
assert all(line["SYSLOG_IDENTIFIER"] == "apus" and line["PRIORITY"] in "01234567" for line in own), own
assert any(line.get("APUS_BROKER") == "broker-a" for line in own), own
# One process a life, each with the service's unit and a name of its own.
assert all(line["_COMM"].startswith("apus-name") and line["_SYSTEMD_UNIT"] == "apus.service" for line in own), own
