# Sourced by the findings on the official C++ client: `with_client NAME` runs the Python program on standard input
# with rocketmq==0.4.4 (its wheel carries librocketmq.so of client-cpp 2.0.0) and the stub in a temporary folder.
set -euo pipefail
lib=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

with_client() {
    python3 -m venv "$folder/env"
    "$folder/env/bin/pip" install --quiet --disable-pip-version-check rocketmq==0.4.4
    # The client writes its logs and offsets to $HOME.
    HOME=$folder PYTHONPATH=$lib PYTHONDONTWRITEBYTECODE=1 timeout 50 "$folder/env/bin/python" -
}
