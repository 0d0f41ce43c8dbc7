"""OpenTelemetry's own SDK exports metrics of every kind, over HTTP and gRPC, and is told what was refused."""

import logging
import sys

import grpc
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, UpDownCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

address, token = sys.argv[1], sys.argv[2]
# With a certificate to trust everything goes over TLS.
certificate = sys.argv[3] if len(sys.argv) > 3 else None
scheme = "https" if certificate else "http"
trusted = grpc.ssl_channel_credentials(open(certificate, "rb").read()) if certificate else None
logging.disable(logging.CRITICAL)
DELTA = {kind: AggregationTemporality.DELTA for kind in (Counter, Histogram, UpDownCounter)}


def over_http(token, **more):
    headers = {"authorization": f"Bearer {token}"}
    more |= {"certificate_file": certificate, "compression": Compression.Gzip}
    return HttpExporter(f"{scheme}://{address}/v1/metrics", headers=headers, **more)


def over_grpc(token, **more):
    headers = (("authorization", f"Bearer {token}"),)
    more |= {"credentials": trusted, "insecure": not trusted, "compression": grpc.Compression.Gzip}
    return GrpcExporter(address, headers=headers, **more)


class Watched:
    """An exporter whose results are kept."""

    def __init__(self, exporter):
        self.exporter, self.results = exporter, []
        export = exporter.export

        def watched(*arguments, **named):
            self.results.append(export(*arguments, **named))
            return self.results[-1]

        exporter.export = watched


def measure(name, exporter, attributes={}):
    """One of each instrument, collected twice."""
    watched = Watched(exporter)
    reader = PeriodicExportingMetricReader(watched.exporter, export_interval_millis=3_600_000)
    resource = Resource({"service.name": name, "service.version": "1", "team": "a"})
    exponential = View(instrument_name=f"{name}.size", aggregation=ExponentialBucketHistogramAggregation())
    provider = MeterProvider([reader], resource, views=[exponential])
    meter = provider.get_meter("it", "1.0")
    requests = meter.create_counter(f"{name}.requests", "{request}")
    depth = meter.create_up_down_counter(f"{name}.queue.depth")
    latency = meter.create_histogram(f"{name}.latency", "s", explicit_bucket_boundaries_advisory=[0.1, 1])
    size = meter.create_histogram(f"{name}.size", "By")
    load = meter.create_gauge(f"{name}.load", "1")
    for _ in range(2):
        requests.add(3, {"http.route": "/a", "ok": True, "codes": [1, 2], **attributes})
        depth.add(-2)
        latency.record(0.0625)
        latency.record(0.5)
        size.record(1)
        size.record(4)
        load.set(0.25)
        provider.force_flush()
    provider.shutdown()
    return watched.results


for name, exporter, more in [
    ("http", over_http, {}),
    ("grpc", over_grpc, {}),
    ("http_d", over_http, {"preferred_temporality": DELTA}),
    ("grpc_d", over_grpc, {"preferred_temporality": DELTA}),
]:
    results = measure(name, exporter(token, **more))
    assert len(results) >= 2 and set(results) == {MetricExportResult.SUCCESS}, (name, results)
    # Some refused is a success, too: the rest is stored, and the SDK sends nothing again.
    results = measure(f"{name}_part", exporter(token, **more), {"__x": "1"})
    assert set(results) == {MetricExportResult.SUCCESS}, (name, results)

for exporter in (over_http("nobody's"), over_grpc("nobody's")):
    assert set(measure("nobody", exporter)) == {MetricExportResult.FAILURE}

# What the SDK doesn't show: the answers themselves.
metadata = (("authorization", f"Bearer {token}"),)
with grpc.secure_channel(address, trusted) if trusted else grpc.insecure_channel(address) as channel:
    export = metrics_service_pb2_grpc.MetricsServiceStub(channel).Export
    request = metrics_service_pb2.ExportMetricsServiceRequest()
    # Long enough to be compressed.
    point = request.resource_metrics.add().scope_metrics.add().metrics.add(name="old", description="words " * 1_000).gauge.data_points.add()
    point.as_int = 1
    answer = export(request, metadata=metadata, timeout=10)
    assert answer.partial_success.rejected_data_points == 1, answer
    assert "TIMESTAMP_OUT_OF_RANGE" in answer.partial_success.error_message, answer
    for call, code in [
        (lambda: export(request, timeout=10), grpc.StatusCode.UNAUTHENTICATED),
        (
            lambda: trace_service_pb2_grpc.TraceServiceStub(channel).Export(
                trace_service_pb2.ExportTraceServiceRequest(), metadata=metadata, timeout=10
            ),
            grpc.StatusCode.UNIMPLEMENTED,
        ),
        (
            lambda: export(request, metadata=metadata, timeout=10, compression=grpc.Compression.Deflate),
            grpc.StatusCode.UNIMPLEMENTED,
        ),
    ]:
        try:
            call()
            raise AssertionError(f"no {code}")
        except grpc.RpcError as refused:
            assert refused.code() == code, refused
            assert refused.details(), refused

print("everything holds")
