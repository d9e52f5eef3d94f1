"""Celery's configuration, loaded by every process: scheduler, workers, command line, Flower.

Values only. What each key means: https://docs.celeryq.dev/en/v5.7.0/userguide/configuration.html
"""

from kombu import Queue

from farm import queues
from farm.config import Settings

broker_url = Settings.from_env().broker
result_backend = None  # SQL is the truth; a result backend would be a second one
task_ignore_result = True

# JSON only: a message must never be able to run code in whoever reads it.
task_serializer = result_serializer = event_serializer = "json"
accept_content = ["json"]

# Early acknowledgement: a long build must not hang on a message. The attempt's own lease says who is alive
# (docs/decisions/0001-early-acknowledgement.md).
task_acks_late = False
worker_prefetch_multiplier = 1
worker_disable_prefetch = True  # a busy worker holds back no message

worker_lost_wait = 1.0  # seconds between a pool process's death and `worker-lost`; the default of 10 is for results

# Only queues with a consumer: with True a typing error would make a queue that nobody reads.
task_create_missing_queues = False
task_queues = [Queue(name, routing_key=name) for name in queues.ALL]
task_default_queue = queues.CONTROL

broker_transport_options = {
    "socket_timeout": 30,  # seconds; None would let a publish hang on a half-open socket for ever
    "socket_connect_timeout": 10,  # seconds
    "socket_keepalive": True,
    "queue_order_strategy": "priority",
}
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # for ever: a worker outlives any outage of the broker
# Nor does it end because a Redis at its memory limit refuses a command: it connects anew until there is room.
broker_channel_error_retry = True

# For Flower. Not when a task is sent, which would be half of what sending costs: a worker receives it at once, since
# no queue holds more than its workers are about to take.
worker_send_task_events = True
task_send_sent_event = False

# Celery's own, but for its end when the broker's ACL denies it something, which no retry mends.
worker_consumer = "workers.agent.consumer:Consumer"

worker_hijack_root_logger = False
worker_redirect_stdouts = False
