"""What clickhouse-connect does against the server at a port of this machine."""

import datetime
import sys

import clickhouse_connect
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.external import ExternalData


def code(call):
    """The code of the exception that a call must raise."""
    try:
        call()
    except DatabaseError as error:
        return int(str(error).split("Code: ")[1].split(".")[0])
    raise AssertionError("no error")


def connect(**options):
    return clickhouse_connect.get_client(host="127.0.0.1", port=int(sys.argv[1]), **options)


for compress in (False, True, "lz4", "zstd", "gzip"):
    client = connect(compress=compress)
    assert client.server_version.startswith("26."), client.server_version
    assert client.ping()
    assert client.command("SELECT 1") == 1

    client.command("DROP TABLE IF EXISTS t")
    client.command(
        "CREATE TABLE t (a UInt32, s String, n Nullable(Float64), t DateTime('UTC'), l LowCardinality(String), "
        "r Array(UInt8), m Map(String, UInt8)) ENGINE = MergeTree ORDER BY a"
    )
    start = datetime.datetime(2026, 1, 1)
    rows = [
        (i, f"s{i}\n\n", None if i % 2 else i / 2, start + datetime.timedelta(seconds=i), "x", [1, 2], {"k": i % 7})
        for i in range(20000)
    ]
    written = client.insert("t", rows, column_names=["a", "s", "n", "t", "l", "r", "m"])
    assert written.written_rows == 20000, written.summary
    assert client.query("SELECT * FROM t ORDER BY a").result_rows == rows
    client.raw_insert("t", ["a", "s"], "100000,x\n100001,y\n", fmt="CSV")
    assert client.command("SELECT count() FROM t") == 20002

    found = client.query(
        "SELECT count() FROM t WHERE a < {x:UInt32} AND s != {s:String}", parameters={"x": 10, "s": "a'b\\c\td"}
    )
    assert found.result_rows == [(10,)]
    assert client.query("SELECT getSetting('max_block_size')", settings={"max_block_size": 77}).result_rows == [(77,)]
    assert client.query("SELECT getSetting('max_block_size')").result_rows == [(65409,)]
    with client.query_row_block_stream("SELECT number FROM numbers(1000000)") as blocks:
        assert sum(len(block) for block in blocks) == 1000000
    assert client.raw_query("SELECT 1 AS x", fmt="JSONEachRow") == b'{"x":1}\n'

    assert code(lambda: client.query("SELECT * FROM nothing")) == 60
    assert code(lambda: client.query("SELEC 1")) == 62
    assert code(lambda: client.query("SELECT number, throwIf(number = 3000000) FROM numbers(4000000)")) == 395
    table = ExternalData(file_name="m.csv", data=b"1,one\n2,two\n", fmt="CSV", structure=["id UInt32", "name String"])
    assert client.query("SELECT name FROM m WHERE id = 2", external_data=table).result_rows == [("two",)]

session = connect(session_id="s")
session.command("CREATE TEMPORARY TABLE own (a Int8)")
session.insert("own", [[1], [2]], column_names=["a"])
assert session.query("SELECT sum(a) FROM own").result_rows == [(3,)]
assert code(lambda: connect().query("SELECT * FROM own")) == 60
assert code(lambda: connect(username="x", password="y")) == 516
print("everything holds")
