"""A pull consumer: reads every queue of a topic from the start, prints each message as JSON, then {"stopped": true}.

    pull.py --name-server ADDRESS --topic T --group G [--tags EXPRESSION] [--max 32]
"""

import argparse

from official import PullConsumer, describe, emit, leave, quiet

options = argparse.ArgumentParser()
options.add_argument("--name-server", required=True)
options.add_argument("--topic", required=True)
options.add_argument("--group", required=True)
options.add_argument("--tags", default="*")
options.add_argument("--max", type=int, default=32)
options = options.parse_args()

consumer = PullConsumer(options.group)
quiet(consumer._handle, "PullConsumer")
consumer.set_namesrv_addr(options.name_server)
consumer.start()
emit({"ready": True})
for message in consumer.pull(options.topic, options.tags, options.max):
    emit(describe(message))
consumer.shutdown()
emit({"stopped": True})
leave(0)
