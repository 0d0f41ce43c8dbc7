"""InfluxDB's client writes points, compressed, with its own kind of token; and is told what was refused."""

import sys

from influxdb_client import InfluxDBClient, Point, WritePrecision
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException

url, token, time = sys.argv[1], sys.argv[2], int(sys.argv[3])
with InfluxDBClient(url=url, token=token, org="any", enable_gzip=True) as client:
    assert client.ping()
    writer = client.write_api(write_options=SYNCHRONOUS)
    points = [
        Point("my disk")
        .tag("host", "a b,c=d")
        .field("used", at + 0.5)
        .field("whole", at)
        .field("ok", True)
        .field("note", 'a "quoted", text')
        .time(time + at, WritePrecision.MS)
        for at in range(3)
    ]
    writer.write(bucket="any", record=points, write_precision=WritePrecision.MS)
    try:
        writer.write(bucket="any", record="bad\nok value=1", write_precision=WritePrecision.S)
        raise AssertionError("a line without fields was taken")
    except ApiException as refused:
        assert refused.status == 400, refused
        assert "there are no fields" in refused.message, refused.message

with InfluxDBClient(url=url, token="nobody's", org="any") as client:
    try:
        client.write_api(write_options=SYNCHRONOUS).write(bucket="any", record="m f=1")
        raise AssertionError("a token of nobody was taken")
    except ApiException as refused:
        assert refused.status == 401, refused

print("everything holds")
