"""The benchmark's request as a locust user: one call at a time, through grpcio and gevent."""

import time

import grpc.experimental.gevent
from locust import User, constant, task

grpc.experimental.gevent.init_gevent()

PREDICT = "/tensorflow.serving.PredictionService/Predict"
MESSAGE = bytes(range(174))
CALLS = []


class Caller(User):
    wait_time = constant(0)

    def on_start(self) -> None:
        if not CALLS:
            options = [("grpc.enable_http_proxy", 0)]
            channel = grpc.insecure_channel(self.host, options=options)
            CALLS.append(channel.unary_unary(PREDICT))

    @task
    def predict(self) -> None:
        started = time.perf_counter()
        answer = CALLS[0](MESSAGE, timeout=10)
        self.environment.events.request.fire(
            request_type="grpc",
            name="Predict",
            response_time=(time.perf_counter() - started) * 1000,
            response_length=len(answer),
            exception=None,
        )
