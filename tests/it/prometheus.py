"""What Prometheus' client library shows of its metrics, sent instead of scraped."""

import sys
import urllib.request

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

url = sys.argv[1] + "/api/v1/import/prometheus"
for name, show, kind in [
    ("text", generate_latest, CONTENT_TYPE_LATEST),
    ("openmetrics", openmetrics.generate_latest, openmetrics.CONTENT_TYPE_LATEST),
]:
    registry = CollectorRegistry()
    Counter(f"{name}_jobs", "Jobs.", ["kind"], registry=registry).labels('a "b"\\c\nd').inc(3.5)
    Gauge(f"{name}_temperature", "Degrees.\nOutside.", registry=registry).set(-12.25)
    latency = Histogram(f"{name}_latency_seconds", "Seconds.", registry=registry, buckets=(0.1, 1))
    latency.observe(0.05, {"trace": "x"} if name == "openmetrics" else None)
    latency.observe(5)
    request = urllib.request.Request(url, data=show(registry), headers={"Content-Type": kind})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 204, answer.status

print("everything holds")
