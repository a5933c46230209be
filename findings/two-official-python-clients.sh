#!/usr/bin/env bash
# RocketMQ's two official Python clients overwrite each other when a team moves from 4.x to 5.x in one environment.
#
# Packages: rocketmq 0.4.4 (remoting, 4.x) and rocketmq-python-client 5.1.2 (gRPC, 5.x), both from PyPI.
# Seen: both install a package named `rocketmq` and own rocketmq/__init__.py; pip says nothing. Which of them holds
# depends on the order of installation, and the other one's users meet an ImportError:
#   4.x, then 5.x: both work, because 4.x needs nothing of its __init__.py. `pip uninstall rocketmq` then takes the
#                  5.x client's __init__.py along: "cannot import name".
#   5.x, then 4.x: `from rocketmq import Message`, the first line of each 5.x example, fails at once.
# For a broker that serves both: let each application have an environment of its own while it moves; Apus's tests do.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

outcome() { # ENVIRONMENT: whether the 4.x and the 5.x client can be imported there
    local old=fails new=fails
    "$folder/$1/bin/python" -c 'from rocketmq.client import Producer' 2>/dev/null && old=works
    "$folder/$1/bin/python" -c 'from rocketmq import Message' 2>/dev/null && new=works
    echo "4.x $old, 5.x $new"
}
install() { # ENVIRONMENT PACKAGE
    "$folder/$1/bin/pip" install --quiet --disable-pip-version-check "$2" 2>>"$folder/said"
}

seen=
for order in 'rocketmq==0.4.4 rocketmq-python-client==5.1.2' 'rocketmq-python-client==5.1.2 rocketmq==0.4.4'; do
    name=env${#seen}
    python3 -m venv "$folder/$name"
    for package in $order; do install "$name" "$package"; done
    seen+="$order: $(outcome "$name")"$'\n'
    if [ "${order%% *}" = rocketmq==0.4.4 ]; then
        "$folder/$name/bin/pip" uninstall --quiet --yes rocketmq 2>>"$folder/said"
        seen+="then without rocketmq: $(outcome "$name")"$'\n'
    fi
done
seen+="pip said about it: $(grep -ci 'conflict\|overwrit' "$folder/said" || true) lines"
echo "$seen"
wanted='rocketmq==0.4.4 rocketmq-python-client==5.1.2: 4.x works, 5.x works
then without rocketmq: 4.x fails, 5.x fails
rocketmq-python-client==5.1.2 rocketmq==0.4.4: 4.x works, 5.x fails
pip said about it: 0 lines'
[ "$seen" = "$wanted" ] && echo 'as described' || { echo 'CHANGED'; exit 1; }
