"""The Celery application. Tasks are sent by name from `farm.wire`, so nothing here imports a worker."""

from celery import Celery

from farm.broker import transport

transport.install()
app = Celery("farm")
app.config_from_object("celeryconfig")
