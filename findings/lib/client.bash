# Sourced by the findings on one client: `with_client [PACKAGE]` runs the Python program on standard input with that
# package and the stub in a temporary folder. Without PACKAGE it is the official C++ client: rocketmq==0.4.4, whose
# wheel carries librocketmq.so of client-cpp 2.0.0.
set -euo pipefail
lib=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

with_client() {
    python3 -m venv "$folder/env"
    "$folder/env/bin/pip" install --quiet --disable-pip-version-check "${1:-rocketmq==0.4.4}"
    # The client writes its logs and offsets to $HOME.
    HOME=$folder PYTHONPATH=$lib PYTHONDONTWRITEBYTECODE=1 timeout 50 "$folder/env/bin/python" -
}
